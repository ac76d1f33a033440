"""The whole configuration of a training run, and its form as JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.concepts.config import ConceptConfig
from training.datasets import options_type
from training.errors import ConfigError, RunError
from training.recommenders import RECOMMENDERS
from training.saes import SAES
from training.splits import SplitConfig


@dataclass(frozen=True)
class TrainConfig:
    """What decides a run: the same configuration and data give the same files."""

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
    seed: int = 42
    """Seed of the split, of all initial values and of every draw."""
    min_value: float | None = None
    """Events with a value below it are not positive; by default the data set's own rule (4 of 5 stars)."""
    implicit: bool = False
    """Take every event as positive, whatever its value."""
    user_core: int = 0
    """Keep users with at least so many items; applied in turn with --item-core until both hold."""
    item_core: int = 0
    """Keep items with at least so many users."""
    max_length: int = 200
    """The encoder reads a history's newest positive items, at most so many."""
    split: SplitConfig = field(default_factory=SplitConfig)
    concepts: ConceptConfig = field(default_factory=ConceptConfig)
    data_options: Any = None
    recommender_options: Any = None
    sae_options: Any = None

    def __post_init__(self) -> None:
        for name, registry in (("recommender", RECOMMENDERS), ("sae", SAES)):
            if getattr(self, name) not in registry:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}, expected one of {', '.join(sorted(registry))}"
                )
        if self.max_length < 1:
            raise ConfigError(f"max_length is {self.max_length}, expected at least 1")
        if self.user_core < 0 or self.item_core < 0:
            raise ConfigError(
                f"the cores are {self.user_core} and {self.item_core}, expected at least 0"
            )
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed}, expected a number from 0 to 2^63 - 1")
        if self.implicit and self.min_value is not None:
            raise ConfigError(
                "implicit takes every event as positive, so min_value must not be given"
            )
        for name, kind in self.option_types().items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, kind())
            elif not isinstance(getattr(self, name), kind):
                raise ConfigError(
                    f"{name} is a {type(getattr(self, name)).__name__}, expected {kind.__name__}"
                )
        self.sae_options.n_neurons(
            self.recommender_options.d
        )  # refuses k > n_neurons before anything is trained

    def option_types(self) -> dict[str, type[Any]]:
        """The dataclass of each section that depends on what was chosen."""
        return {
            "data_options": options_type(self.data),
            "recommender_options": RECOMMENDERS[self.recommender].options,
            "sae_options": SAES[self.sae].options,
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values, nested by section."""
        return {name: _plain(value) for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> TrainConfig:
        """Reads what to_json wrote, whether or not a folder of data is still where it was.

        Raises:
            RunError: if something is missing or unknown.
        """
        try:
            values = dict(plain)
            values["split"] = SplitConfig(**values["split"])
            values["concepts"] = ConceptConfig(**values["concepts"])
            values["data_options"] = _typed(options_type(values["data"]), values["data_options"])
            values["recommender_options"] = _typed(
                RECOMMENDERS[values["recommender"]].options, values["recommender_options"]
            )
            values["sae_options"] = _typed(SAES[values["sae"]].options, values["sae_options"])
            return cls(**values)
        except (KeyError, TypeError, ConfigError) as error:
            raise RunError(
                f"the configuration is not one that this version can read: {error}"
            ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return str(value) if isinstance(value, Path) else value


def _typed(kind: type[Any], values: dict[str, Any]) -> Any:
    names = {option.name for option in dataclasses.fields(kind) if "Path" in str(option.type)}
    return kind(
        **{
            name: Path(value) if name in names and value else value
            for name, value in values.items()
        }
    )
