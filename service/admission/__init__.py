"""Bounds on the work under way, and what the server does without when it must."""
