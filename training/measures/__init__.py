"""Measures of lists, what scores items for them, and how recommenders and SAEs compare."""
