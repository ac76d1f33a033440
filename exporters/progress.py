"""Reports the stages of an export."""

from collections.abc import Callable

Report = Callable[[str], None]
"""Called with the name of each stage when it begins."""


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
    """Reports nothing."""
