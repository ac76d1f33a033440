"""The cells that fidelity.py measures: which SAE, on which recommender and data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from training.recommenders import RECOMMENDERS
from training.saes import SAES

ELSA = "elsa d 128"


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    ELSA: (
        "elsa",
        {
            "d": 128,
            "lr": 3e-3,
            "batch_size": 128,
            "input_dropout": 0.7,
            "epochs": 100,
            "loss": "exact",
        },
    )
}
"""Recommenders whose options are not their defaults: name -> kind, options."""


BASE = {"expansion": 8}
"""Options of every SAE here: 1,024 neurons on 128 dimensions, like the defaults on ELSA's 256."""


@dataclass(frozen=True)
class Cell:
    """One SAE on one recommender: options are those that differ from the defaults and BASE."""

    table: str
    label: str
    data: str
    recommender: str
    sae: str
    options: tuple[tuple[str, Any], ...]
    seed: int = 0

    @property
    def name(self) -> str:
        """Names all that the figures depend on; cells of several tables may share a name."""
        defaults = SAES[self.sae].options(**BASE)
        changed = [
            (name, value) for name, value in self.options if value != getattr(defaults, name)
        ]
        options = "".join(f" {name}={value}" for name, value in sorted(changed))
        return f"{self.data} {self.recommender} {self.sae}{options} {self.seed}".replace(" ", "_")


def plan() -> Iterator[Cell]:
    """Yields every cell without its seed, the most important first."""

    def cell(table: str, label: str, data: str, recommender: str, sae: str, **options: Any) -> Cell:
        return Cell(table, label, data, recommender, sae, tuple(options.items()))

    for data in ("ml-1m-rated", "ml-1m"):
        for k in (32, 16, 64):
            yield cell("bars", f"k = {k}", data, ELSA, "topk", k=k)
    for label, options in PAPER.items():
        yield cell("paper", label, "ml-1m-rated", "multvae", "topk", **options)
        yield cell("paper", label, "ml-1m-rated", ELSA, "topk", **options)
    for k in (32, 16, 64):
        yield cell("bars", f"k = {k}", "ml-1m-rated", "elsa", "topk", k=k, expansion=4)
    for label, options in ABLATION.items():
        yield cell("ablation", label, "ml-1m-rated", ELSA, "topk", **options)
    for k in (32, 16, 64):
        for sae in SAES:
            yield cell("saes", sae, "ml-1m-rated", ELSA, sae, k=k, epochs=100)
    for recommender, kind in RECOMMENDERS.items():
        for sae in SAES:
            if kind.ordered:
                yield cell("sequential", sae, "amazon-beauty", recommender, sae, epochs=10)
            else:
                name = ELSA if recommender == "elsa" else recommender
                yield cell("matrix", sae, "ml-1m-rated", name, sae, epochs=100)


ABLATION: dict[str, dict[str, Any]] = {
    "defaults": {},
    "whole histories": {"keep_low": 1.0, "joined": 0.0},
    "sub-histories, none joined": {"joined": 0.0},
    "all joined": {"joined": 1.0},
    "keep at least .2": {"keep_low": 0.2},
    "100 epochs": {"epochs": 100},
    "900 epochs": {"epochs": 900},
    "2 x d neurons": {"expansion": 2},
    "4 x d neurons": {"expansion": 4},
    "16 x d neurons": {"expansion": 16},
    "cosine loss": {"loss": "cosine"},
    "not normalised": {"normalise": "none"},
    "standardised": {"normalise": "standard"},
    "no AuxK": {"auxk_weight": 0.0},
}


_THEIRS: dict[str, Any] = {"keep_low": 1.0, "joined": 0.0, "auxk_weight": 0.0, "loss": "cosine"}


PAPER: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, standardised": {"normalise": "standard"},
    "as the paper trains": _THEIRS | {"normalise": "standard"},
}
