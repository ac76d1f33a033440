"""Reports on finished runs: how good lists are, what neurons mean, and what steering changes."""
