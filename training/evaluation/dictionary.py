"""Reports the concept dictionary of a run, and writes it as labels for bundles and servers."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from training.commandline import add_flags, read_flags
from training.concepts.describing.chat import Chat, ChatOptions
from training.concepts.describing.dictionary import (
    CONFIDENT,
    Describer,
    Dictionary,
    DictionaryOptions,
    make_dictionary,
)
from training.concepts.describing.llm import LlmDescriber
from training.concepts.describing.metadata import MetadataDescriber
from training.concepts.fitting import dictionary_labels, item_codes
from training.concepts.labels import joined
from training.concepts.membership import memberships
from training.errors import ConfigError, RunError
from training.evaluation.report import Curve, Estimate, Plot, Report, Table
from training.evaluation.runs import only_run, run_name
from training.run import Run

KEY_VARIABLE = "TRIMTAB_LLM_KEY"
_OFF_SAMPLES = {"metadata": 200, "llm": 10}
_SHOWN = 20
"""Most confident entries that are shown."""


def add_dictionary_flags(command: argparse.ArgumentParser) -> None:
    """Adds the flags for the describer, the samples, and the labels' file."""
    text = "Who describes: metadata (attribute values; needs no model, the default) or llm."
    command.add_argument("--describer", choices=_OFF_SAMPLES, default="metadata", help=text)
    text = "Describe at most this many neurons, those that most items fire (default: all)."
    command.add_argument("--neurons", type=int, metavar="N", help=text)
    text = "Items that fire a neuron, of each set: described by and tested on (default: 10)."
    command.add_argument("--on-samples", type=int, default=10, metavar="N", help=text)
    text = "Items that leave it silent, of each set (default: 200 for metadata, 10 for llm)."
    command.add_argument("--off-samples", type=int, metavar="N", help=text)
    text = (
        "Write a label set there as JSON lines, for trimtab-export --labels and trimtab concepts "
        "import."
    )
    command.add_argument("--labels", type=Path, metavar="FILE", help=text)
    text = (
        "Where the model's answers are kept, so that the same command goes on (default: "
        "RUN/llm-answers)."
    )
    command.add_argument("--llm-answers", type=Path, metavar="FOLDER", help=text)
    add_flags(command, ChatOptions, "llm_", title="llm")


def dictionary_report(runs: Sequence[Run], parsed: argparse.Namespace, command: str) -> Report:
    """Describes and tests the neurons of one run.

    Raises:
        ConfigError: several runs, or numbers out of range.
        RunError: metadata should describe items that have none.
    """
    run = only_run(runs)
    off = _OFF_SAMPLES[parsed.describer] if parsed.off_samples is None else parsed.off_samples
    options = DictionaryOptions(parsed.on_samples, off)
    if parsed.neurons is not None and parsed.neurons < 1:
        raise ConfigError(f"--neurons: expected at least 1, found {parsed.neurons}")
    describer = _describer(run, parsed)
    codes = item_codes(run.recommender, run.sae, run.config.max_length)
    rows = np.flatnonzero(run.catalogue.popularity >= run.config.concepts.min_popularity)
    rng = np.random.default_rng([run.config.seed, 0xD1])
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("neurons", total=None)

        def tell(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        made = make_dictionary(codes[rows], rows, describer, options, rng, tell, parsed.neurons)
    if parsed.labels is not None:
        _write_labels(run, made, describer, parsed.labels)
    return _report(run, made, describer, command)


def _describer(run: Run, parsed: argparse.Namespace) -> Describer:
    if parsed.describer == "llm":
        folder = parsed.llm_answers or run.path / "llm-answers"
        chat = Chat(
            read_flags(ChatOptions, parsed, "llm_"), folder, os.environ.get(KEY_VARIABLE, "")
        )
        return LlmDescriber(chat, run.catalogue)
    members = memberships(run.catalogue, run.config.concepts)
    if not members.names:
        raise RunError(f"{run.path}: no attribute value is on enough items to describe neurons by")
    return MetadataDescriber(members.names, members.matrix)


def _write_labels(run: Run, made: Dictionary, describer: Describer, path: Path) -> None:
    """Writes the run's concepts by name, the new labels, then its labels by other methods."""
    fresh = dictionary_labels(made, describer.name, describer.provenance, run.sae.n_neurons)
    lines: list[dict[str, object]] = [{"concept": concept.name} for concept in run.concepts]
    kept = [[label for label in row if label.method != describer.name] for row in run.labels]
    for neuron, row in enumerate(joined([fresh, kept])):
        lines += [{"neuron": neuron, "label": label._asdict()} for label in row]
    try:
        path.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from error


def _report(run: Run, made: Dictionary, describer: Describer, command: str) -> Report:
    name = run_name(run)
    confident = made.confident
    confidences = np.array([entry.confidence for entry in made.entries])
    counts, edges = np.histogram(confidences, bins=20, range=(0, 1))
    figures = [
        ("neurons", run.sae.n_neurons),
        ("described and tested", len(made.entries)),
        ("enough items fire, but not described", made.undescribed),
        (f"confidence >= {CONFIDENT}", len(confident)),
        ("mean confidence", _mean(confidences)),
        (
            "precision of the confident, at the true rate",
            _mean([entry.precision for entry in confident]),
        ),
        ("recall of the confident", _mean([entry.recall for entry in confident])),
    ]
    best = sorted(made.entries, key=lambda entry: -entry.confidence)[:_SHOWN]
    rows = [
        (f"#{one.neuron}", one.text, one.confidence, one.precision, one.recall, one.on_count)
        for one in best
    ]
    columns = ("neuron", "description", "confidence", "precision", "recall", "tested on")
    faults = [
        f"Not described: {len(made.faults)} neurons, of which {fault}" for fault in made.faults[:1]
    ]
    middles = [float(x) for x in edges[:-1] + 0.025]
    curve = Curve("", middles, [Estimate(float(count), None) for count in counts])
    about = "Confidence is measured on items that no description was made from."
    return Report(
        name="dictionary",
        title=f"Concept dictionary: {name}",
        command=command,
        paragraphs=(f"{describer.provenance}. {about}", *faults),
        tables=(
            Table(f"{name}: seed {run.config.seed}", ("figure", "value"), figures),
            Table(f"The {len(rows)} most confident", columns, rows),
        ),
        plot=Plot("confidence", "neurons", [curve]),
        figures={"run": str(run.path), "describer": describer.name, **made._asdict()},
    )


def _mean(
    values: Sequence[float] | np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> float | None:
    return float(np.mean(values)) if len(values) else None
