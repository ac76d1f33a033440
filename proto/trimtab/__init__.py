"""The client of Trimtab, and what both sides of the wire share."""
