"""Order of candidates, and measures on lists."""
