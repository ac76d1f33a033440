"""Trains and measures a plan cell by cell; keeps what is finished, so that a sweep can resume.

Under OUT: cells/, one JSON file per cell; models/, one folder per recommender, shared by cells that
differ in the SAE.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from training.checkpoint import Checkpoints, read_json, write_json
from training.config import TrainConfig
from training.data import Data, load_data
from training.evaluation.plan import Flags, Plan, config_of
from training.measures.fidelity import measure_fidelity
from training.measures.ranking import judge, references
from training.measures.scorers import ModelScorer, Scorer
from training.progress import Reporter
from training.recommenders import FitContext
from training.stages import complete_autoencoder, complete_recommender, new_context

Figures = dict[str, float]
Kept = TypeVar("Kept")
_PARTS_OF_SAE = ("sae", "sae_options", "concepts")


class Cell(NamedTuple):
    """A finished cell: its flags, and its figures by name."""

    flags: Flags
    figures: Figures


def run_sweep(plan: Plan, out: Path, reporter: Reporter, device: torch.device) -> list[Cell]:
    """Trains and measures unfinished cells; returns all in the plan's order, references last."""
    sweep = _Sweep(plan, out, reporter, device)
    configs = [config_of(flags) for flags in plan.cells]
    cells = []
    for number, (flags, config) in enumerate(zip(plan.cells, configs, strict=True), 1):
        reporter.note(f"cell {number} of {len(configs)}: {json.dumps(flags)}")
        cells.append(Cell(flags, sweep.cell(config)))
    if plan.references:
        for key, config in {_digest(_data_part(config)): config for config in configs}.items():
            for method, figures in sweep.references(key, config).items():
                cells.append(Cell({"recommender": method, "seed": config.seed}, figures))
    return cells


@dataclass
class _Sweep:
    plan: Plan
    out: Path
    reporter: Reporter
    device: torch.device
    _loaded: tuple[str, Data] | None = None

    def cell(self, config: TrainConfig) -> Figures:
        """Returns the figures of one cell, measured now or before."""
        measure = self._ranking if self.plan.measure == "ranking" else self._fidelity
        key = _digest([config.to_json(), self.plan.measure, self.plan.n])
        return self._kept(key, lambda: measure(config))

    def references(self, key: str, config: TrainConfig) -> dict[str, Figures]:
        """Returns the references' figures on the configuration's data, by method."""

        def measure() -> dict[str, Figures]:
            data = self._data(config)
            scorers = references(data.split, config.max_length)
            return {method: self._judged(data, scorer) for method, _, scorer in scorers}

        return self._kept(f"references-{key}-{self.plan.n}", measure)

    def _ranking(self, config: TrainConfig) -> Figures:
        data = self._data(config)
        home = self._home(config)
        recommender = complete_recommender(config, home, self._context(config, home))
        epochs = float(read_json(home / "recommender.json")["fit"]["best_epoch"])
        return self._judged(data, ModelScorer(recommender, config.max_length)) | {"epochs": epochs}

    def _fidelity(self, config: TrainConfig) -> Figures:
        split = self._data(config).split
        home = self._home(config)
        recommender = complete_recommender(config, home, self._context(config, home))
        stage = home / _digest({name: config.to_json()[name] for name in _PARTS_OF_SAE})
        stage.mkdir(exist_ok=True)
        sae = complete_autoencoder(config, stage, recommender, self._context(config, stage))
        validation, test = (
            measure_fidelity(recommender, sae, split, users, config.max_length, self.plan.n)
            for users in (split.validation, split.test)
        )
        return {
            "validation nDCG cost": validation.ndcg_loss,
            "nDCG cost": test.ndcg_loss,
            "overlap": test.overlap,
            "cosine": test.cosine,
            "l0": test.l0,
            "fvu": test.fvu,
            "dead": test.dead_share,
        }

    def _context(self, config: TrainConfig, home: Path) -> FitContext:
        checkpoints = Checkpoints(home / "checkpoints")
        return new_context(
            config, self._data(config).split, checkpoints, self.reporter, self.device
        )

    def _judged(self, data: Data, scorer: Scorer) -> Figures:
        validation = judge("", scorer, data.split, data.split.validation, self.plan.n)
        test = judge("", scorer, data.split, data.split.test, self.plan.n)
        return {
            "validation nDCG": validation.ndcg,
            "nDCG": test.ndcg,
            "recall": test.recall,
            "coverage": test.coverage,
        }

    def _data(self, config: TrainConfig) -> Data:
        """Returns the configuration's data; only one set is held at a time."""
        key = _digest(_data_part(config))
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = key, load_data(config, self.reporter)
        return self._loaded[1]

    def _home(self, config: TrainConfig) -> Path:
        part = {
            name: value for name, value in config.to_json().items() if name not in _PARTS_OF_SAE
        }
        home = self.out / "models" / _digest(part)
        home.mkdir(parents=True, exist_ok=True)
        return home

    def _kept(self, key: str, measure: Callable[[], Kept]) -> Kept:
        path = self.out / "cells" / f"{key}.json"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, measure())
        kept: Kept = read_json(path)
        return kept


def _data_part(config: TrainConfig) -> dict[str, Any]:
    names = (
        "data",
        "data_options",
        "split",
        "seed",
        "min_value",
        "implicit",
        "user_core",
        "item_core",
    )
    plain = config.to_json()
    return {name: plain[name] for name in names} | {"max_length": config.max_length}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
