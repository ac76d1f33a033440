"""How well requests control lists: operations, shares halved, two concepts at once, side effects."""
