"""Starts the server's processes and parts, and stops them."""
