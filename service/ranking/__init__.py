"""Orders candidates, and measures lists, in numpy alone."""
