"""The steering frontier: the relevance that methods keep at an equal share of a concept."""
