"""Options of the concepts that are fitted to the items' attributes."""

from __future__ import annotations

from training.concepts.describing.dictionary import DICTIONARY
from training.concepts.mapping.methods import METHODS
from training.errors import ConfigError
from training.options import options


@options
class ConceptConfig:
    """Configures the attribute values that become concepts, their fit, and the neurons' labels."""

    method: str = "contrast"
    """Method that gives a concept its weights over neurons: contrast, tfidf, tfidf-unique, auc,
    correlation, dense-probe, sparse-probe or causal."""
    labels: str = "dictionary,tfidf,tfidf-unique,auc,correlation"
    """Methods that label neurons, in the order in which cards show them, separated by commas:
    any of the methods, and dictionary."""
    min_items: int = 10
    """Items that must carry an attribute value to make it a concept; not all may."""
    max_values: int = 1000
    """Values of each attribute that become concepts, at most: the most frequent."""
    min_popularity: int = 5
    """Events of training users that an item needs to take part in fitting: below, codes are mostly
    chance."""
    held_out_share: float = 0.2
    """Share of the items on which a concept fitted to the others is judged (AUC)."""
    max_users: int = 500
    """Validation users at most on whom units and shares are measured, drawn at random."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(
                f"concepts: method: expected one of {', '.join(METHODS)}, found {self.method!r}"
            )
        if unknown := [name for name in self.label_methods if name not in {*METHODS, DICTIONARY}]:
            known = ", ".join([DICTIONARY, *METHODS])
            raise ConfigError(f"concepts: labels: expected some of {known}, found {unknown[0]!r}")
        if self.min_items < 1 or self.max_values < 1 or self.max_users < 1:
            raise ConfigError(
                "concepts: min_items, max_values and max_users: expected at least 1, "
                f"found {self.min_items}, {self.max_values} and {self.max_users}"
            )
        if self.min_popularity < 0:
            raise ConfigError(
                f"concepts: min_popularity: expected 0 or more, found {self.min_popularity}"
            )
        if not 0 < self.held_out_share < 1:
            raise ConfigError(
                f"concepts: held_out_share: expected between 0 and 1, found {self.held_out_share}"
            )

    @property
    def label_methods(self) -> list[str]:
        """Returns the names in labels, in order."""
        return [name.strip() for name in self.labels.split(",") if name.strip()]
