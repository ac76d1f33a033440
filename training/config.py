"""Defines the whole configuration of a training run, and its form as JSON."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from training.concepts.config import ConceptConfig
from training.datasets import options_type
from training.errors import ConfigError, RunError
from training.options import Count, CountOrZero, options
from training.recommenders import RECOMMENDERS
from training.saes import SAES
from training.splits import SplitConfig

_SECTIONS = (
    "data",
    "recommender",
    "sae",
    "split",
    "concepts",
    "data_options",
    "recommender_options",
    "sae_options",
)
"""Fields that the JSON of a run always has."""


@options
class TrainConfig:
    """Decides a run: the same configuration and data give the same files.

    data_options, recommender_options and sae_options are the options of what data, recommender and
    sae choose; None means their defaults.
    """

    data: str = "ml-100k"
    """Data set: a publisher's (ml-100k, ml-1m, ml-25m, ml-32m, ml-latest-small, amazon-2023,
    lastfm-hetrec), synthetic, a folder with interactions.parquet and items.parquet, or a CSV,
    Parquet or JSON-lines file.
    """
    recommender: str = "elsa"
    """Recommender: elsa, puresvd, multvae, multdae, als, bpr, logistic, lightgcn; in order of time:
    sasrec, gpt, bert4rec, timirec."""
    sae: str = "topk"
    """Sparse autoencoder: relu, topk, batchtopk, jumprelu, matryoshka or tied."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 42
    """Seed of the split, of all initial values and of every draw."""
    min_value: float | None = None
    """Events with a value below it are not positive; by default the data set's own rule (4 of 5
    stars)."""
    implicit: bool = False
    """Take every event as positive, whatever its value."""
    user_core: CountOrZero = 0
    """Keep users with at least this many items; applied in turn with --item-core until both
    hold."""
    item_core: CountOrZero = 0
    """Keep items with at least this many users."""
    max_length: Count = 200
    """Number of a history's newest positive items that the encoder reads."""
    split: SplitConfig = field(default_factory=SplitConfig)
    concepts: ConceptConfig = field(default_factory=ConceptConfig)
    data_options: Any = None
    recommender_options: Any = None
    sae_options: Any = None

    def __post_init__(self) -> None:
        for name, registry in (("recommender", RECOMMENDERS), ("sae", SAES)):
            if getattr(self, name) not in registry:
                known = ", ".join(sorted(registry))
                raise ConfigError(f"{name}: expected one of {known}, found {getattr(self, name)!r}")
        if self.implicit and self.min_value is not None:
            raise ConfigError(
                f"min_value: expected none, as implicit takes every event as positive, "
                f"found {self.min_value:g}"
            )
        for name, kind in self.option_types().items():
            object.__setattr__(self, name, _options_of(name, kind, getattr(self, name)))
        # Refuses k > n_neurons before anything is trained.
        self.sae_options.n_neurons(self.recommender_options.d)

    def option_types(self) -> dict[str, type[Any]]:
        """Returns the dataclass of each section that depends on what was chosen."""
        return {
            "data_options": options_type(self.data),
            "recommender_options": RECOMMENDERS[self.recommender].options,
            "sae_options": SAES[self.sae].options,
        }

    def to_json(self) -> dict[str, Any]:
        """Returns plain values, nested by section."""
        plain: dict[str, Any] = TypeAdapter(TrainConfig).dump_python(self, mode="json")
        return plain

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> TrainConfig:
        """Reads the result of to_json, whether or not a folder of data is still where it was.

        Raises:
            RunError: if something is missing or unknown.
        """
        try:
            if missing := [name for name in _SECTIONS if name not in plain]:
                raise ConfigError(
                    f"run: expected also {', '.join(missing)}, found {', '.join(plain)}"
                )
            return cls(**plain)
        except ConfigError as error:
            raise RunError(
                f"the configuration is not one that this version can read: {error}"
            ) from error


def _options_of(name: str, kind: type[Any], value: Any) -> Any:
    """Returns value as options of that kind: None means the defaults, a dict comes from JSON."""
    if value is None:
        return kind()
    if isinstance(value, dict):
        return kind(**value)
    if not isinstance(value, kind):
        raise ConfigError(f"{name}: expected {kind.__name__}, found {type(value).__name__}")
    return value
