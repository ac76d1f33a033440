"""Describes in words what produced a reply."""

from rich.text import Text

from trimtab.cli.screen import cell, short_id
from trimtab.v1.recommendation_pb2 import Degradation, ServedBy, Source

_SOURCES = {
    Source.SOURCE_PERSONAL: "from the user's history",
    Source.SOURCE_COLD_START: "cold start: the mean user, steered",
    Source.SOURCE_POPULAR: "cold start: the most popular items",
}


def served_by_line(served_by: ServedBy) -> Text:
    """Returns bundle, label set, source and degradations of a reply in one line."""
    parts = [f"served by bundle {short_id(served_by.bundle_id)}"]
    if served_by.label_set:
        parts.append(f"label set {served_by.label_set}")
    if served_by.source in _SOURCES:
        parts.append(_SOURCES[served_by.source])
    if served_by.cached:
        parts.append("user embedding from the cache")
    if served_by.policy:
        parts.append(f"policy {served_by.policy} revision {served_by.policy_revision}")
    if served_by.experiment:
        parts.append(f"experiment {served_by.experiment}, arm {served_by.arm}")
    if served_by.ignored_item_count:
        parts.append(f"{served_by.ignored_item_count} unknown items in the history")
    parts += [
        f"degraded: {enum_text(Degradation.Name(d), 'DEGRADATION')}" for d in served_by.degradations
    ]
    return cell(", ".join(parts), "dim")


def enum_text(name: str, prefix: str) -> str:
    """Returns an enum value in words: "no store" for DEGRADATION_NO_STORE."""
    return name.removeprefix(f"{prefix}_").lower().replace("_", " ")
