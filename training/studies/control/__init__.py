"""The control study: how well requests control lists, and their side effects."""
