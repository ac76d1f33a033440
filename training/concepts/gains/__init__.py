"""The gains of a bundle: how much of each concept every item carries, between 0 and 1."""
