"""How long work says where it is."""

from collections.abc import Callable

Report = Callable[[str], None]
"""Told the name of each stage as it begins."""


STAGES = (
    "reading the run",
    "finding gains",
    "measuring neurons on users",
    "measuring neurons on items",
    "asking torch for references",
    "exporting graphs",
    "writing arrays",
    "building the index",
    "writing tables",
    "checking against torch",
    "publishing",
)


def silent(stage: str) -> None:
    """Says nothing."""
