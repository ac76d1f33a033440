"""Filters: conditions on items' attributes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Condition:
    """Holds for an item that has any of the values, or a number in [minimum, maximum]."""

    attribute: str
    values: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Filter:
    """Allows items for which all of all_of hold and none of none_of.

    Attributes:
        item_ids: If there are any, only these items are allowed.
    """

    all_of: tuple[Condition, ...] = ()
    none_of: tuple[Condition, ...] = ()
    item_ids: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.all_of or self.none_of or self.item_ids)
