"""Longer studies on finished runs: the steering frontier, control by requests, reproductions."""
