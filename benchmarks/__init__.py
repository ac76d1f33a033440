"""Measurements of Trimtab: each room's programs print or write the pages of docs/results."""
