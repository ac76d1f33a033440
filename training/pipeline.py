"""From a configuration to a finished run: data, split, recommender, SAE, concepts, figures; resumable."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from training.checkpoint import Checkpoints, read_json, write_json
from training.concepts import fit_concepts
from training.config import TrainConfig
from training.datasets import load_data_set
from training.errors import DataError, RunError
from training.histories import Histories
from training.interactions import Catalogue, Prepared, core, prepare
from training.loop import EpochReport
from training.measures.fidelity import measure_fidelity
from training.measures.ranking import judge, mean_ndcg
from training.measures.scorers import ModelScorer
from training.recommenders import RECOMMENDERS, FitContext, Recommender
from training.run import Run, load_recommender, load_run, load_sae, save_model, save_run
from training.saes import SAES, SparseAutoencoder
from training.splits import Split, hold_out
from training.summary import FILES as SUMMARY_FILES
from training.summary import DataSummary, summarise, write_summary

LIST_LENGTH = 20
CPU = torch.device("cpu")


class Reporter(Protocol):
    """Who is told how training goes."""

    def note(self, text: str) -> None:
        """Something a person should know."""

    def epoch(self, report: EpochReport) -> None:
        """An epoch is done."""

    def concept(self, done: int, total: int) -> None:
        """A concept is done."""

    def data(self, summary: DataSummary) -> None:
        """The data were read."""


class Silent:
    """A reporter that says nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def epoch(self, report: EpochReport) -> None:
        """Nothing."""

    def concept(self, done: int, total: int) -> None:
        """Nothing."""

    def data(self, summary: DataSummary) -> None:
        """Nothing."""


class Data(NamedTuple):
    """A data set, read, split and summarised."""

    name: str
    catalogue: Catalogue
    split: Split
    min_value: float | None
    notes: tuple[str, ...]
    digest: str
    summary: DataSummary
    positives: Histories


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

    context = fit_context(config, data.split, checkpoints, reporter, device)
    recommender = fit_recommender(resolved, out, context)
    sae = fit_autoencoder(resolved, out, recommender, context)
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
    metrics = _metrics(recommender, sae, data.split, config.max_length)
    run = Run(
        out, resolved, metrics, data.catalogue, data.split, recommender, sae, fitted.concepts, fitted.labels,
        data.name, code_version(), data.notes + fitted.notes,
    )  # fmt: skip
    save_run(run)
    shutil.rmtree(checkpoints.folder)
    return run


def fit_context(
    config: TrainConfig,
    split: Split,
    checkpoints: Checkpoints,
    reporter: Reporter,
    device: torch.device,
) -> FitContext:
    """What fitting needs; models are validated by the nDCG@20 of the validation users."""

    def validate(model: Recommender) -> float:
        return mean_ndcg(
            ModelScorer(model, config.max_length), split, split.validation, LIST_LENGTH
        )

    return FitContext(
        split, config.max_length, config.seed, checkpoints, validate, reporter.epoch, device
    )


def code_version() -> str:
    """The version and a digest of this package's source, the same in a checkout and an installed wheel."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{version('trimtab')}+{digest.hexdigest()[:12]}"


def load_data(config: TrainConfig, reporter: Reporter) -> Data:
    """Reads and splits the configuration's data set.

    Raises:
        DataError: if it cannot be used.
    """
    raw = load_data_set(config.data, config.data_options, config.seed)
    if config.user_core or config.item_core:
        raw = core(raw, config.user_core, config.item_core)
    prepared: Prepared = prepare(raw)
    for note in prepared.notes:
        reporter.note(note)
    min_value = None if config.implicit else config.min_value
    if not config.implicit and min_value is None:
        min_value = raw.min_value
    interactions = prepared.interactions
    if (RECOMMENDERS[config.recommender].ordered or config.split.kind == "leave-one-out") and (
        untimed := interactions.untimed_count
    ):
        asker = (
            config.recommender
            if RECOMMENDERS[config.recommender].ordered
            else "a leave-one-out split"
        )
        raise DataError(
            f"{raw.name}: {untimed} of {len(interactions.users)} interactions have neither time nor "
            f"position, but {asker} needs the order of every user's interactions"
        )
    positives = interactions.positives(min_value)
    summary = summarise(raw, prepared, positives)
    reporter.data(summary)
    split = hold_out(
        positives, interactions.user_ids, len(interactions.item_ids), config.split, config.seed
    )
    reporter.note(
        f"{len(split.train)} users to train on, {len(split.validation)} validation, {len(split.test)} test"
    )
    digest = hashlib.sha256()
    for part in (positives.offsets, positives.items):
        digest.update(part.tobytes())
    catalogue = prepared.catalogue.with_popularity(split.popularity())
    return Data(
        raw.name,
        catalogue,
        split,
        min_value,
        prepared.notes,
        digest.hexdigest(),
        summary,
        positives,
    )


def _claim(out: Path, claim: dict[str, Any], reporter: Reporter) -> None:
    """Makes out this configuration's, or finds that it is already."""
    path = out / "checkpoints" / "config.json"
    if path.is_file():
        if (found := read_json(path)) != claim:
            differing = ", ".join(_differences(found, claim)) or "the data"
            raise RunError(
                f"{out} holds an unfinished run with other settings ({differing}): choose another directory"
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
        found = ", ".join(differing)
        raise RunError(
            f"{out} holds a finished run with other settings ({found}): choose another directory"
        )
    reporter.note(f"{out} is already finished with these settings")
    return run


def _differences(left: Any, right: Any, name: str = "") -> list[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        names = sorted(left.keys() | right.keys())
        return [
            found for key in names for found in _differences(left.get(key), right.get(key), key)
        ]
    return [] if left == right else [f"{name}: {left} there, {right} here"]


def fit_recommender(config: TrainConfig, out: Path, context: FitContext) -> Recommender:
    """The configuration's recommender, trained into the folder out unless it is there already."""
    n_items = context.split.n_items
    if not (out / "recommender.json").is_file():
        torch.manual_seed(config.seed)
        kind = RECOMMENDERS[config.recommender]
        model = kind.build(config.recommender_options, n_items, config.max_length)
        result = kind.fit(model, config.recommender_options, context)
        about = {"kind": config.recommender, "n_items": n_items, "d": model.d, "p": model.p}
        save_model(out, "recommender", model, about | {"fit": result._asdict()})
    return load_recommender(out, config, n_items)


def fit_autoencoder(
    config: TrainConfig, out: Path, recommender: Recommender, context: FitContext
) -> SparseAutoencoder:
    """The configuration's SAE, trained into the folder out unless it is there already."""
    if not (out / "sae.json").is_file():
        torch.manual_seed(config.seed)
        sae = SAES[config.sae].build(config.sae_options, recommender.d)
        result = SAES[config.sae].fit(sae, config.sae_options, recommender, context)
        about = {
            "kind": config.sae,
            "d": sae.d,
            "n_neurons": sae.n_neurons,
            "k": sae.k,
            "scale_factor": sae.scale_factor,
        }
        save_model(out, "sae", sae, about | {"fit": result._asdict()})
    return load_sae(out, config, recommender.d)


def _metrics(
    recommender: Recommender, sae: SparseAutoencoder, split: Split, max_length: int
) -> dict[str, float]:
    ranking = judge("", ModelScorer(recommender, max_length), split, split.test, LIST_LENGTH)
    fidelity = measure_fidelity(recommender, sae, split, split.test, max_length, LIST_LENGTH)
    return {
        "ndcg@20": ranking.ndcg,
        "recall@20": ranking.recall,
        "coverage@20": ranking.coverage,
        "reconstruct_ndcg@20": fidelity.reconstructed_ndcg,
        "reconstruct_ndcg_loss@20": fidelity.ndcg_loss,
        "reconstruct_overlap@20": fidelity.overlap,
        "sae_cosine": fidelity.cosine,
        "sae_l0": fidelity.l0,
        "sae_fvu": fidelity.fvu,
        "sae_dead_share": fidelity.dead_share,
    }
