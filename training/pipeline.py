"""Makes a finished run from a configuration: data, split, recommender, SAE, concepts, figures.

An interrupted run can be resumed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from training.checkpoint import Checkpoints, read_json, write_json
from training.concepts import fit_concepts
from training.config import TrainConfig
from training.data import load_data
from training.errors import RunError
from training.progress import Reporter, Silent
from training.run import Run, load_run, save_run
from training.stages import complete_autoencoder, complete_recommender, measure_run, new_context
from training.summary import FILES as SUMMARY_FILES
from training.summary import write_summary

CPU = torch.device("cpu")


def summarise_data(config: TrainConfig, out: Path, reporter: Reporter) -> None:
    """Reads the data and writes their summary to out, without training.

    Raises:
        DataError: if the data cannot be used.
    """
    data = load_data(config, reporter)
    write_summary(data.summary, data.positives, out)


def train(
    config: TrainConfig,
    out: Path,
    reporter: Reporter | None = None,
    checkpoint_every_s: float = 5.0,
    device: torch.device = CPU,
) -> Run:
    """Trains into out, going on where an interrupted run of the same configuration stopped.

    A finished run of the same configuration is loaded as it is.

    Raises:
        DataError: if the data cannot be used.
        RunError: if out holds something else.
        DivergedError: if a loss is no longer a number.
    """
    reporter = reporter or Silent()
    if (out / "run.json").is_file():
        return _finished(config, out, reporter)
    data = load_data(config, reporter)
    resolved = dataclasses.replace(
        config, min_value=data.min_value, implicit=data.min_value is None
    )
    _claim(out, {"config": resolved.to_json(), "data": data.digest}, reporter)
    write_summary(data.summary, data.positives, out)
    checkpoints = Checkpoints(out / "checkpoints", checkpoint_every_s)

    context = new_context(config, data.split, checkpoints, reporter, device)
    recommender = complete_recommender(resolved, out, context)
    sae = complete_autoencoder(resolved, out, recommender, context)
    fitted = fit_concepts(
        recommender,
        sae,
        data.catalogue,
        data.split,
        config.max_length,
        config.concepts,
        config.seed,
        reporter.concept,
    )
    for note in fitted.notes:
        reporter.note(note)
    metrics = measure_run(recommender, sae, data.split, config.max_length)
    run = Run(
        path=out,
        config=resolved,
        metrics=metrics,
        catalogue=data.catalogue,
        split=data.split,
        recommender=recommender,
        sae=sae,
        concepts=fitted.concepts,
        labels=fitted.labels,
        data_set=data.name,
        code_version=code_version(),
        notes=data.notes + fitted.notes,
    )
    save_run(run)
    shutil.rmtree(checkpoints.folder)
    return run


def code_version() -> str:
    """Returns the version and a digest of this package's source, alike in checkout and wheel."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{version('trimtab')}+{digest.hexdigest()[:12]}"


def _claim(out: Path, claim: dict[str, Any], reporter: Reporter) -> None:
    """Makes out this configuration's, or finds that it is already."""
    path = out / "checkpoints" / "config.json"
    if path.is_file():
        if (before := read_json(path)) != claim:
            differing = ", ".join(_differences(before, claim)) or "the data"
            raise RunError(
                f"{out} holds an unfinished run with other settings ({differing}): "
                "choose another directory"
            )
        reporter.note(f"going on with the unfinished run in {out}")
        return
    if out.exists() and any(path.name not in SUMMARY_FILES for path in out.iterdir()):
        raise RunError(f"{out} is not empty and holds no run: choose another directory")
    path.parent.mkdir(parents=True)
    write_json(path, claim)


def _finished(config: TrainConfig, out: Path, reporter: Reporter) -> Run:
    run = load_run(out)
    resolved = config
    if config.min_value is None and not config.implicit:
        resolved = dataclasses.replace(
            config, min_value=run.config.min_value, implicit=run.config.implicit
        )
    if differing := _differences(run.config.to_json(), resolved.to_json()):
        names = ", ".join(differing)
        raise RunError(
            f"{out} holds a finished run with other settings ({names}): choose another directory"
        )
    reporter.note(f"{out} is already finished with these settings")
    return run


def _differences(left: Any, right: Any, name: str = "") -> list[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        names = sorted(left.keys() | right.keys())
        return [
            fault for key in names for fault in _differences(left.get(key), right.get(key), key)
        ]
    return [] if left == right else [f"{name}: {left} there, {right} here"]
