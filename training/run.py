"""Reads and writes a run directory: the result of trimtab-train, for exporters and evaluation.

run.json (configuration, metrics, provenance), recommender.safetensors and .json, sae.safetensors
and .json, items.parquet, split.npz, concepts.parquet, labels.parquet; checkpoints/ while training.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from torch import nn

from training.checkpoint import load_tensors, read_json, save_tensors, write_json
from training.concepts import FittedConcept, Label
from training.config import TrainConfig
from training.errors import RunError
from training.interactions import Catalogue
from training.recommenders import RECOMMENDERS, Recommender
from training.saes import SAES, SparseAutoencoder
from training.splits import Split

RUN_FORMAT = 1
_CONCEPT_SCHEMA: dict[str, Any] = {
    "name": pl.String,
    "attribute": pl.String,
    "item_count": pl.Int32,
    "method": pl.String,
    "weights": pl.List(pl.Float32),
    "unit": pl.Float64,
    "auc": pl.Float64,
    "blend_neurons": pl.List(pl.Int32),
    "unsteered_share": pl.Float64,
    "steered_share": pl.Float64,
}
_LABEL_SCHEMA: dict[str, Any] = {
    "neuron": pl.Int32,
    "labels": pl.List(
        pl.Struct(
            {"text": pl.String, "method": pl.String, "score": pl.Float64, "provenance": pl.String}
        )
    ),
}


@dataclass(frozen=True)
class Run:
    """A finished run; the models are in evaluation mode.

    config is resolved: min_value is the threshold that was applied, None where every event is
    positive. labels holds one list a neuron, best first.
    """

    path: Path
    config: TrainConfig
    metrics: dict[str, float]
    catalogue: Catalogue
    split: Split
    recommender: Recommender
    sae: SparseAutoencoder
    concepts: list[FittedConcept]
    labels: list[list[Label]]
    data_set: str
    code_version: str
    notes: tuple[str, ...] = ()


def save_run(run: Run) -> None:
    """Writes all but the models, which their stages wrote.

    Run.json, which makes the run finished, last.
    """
    run.catalogue.items.write_parquet(run.path / "items.parquet")
    run.split.save(run.path / "split.npz")
    _concept_frame(run.concepts).write_parquet(run.path / "concepts.parquet")
    rows = [[label._asdict() for label in labels] for labels in run.labels]
    labels = pl.DataFrame({"neuron": range(len(rows)), "labels": rows}, schema=_LABEL_SCHEMA)
    labels.write_parquet(run.path / "labels.parquet")
    document = {
        "format": RUN_FORMAT,
        "config": run.config.to_json(),
        "metrics": run.metrics,
        "data_set": run.data_set,
        "code_version": run.code_version,
        "notes": list(run.notes),
    }
    write_json(run.path / "run.json", document)


def load_run(path: Path) -> Run:
    """Reads a finished run.

    Raises:
        RunError: naming what is missing, of another format, or does not fit.
    """
    document = _document(path)
    config = TrainConfig.from_json(document["config"])
    catalogue = Catalogue(_frame(path / "items.parquet", ("item_id", "title", "popularity")))
    split = Split.load(path / "split.npz")
    if split.n_items != catalogue.n_items:
        raise RunError(
            f"{path}/split.npz: expected the {catalogue.n_items} items of items.parquet, "
            f"found {split.n_items}"
        )
    recommender = load_recommender(path, config, catalogue.n_items)
    sae = load_sae(path, config, recommender.d)
    concepts = _concepts(
        _frame(path / "concepts.parquet", tuple(_CONCEPT_SCHEMA)), sae.n_neurons, path
    )
    labels = [
        [Label(**label) for label in row]
        for row in _frame(path / "labels.parquet", ("neuron", "labels"))["labels"]
    ]
    if len(labels) != sae.n_neurons:
        raise RunError(
            f"{path}/labels.parquet: expected {sae.n_neurons} neurons as in the SAE, "
            f"found {len(labels)}"
        )
    return Run(
        path=path,
        config=config,
        metrics=document["metrics"],
        catalogue=catalogue,
        split=split,
        recommender=recommender,
        sae=sae,
        concepts=concepts,
        labels=labels,
        data_set=document["data_set"],
        code_version=document["code_version"],
        notes=tuple(document["notes"]),
    )


def save_model(path: Path, stage: str, module: nn.Module, about: dict[str, Any]) -> None:
    """Writes STAGE.safetensors, then STAGE.json, whose presence says that the stage is done."""
    save_tensors(path / f"{stage}.safetensors", dict(module.state_dict()))
    write_json(path / f"{stage}.json", about)


def load_recommender(path: Path, config: TrainConfig, n_items: int) -> Recommender:
    """Loads the trained recommender of a run, finished or not."""
    model = RECOMMENDERS[config.recommender].build(
        config.recommender_options, n_items, config.max_length
    )
    _fill(model, path, "recommender")
    return model


def load_sae(path: Path, config: TrainConfig, d: int) -> SparseAutoencoder:
    """Loads the trained SAE of a run, finished or not."""
    sae = SAES[config.sae].build(config.sae_options, d)
    sae.scale_factor = float(_fill(sae, path, "sae")["scale_factor"])
    return sae


def _fill(module: nn.Module, path: Path, stage: str) -> dict[str, Any]:
    about: dict[str, Any] = read_json(path / f"{stage}.json")
    try:
        module.load_state_dict(load_tensors(path / f"{stage}.safetensors"))
    except RuntimeError as error:
        raise RunError(
            f"{path / stage}.safetensors does not fit the configuration: {error}"
        ) from error
    module.eval().requires_grad_(False)
    return about


def _document(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise RunError(f"{path}: expected a directory that trimtab-train wrote, found none")
    if not (path / "run.json").is_file():
        state = (
            "its training was not finished"
            if (path / "checkpoints").is_dir()
            else "it is not a run"
        )
        raise RunError(f"{path}: expected a run.json, found none: {state}")
    document: dict[str, Any] = read_json(path / "run.json")
    expected = ("format", "config", "metrics", "data_set", "code_version", "notes")
    if missing := [name for name in expected if name not in document]:
        raise RunError(
            f"{path}/run.json: expected also {', '.join(missing)}, found {', '.join(document)}"
        )
    if document["format"] != RUN_FORMAT:
        raise RunError(f"{path}: expected a run of format {RUN_FORMAT}, found {document['format']}")
    return document


def _frame(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise RunError(f"{path} is not a readable Parquet file: {error}") from error
    if missing := [name for name in columns if name not in frame.columns]:
        raise RunError(f"{path}: expected also the columns {missing}, found {frame.columns}")
    return frame


def _concept_frame(concepts: list[FittedConcept]) -> pl.DataFrame:
    rows = [vars(concept) | {"weights": concept.weights.tolist()} for concept in concepts]
    return pl.DataFrame(rows, schema=_CONCEPT_SCHEMA)


def _concepts(frame: pl.DataFrame, n_neurons: int, path: Path) -> list[FittedConcept]:
    concepts = []
    for row in frame.iter_rows(named=True):
        weights = np.asarray(row.pop("weights"), dtype=np.float32)
        if len(weights) != n_neurons:
            raise RunError(
                f"{path}: concept {row['name']!r}: expected a weight for each of {n_neurons} "
                f"neurons, found {len(weights)}"
            )
        concepts.append(FittedConcept(weights=weights, **row))
    return concepts
