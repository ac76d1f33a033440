"""Measures the cost of training.

    python -m benchmarks.models.training_cost --data ML-1M --out docs/results

ELSA and a TopK SAE beside arXiv 2601.11182's way (dense_training.py), interleaved epoch by epoch;
the same on a synthetic set of MovieLens 25M's size; and every recommender and SAE of the
registries. Every cell runs in a process of its own, so that its peak memory is its own; finished
cells are kept in OUT/training-cost.json, and the same command goes on from there.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.models.cost_report import report
from benchmarks.models.dense_training import DenseElsaTask, DenseSaeTask
from training.checkpoint import Checkpoints, read_json, write_json
from training.config import TrainConfig
from training.data import load_data
from training.histories import Histories
from training.loop import EpochReport
from training.measures.fidelity import measure_fidelity
from training.measures.ranking import mean_ndcg
from training.measures.scorers import ModelScorer
from training.progress import Silent
from training.recommenders import RECOMMENDERS, FitContext, Recommender
from training.recommenders.elsa import Elsa
from training.recommenders.fitting.elsa import ElsaOptions, ElsaTask
from training.saes import SAES
from training.saes.fitting import SaeTask
from training.saes.options import TopKOptions
from training.splits import Split, SplitConfig

ML_25M = {"n_users": 160_776, "n_items": 40_857, "pairs": 12_400_000}
EPOCHS = 4
"""Epochs of each recommender and SAE; the first and the last, which validates, are not counted."""


def synthetic_split(n_users: int, n_items: int, pairs: int, seed: int) -> Split:
    """Makes random histories with a few very popular items and a few very active users."""
    rng = np.random.default_rng(seed)
    activity = rng.lognormal(0.0, 1.1, n_users)
    counts = np.maximum(5, np.round(activity / activity.sum() * 1.12 * pairs)).astype(np.int64)
    parts = []
    lengths = []
    for block in np.array_split(counts, 64):
        # Popularity falls as (rank + 20) ** -1.1: its distribution's inverse, then distinct pairs.
        near = 20.0**-0.1
        far = (n_items + 20.0) ** -0.1
        items = (near - rng.random(block.sum()) * (near - far)) ** -10 - 20
        users = np.repeat(np.arange(len(block)), block)
        pairs_found = np.unique(users * n_items + items.astype(np.int64).clip(0, n_items - 1))
        lengths.append(np.bincount(pairs_found // n_items, minlength=len(block)))
        parts.append(pairs_found % n_items)
    offsets = np.concatenate([[0], *lengths]).cumsum()
    histories = Histories(offsets, np.concatenate(parts))
    nobody = np.zeros(0, np.int64)
    nothing = Histories(np.zeros(n_users + 1, np.int64), np.zeros(0, np.int64))
    return Split((), n_items, np.arange(n_users), nobody, nobody, histories, nothing)


def split_of(spec: dict[str, Any]) -> Split:
    """Loads the data of a cell; every pair is positive."""
    if spec["data"] == "synthetic ML-25M":
        return synthetic_split(**ML_25M, seed=spec["seed"])
    config = TrainConfig(
        data=spec["data"],
        implicit=True,
        seed=spec["seed"],
        split=SplitConfig(kind=spec.get("split", "users")),
    )
    return load_data(config, Silent()).split


def context_of(
    spec: dict[str, Any], split: Split, report_epoch: Callable[[EpochReport], None] = lambda _: None
) -> FitContext:
    """Builds the context of a training; the synthetic set has no users to validate on."""
    max_length = spec.get("max_length", 200)

    def validate(model: Recommender) -> float:
        return (
            mean_ndcg(ModelScorer(model, max_length), split, split.validation)
            if len(split.validation)
            else 0.0
        )

    checkpoints = Checkpoints(Path(tempfile.mkdtemp()), every_s=float("inf"))
    return FitContext(split, max_length, spec["seed"], checkpoints, validate, report_epoch)


class Training:
    """One way of training one model, an epoch at a time."""

    def __init__(self, task: Any, lr: float, seed: int) -> None:
        self.task = task
        self.seed = seed
        self.epochs = 0
        self.optimiser = torch.optim.Adam(task.module.parameters(), lr=lr)
        self.wall_s: list[float] = []
        self.cpu_s: list[float] = []

    def run(self, steps: int | None = None) -> int:
        """Runs an epoch like the loop, or its first steps; returns the number of steps."""
        rng = np.random.default_rng([self.seed, self.epochs])
        wall = time.perf_counter()
        cpu = time.process_time()
        done = 0
        for batch in self.task.batches(rng):
            self.optimiser.zero_grad(set_to_none=True)
            loss = self.task.loss(batch)
            loss.item()
            loss.backward()
            self.task.before_step()
            self.optimiser.step()
            self.task.after_step()
            done += 1
            if done == steps:
                break
        self.wall_s.append(time.perf_counter() - wall)
        self.cpu_s.append(time.process_time() - cpu)
        self.epochs += 1
        return done


def training(
    way: str, spec: dict[str, Any], context: FitContext, recommender: Recommender | None
) -> Training:
    """Builds a training.

    way: dense, exact or linear for ELSA; dense or sparse for the SAE, which reads a recommender.
    """
    torch.manual_seed(spec["seed"])
    if recommender is None:
        options = ElsaOptions(
            d=spec["d"],
            batch_size=spec["batch_size"],
            input_dropout=0.0 if way == "dense, no dropout" else ElsaOptions().input_dropout,
            loss="linear" if way == "linear" else "exact",
        )
        kind = DenseElsaTask if way.startswith("dense") else ElsaTask
        return Training(
            kind(Elsa(context.split.n_items, options.d), options, context), options.lr, spec["seed"]
        )
    sae_options = TopKOptions(batch_size=spec["batch_size"])
    sae = SAES["topk"].build(sae_options, recommender.d)
    task = (DenseSaeTask if way == "dense" else SaeTask)(sae, sae_options, recommender, context)
    task.start()
    return Training(task, sae_options.lr, spec["seed"])


def fitted_elsa(spec: dict[str, Any], context: FitContext, epochs: int) -> Recommender:
    """Fits the recommender that the SAE reads."""
    torch.manual_seed(spec["seed"])
    model = Elsa(context.split.n_items, spec["d"])
    options = ElsaOptions(
        d=spec["d"], batch_size=1024, epochs=epochs, loss="linear", validate_every=epochs
    )
    RECOMMENDERS["elsa"].fit(model, options, context)
    return model.requires_grad_(False)


def compare(spec: dict[str, Any], split: Split) -> dict[str, Any]:
    """Epochs of all ways in turn: seconds of each, and nDCG@20 on the test users afterwards."""
    context = context_of(spec, split)
    recommender = fitted_elsa(spec, context, 20) if spec["model"] == "sae" else None
    ways = {way: training(way, spec, context, recommender) for way in spec["ways"]}
    for _ in range(spec["epochs"]):
        for way in ways.values():
            way.run()
    found: dict[str, Any] = {}
    for name, way in ways.items():
        module = way.task.module.eval()
        found[name] = {"wall_s": way.wall_s[1:], "cpu_s": way.cpu_s[1:]}
        if recommender is None:
            found[name]["ndcg"] = mean_ndcg(
                ModelScorer(module, context.max_length), split, split.test
            )
        else:
            way.task.finish(np.random.default_rng(spec["seed"]))
            fidelity = measure_fidelity(recommender, module, split, split.test, context.max_length)
            found[name] |= {"ndcg": fidelity.reconstructed_ndcg, "fvu": fidelity.fvu}
    return found


def alone(spec: dict[str, Any], split: Split) -> dict[str, Any]:
    """Trains one way alone, whole epochs or some steps: time of an epoch, and memory added."""
    context = context_of(spec, split)
    recommender = fitted_elsa(spec, context, 1) if spec["model"] == "sae" else None
    before = peak_mb()
    way = training(spec["way"], spec, context, recommender)
    done = [way.run(spec["steps"]) for _ in range(spec["epochs"])]
    steps = -(-way.task.histories.size // spec["batch_size"])
    seconds = [wall * steps / count for wall, count in zip(way.wall_s, done, strict=True)]
    return {"wall_s": seconds[1:] or seconds, "steps": done[0], "of": steps, "before_mb": before}


def recommender_cost(spec: dict[str, Any], split: Split) -> dict[str, Any]:
    """Measures a few epochs of one recommender of the registry at its defaults."""
    stamps: list[float] = []
    context = context_of(spec, split, lambda _: stamps.append(time.perf_counter()))
    kind = RECOMMENDERS[spec["name"]]
    options = _short(kind.options())
    model = kind.build(options, context.split.n_items, context.max_length)
    before = peak_mb()
    began = time.perf_counter()
    kind.fit(model, options, context)
    return _epochs(stamps, began) | {"before_mb": before, "d": model.d}


def sae_cost(spec: dict[str, Any], split: Split) -> dict[str, Any]:
    """Measures a few epochs of one SAE of the registry at its defaults."""
    stamps: list[float] = []
    context = context_of(spec, split)
    recommender = fitted_elsa(spec, context, 5)
    kind = SAES[spec["name"]]
    options = _short(kind.options())
    sae = kind.build(options, recommender.d)
    before = peak_mb()
    began = time.perf_counter()
    context = context._replace(report=lambda _: stamps.append(time.perf_counter()))
    kind.fit(sae, options, recommender, context)
    return _epochs(stamps, began) | {"before_mb": before, "d": recommender.d}


def _short(options: Any) -> Any:
    names = {option.name for option in dataclasses.fields(options)}
    wanted = {"epochs": EPOCHS, "validate_every": EPOCHS, "patience": EPOCHS}
    return dataclasses.replace(
        options, **{name: value for name, value in wanted.items() if name in names}
    )


def _epochs(stamps: list[float], began: float) -> dict[str, Any]:
    """Seconds between reports, without the first and last epoch; the total without reports."""
    if len(stamps) < EPOCHS:
        return {"wall_s": [time.perf_counter() - began], "whole": True}
    return {"wall_s": list(np.diff(stamps[: EPOCHS - 1])), "whole": False}


def peak_mb() -> float:
    """Reads the peak memory of this process; getrusage would give the parent's, if larger."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(peak) / 1024


MEASURES = {"compare": compare, "alone": alone, "recommender": recommender_cost, "sae": sae_cost}


def cells(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Lists the cells in the order of measuring."""
    ml = {"data": str(arguments.data), "seed": arguments.seed}
    seed = arguments.seed
    large = {"data": "synthetic ML-25M", "seed": seed, "batch_size": 1024}
    d = ElsaOptions().d
    elsa: dict[str, Any] = {
        "model": "elsa",
        "d": d,
        "ways": ["dense", "dense, no dropout", "exact", "linear"],
    }
    sae: dict[str, Any] = {"model": "sae", "d": d, "ways": ["dense", "sparse"]}
    found: list[dict[str, Any]] = [
        {"measure": "compare", **ml, **model, "batch_size": batch_size, "epochs": 40}
        for model, usual in ((elsa, ElsaOptions().batch_size), (sae, TopKOptions().batch_size))
        for batch_size in (1024, usual)
    ]
    for part in (ml | {"batch_size": 1024}, large):
        for model in (elsa, sae):
            for way in model["ways"]:
                # An epoch of dense batches at that size takes minutes: a few steps tell.
                steps = 8 if way.startswith("dense") and part is large else None
                about = {"model": model["model"], "d": d, "way": way, "epochs": 3, "steps": steps}
                found.append({"measure": "alone", **part, **about})
    for name, kind in RECOMMENDERS.items():
        ordered = {
            "data": str(arguments.sequential_data),
            "split": "leave-one-out",
            "max_length": 50,
        }
        found.append(
            {"measure": "recommender", "name": name, **(ml | ordered if kind.ordered else ml)}
        )
    found += [{"measure": "sae", "name": name, **ml, "d": d} for name in SAES]
    return found


def run_cell(spec: dict[str, Any], folder: Path, threads: int) -> dict[str, Any]:
    """Measures a cell in a process of its own, which reads data already split to save memory."""
    names = (Path(spec["data"]).name, spec.get("split", "users"), spec["seed"])
    path = folder / f"{'-'.join(map(str, names))}.npz"
    if not path.is_file():
        split_of(spec).save(path)
    command = [sys.executable, "-m", "benchmarks.models.training_cost"]
    command += ["--threads", str(threads), "--cell", json.dumps(spec)]
    done = subprocess.run([*command, "--split", path], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{spec} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_all(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measures the cells that OUT lacks, and reads the others."""
    kept = arguments.out / "training-cost.cells.json"
    results: list[dict[str, Any]] = read_json(kept) if kept.is_file() else []
    with tempfile.TemporaryDirectory() as folder:
        for spec in cells(arguments):
            if any(result["spec"] == spec for result in results):
                continue
            print(json.dumps(spec), flush=True)
            began = time.perf_counter()
            found = run_cell(spec, Path(folder), arguments.threads)
            results.append({"spec": spec, "found": found, "seconds": time.perf_counter() - began})
            write_json(kept, results)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/ml-1m"))
    parser.add_argument(
        "--sequential-data", type=Path, default=Path("../shared/data/amazon-beauty")
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cell", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--split", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.cell:
        found = MEASURES[arguments.cell["measure"]](arguments.cell, Split.load(arguments.split))
        print(json.dumps(found | {"peak_mb": peak_mb()}))
        return
    command = " ".join(["python", *sys.argv])
    report(measure_all(arguments), command, arguments.threads).write(arguments.out)


if __name__ == "__main__":
    main()
