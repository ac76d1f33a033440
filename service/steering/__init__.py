"""The algebra of steering, in numpy alone."""
