"""Bounds the work in progress, and names what the server does without when it must."""
