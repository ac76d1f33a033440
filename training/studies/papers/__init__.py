"""Reproductions of the papers that this project starts from, compared with their figures."""
