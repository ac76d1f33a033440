"""Longer studies on finished runs: the steering frontier, control by requests, and papers reproduced."""
