"""Starts and stops the server's processes and parts."""
