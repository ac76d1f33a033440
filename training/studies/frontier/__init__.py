"""The steering frontier: what relevance each way of steering keeps at an equal share of a concept."""
