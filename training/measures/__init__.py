"""Measures of lists, scorers of items, and comparisons of recommenders and SAEs."""
