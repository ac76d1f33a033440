"""Reports on finished runs: quality of lists, meaning of neurons, effects of steering."""
