"""Solves for the strengths that meet target shares and budgets."""
