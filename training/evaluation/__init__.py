"""How good lists are, and what steering does to them: formulas, lists, and the comparisons made of both."""
