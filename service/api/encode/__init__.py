"""Domain to wire: replies as messages."""
