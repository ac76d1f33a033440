"""Options of the concepts that are fitted to the items' attributes."""

from __future__ import annotations

from dataclasses import dataclass

from training.errors import ConfigError


@dataclass(frozen=True)
class ConceptConfig:
    """Which attribute values become concepts, and how their effect is measured."""

    min_items: int = 10
    """An attribute value is a concept if at least so many items, and not all, carry it."""
    max_values: int = 1000
    """Of each attribute, at most so many values, the most frequent."""
    min_popularity: int = 5
    """Items with fewer events of training users take no part in fitting: their codes are mostly chance."""
    held_out_share: float = 0.2
    """Share of the items on which a concept fitted to the others is judged (AUC)."""
    max_users: int = 500
    """Validation users at most on whom units and shares are measured, drawn at random."""

    def __post_init__(self) -> None:
        if self.min_items < 1 or self.max_values < 1 or self.max_users < 1:
            raise ConfigError("concepts: min_items, max_values and max_users must be at least 1")
        if self.min_popularity < 0:
            raise ConfigError(f"concepts: min_popularity is {self.min_popularity}, expected 0 or more")
        if not 0 < self.held_out_share < 1:
            raise ConfigError(
                f"concepts: held_out_share is {self.held_out_share}, expected a share between 0 and 1"
            )
