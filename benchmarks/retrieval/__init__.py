"""Measures how candidates are found: speed and recall of the indexes."""
