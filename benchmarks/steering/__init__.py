"""Measures what steering does and costs: control, frontier, promises and budgets."""
