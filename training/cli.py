"""The commands trimtab-train and trimtab-evaluate."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from training.checkpoint import write_json
from training.commandline import add_flags, read_flags
from training.concepts.config import ConceptConfig
from training.concepts.effect import Audience
from training.concepts.membership import memberships
from training.config import TrainConfig
from training.datasets import data_set_kind
from training.errors import ConfigError, TrainingError
from training.evaluation.fidelity import measure_fidelity
from training.evaluation.neurons import best_neurons
from training.evaluation.ranking import compare
from training.evaluation.steering import steer_concepts
from training.pipeline import summarise_data
from training.pipeline import train as run_training
from training.recommenders import RECOMMENDERS
from training.reporting import ProgressReporter, cost_line, run_tables, table
from training.run import Run, load_run
from training.saes import SAES
from training.splits import SplitConfig


def train(argv: Sequence[str] | None = None) -> int:
    """trimtab-train: from interactions to a run directory. Returns the exit status."""
    console, errors = Console(), Console(stderr=True)
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        parsed, config = _train_config(arguments)
        _use_threads(parsed.threads)
        began = time.monotonic()
        with ProgressReporter(console) as reporter:
            if parsed.summary_only:
                summarise_data(config, parsed.out, reporter)
                return 0
            run = run_training(
                config, parsed.out, reporter, parsed.checkpoint_every_s, _device(parsed.device)
            )
    except TrainingError as error:
        errors.print(f"trimtab-train: {error}", markup=False, highlight=False, soft_wrap=True)
        return 1
    except OSError as error:
        text = f"trimtab-train: cannot write {parsed.out}: {error}; the same command goes on where it stopped"
        errors.print(text, markup=False, highlight=False, soft_wrap=True)
        return 1
    for shown in run_tables(run):
        console.print(shown)
    console.print(cost_line(run), markup=False, highlight=False)
    console.print(f"{parsed.out} after {time.monotonic() - began:.1f} s", markup=False, highlight=False)
    return 0


def evaluate(argv: Sequence[str] | None = None) -> int:
    """trimtab-evaluate: figures of a finished run on its test users. Returns the exit status."""
    console, errors = Console(), Console(stderr=True)
    parsed = _evaluate_parser().parse_args(argv)
    try:
        _use_threads(parsed.threads)
        document = _EVALUATIONS[parsed.what](load_run(parsed.run), parsed, console)
        if parsed.json is not None:
            write_json(parsed.json, document)
    except TrainingError as error:
        errors.print(f"trimtab-evaluate: {error}", markup=False, highlight=False, soft_wrap=True)
        return 1
    return 0


def _train_config(arguments: list[str]) -> tuple[argparse.Namespace, TrainConfig]:
    """Reads the flags in two steps: which parts are chosen, then the flags that those parts have."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_flags(chooser, TrainConfig)
    chosen, _ = chooser.parse_known_args(arguments)
    for name, registry in (("recommender", RECOMMENDERS), ("sae", SAES)):
        if getattr(chosen, name) not in registry:
            raise ConfigError(
                f"--{name} is {getattr(chosen, name)!r}, expected one of {', '.join(sorted(registry))}"
            )
    kind = data_set_kind(chosen.data)
    sections: dict[str, tuple[str, type[Any]]] = {
        "split": ("split_", SplitConfig),
        "concepts": ("concepts_", ConceptConfig),
        "data_options": (kind.prefix, kind.options),
        "recommender_options": ("recommender_", RECOMMENDERS[chosen.recommender].options),
        "sae_options": ("sae_", SAES[chosen.sae].options),
    }
    parser = argparse.ArgumentParser(
        prog="trimtab-train",
        description="Trains a recommender and its sparse autoencoder and fits concepts. Interrupted, the "
        "same command goes on where it stopped. The data set, the recommender and the SAE have flags of "
        "their own, shown for those that are chosen.",
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="Directory of the run.")
    text = "Least time between two checkpoints, in seconds (default: 5)."
    parser.add_argument("--checkpoint-every-s", type=float, default=5.0, metavar="S", help=text)
    text = "Write the summary of the data to RUN, data.json and data.png, and stop."
    parser.add_argument("--summary-only", action="store_true", help=text)
    text = "Where torch trains: auto (an accelerator if there is one), cpu, cuda, mps ... (default: auto)."
    parser.add_argument("--device", default="auto", help=text)
    _add_threads(parser)
    add_flags(parser, TrainConfig, title="run")
    for name, (prefix, options) in sections.items():
        add_flags(parser, options, prefix, title=f"{name.removesuffix('_options')} ({options.__name__})")
    parsed = parser.parse_args(arguments)
    others = {name: read_flags(options, parsed, prefix) for name, (prefix, options) in sections.items()}
    return parsed, read_flags(TrainConfig, parsed, **others)


def _evaluate_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trimtab-evaluate", description="Figures of a finished run on its test users."
    )
    commands = parser.add_subparsers(dest="what", required=True)
    texts = {
        "ranking": "The recommender beside EASE, PureSVD (tuned on the validation users) and popularity.",
        "fidelity": "What the SAE's reconstruction costs.",
        "neurons": "The neuron that tells each concept's items apart best, and what steering it alone does.",
        "steering": "What each concept does to lists at a given strength.",
    }
    for name, text in texts.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--run", type=Path, required=True, help="Directory that trimtab-train wrote.")
        command.add_argument(
            "--json", type=Path, metavar="FILE", help="Write the figures there as JSON, too."
        )
        _add_threads(command)
        if name == "steering":
            command.add_argument("--strength", type=float, default=1.0, help="In TYPICAL units (default: 1).")
            command.add_argument(
                "--concepts", type=int, default=10, help="The most frequent ones (default: 10)."
            )
        elif name != "neurons":
            command.add_argument("--n", type=int, default=20, help="Length of the lists (default: 20).")
    return parser


def _ranking(run: Run, parsed: argparse.Namespace, console: Console) -> object:
    figures = compare(run.recommender, run.config.recommender, run.split, run.config.max_length, parsed.n)
    console.print(
        table(
            f"{run.data_set}: {len(run.split.test)} test users, lists of {parsed.n}",
            ("method", "nDCG", "+-", "recall", "coverage", "setting"),
            figures,
        )
    )
    return [row._asdict() for row in figures]


def _fidelity(run: Run, parsed: argparse.Namespace, console: Console) -> object:
    fidelity = measure_fidelity(
        run.recommender, run.sae, run.split, run.split.test, run.config.max_length, parsed.n
    )
    title = (
        f"{run.data_set}: {run.config.sae}, k {run.sae.k}, {run.sae.n_neurons} neurons, lists of {parsed.n}"
    )
    console.print(table(title, ("RECONSTRUCT, no edit", "value"), fidelity._asdict().items()))
    return fidelity._asdict()


def _steering(run: Run, parsed: argparse.Namespace, console: Console) -> object:
    users = run.split.test
    audience = Audience.of(run.recommender, run.sae, run.split.histories(users), run.config.max_length)
    concepts = sorted(run.concepts, key=lambda concept: -concept.item_count)[: parsed.concepts]
    members = memberships(run.catalogue, run.config.concepts)
    figures = steer_concepts(audience, concepts, members, run.split.targets(users), parsed.strength)
    title = f"{run.data_set}: RESIDUAL, strength {parsed.strength:g} TYPICAL, {len(users)} test users, top 20"
    columns = ("concept", "items", "share", "steered", "exposure", "steered", "nDCG", "steered")
    console.print(table(title, columns, figures))
    return [row._asdict() for row in figures]


def _neurons(run: Run, parsed: argparse.Namespace, console: Console) -> object:
    figures = best_neurons(run)
    title = f"{run.data_set}: best neuron per concept, {len(run.split.test)} test users, top 20"
    columns = ("concept", "neuron", "held-out AUC", "share moved", "most of any other")
    console.print(table(title, columns, figures))
    # Too few held-out items give no AUC: null, as JSON has no NaN.
    return [row._asdict() | {"auc": None if math.isnan(row.auc) else row.auc} for row in figures]


_EVALUATIONS = {"ranking": _ranking, "fidelity": _fidelity, "neurons": _neurons, "steering": _steering}


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads (default: as many as torch chooses)."
    )


def _use_threads(count: int) -> None:
    if count < 0:
        raise ConfigError(f"--threads is {count}, expected 0 or more")
    if count:
        torch.set_num_threads(count)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device is {name!r}: torch cannot use it here: {reason}") from error
    return device
