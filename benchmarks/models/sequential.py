"""Compares the sequential models with RecBole's SASRec: leave-one-out, HR@10 and NDCG@10.

python -m benchmarks.models.sequential --data FOLDER --out DIR [--recbole-python PYTHON]
[--models ...]
[--seeds ...] trains a cell for each model and seed, keeps its figures under DIR/cells and goes on
where it was stopped; --report FOLDER writes sequential.md and sequential.json from all cells in
DIR, of whatever data set.

RecBole 1.2.1 needs a Python of its own, as it wants an older numpy than we do:
    python -m venv DIR
    DIR/bin/pip install torch==2.13.0 "numpy<2" "scipy<1.14" "pandas<2.3" scikit-learn
    colorlog==4.7.2 \\
        colorama==0.4.4 tqdm pyyaml tensorboard thop tabulate plotly texttable psutil ray
    DIR/bin/pip install --no-deps recbole==1.2.1
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix

from training.checkpoint import Checkpoints, read_json, write_json
from training.datasets import load_data_set, options_type
from training.evaluation.report import Estimate, Report, Table
from training.interactions import prepare
from training.loop import EpochReport
from training.measures import metrics
from training.measures.ranking import mean_ndcg
from training.measures.scorers import ModelScorer, PopularityScorer, Scorer, best_lists
from training.recommenders import RECOMMENDERS, FitContext, Recommender
from training.recommenders.fitting.sequential_causal import GptOptions, SasRecOptions
from training.recommenders.fitting.sequential_interests import TimiRecOptions
from training.recommenders.fitting.sequential_masked import Bert4RecOptions
from training.splits import Split, SplitConfig, hold_out

N = 10
MAX_LENGTH = 50
RECBOLE_MAX_LENGTH = 20
VALIDATION_USERS = 8000
RULES = (
    "Every user with three items or more is tested on the last one and validated on the one "
    "before; the history of a test holds all items before the last. All items of the catalogue "
    "are ranked. **The history is masked**, for ours and for RecBole's alike, since the service "
    "never returns seen items; the columns marked unmasked let the history's items take places "
    "in the list, as RecBole's own evaluation and much of the literature do.",
    "Of repeated user-item pairs the latest is kept, so a target never lies in its history, and "
    "masking cannot hide it; how many were dropped stands over each table. (A repeat visit is "
    "thus nothing that these models are asked to predict.)",
    f"All read the newest {MAX_LENGTH} items but for the pair that is marked: RecBole pads every "
    "prefix of every history to the full length, so its SASRec, and ours beside it, read the "
    f"newest {RECBOLE_MAX_LENGTH}. RecBole's keeps its own defaults (2 post-norm blocks, 2 "
    "heads, width 64, inner width 256, dropout .5, Adam at 1e-3, 2,048 prefixes a step, full "
    "cross-entropy); ours are in sequential.json. On both sides the best epoch is that of the "
    f"highest NDCG@20 on validation users (all of them for RecBole, {VALIDATION_USERS:,} of them "
    "for ours), and training stops after five without a better one.",
    "± is the standard error over seeds. CPU seconds are of one thread, on a machine that other "
    "work shared, so they are upper bounds; RecBole's hold its looks at the validation users, "
    "ours do not.",
)
MODELS: dict[str, tuple[str, Any]] = {
    "SASRec": ("sasrec", SasRecOptions()),
    "SASRec, sampled": ("sasrec", SasRecOptions(loss="sampled")),
    "SASRec, binary": ("sasrec", SasRecOptions(loss="binary")),
    "GPT": ("gpt", GptOptions()),
    "BERT4Rec": ("bert4rec", Bert4RecOptions()),
    "TiMiRec": ("timirec", TimiRecOptions()),
}
SHORT = f"SASRec, newest {RECBOLE_MAX_LENGTH}"
RECBOLE = f"RecBole SASRec, newest {RECBOLE_MAX_LENGTH}"
POPULARITY = "popularity"


class Data(NamedTuple):
    """A data set by name, split, and what was dropped."""

    name: str
    split: Split
    repeats: int


def load(folder: Path) -> Data:
    """Loads users with three items or more: the last is the test, the one before validates."""
    prepared = prepare(load_data_set(str(folder), options_type(str(folder))(), 0))
    interactions = prepared.interactions
    config = SplitConfig(kind="leave-one-out", min_positives=3)
    n_items = len(interactions.item_ids)
    split = hold_out(interactions.positives(None), interactions.user_ids, n_items, config, 0)
    return Data(folder.name, split, interactions.duplicate_count)


def lists(scorer: Scorer, split: Split, masked: bool) -> metrics.Lists:
    """Computes the top N of every test user; unmasked lists may contain items of the history."""
    parts = []
    for histories in split.histories(split.test).batches(256):
        seen = (
            histories.matrix(split.n_items)
            if masked
            else csr_matrix((histories.size, split.n_items))
        )
        parts.append(best_lists(scorer.scores(histories), seen, N))
    return np.concatenate(parts)


def judged(scorer: Scorer, split: Split) -> dict[str, float]:
    """Computes HR@N and NDCG@N, with and without the history masked."""
    targets = split.targets(split.test)
    figures = {}
    for name, masked in (("", True), ("_unmasked", False)):
        found = lists(scorer, split, masked)
        figures[f"hr{name}"] = float(metrics.recall(found, targets).mean())
        figures[f"ndcg{name}"] = float(metrics.ndcg(found, targets).mean())
    return figures


def train(
    data: Data, kind: str, options: Any, max_length: int, seed: int, home: Path, precision: str
) -> dict[str, Any]:
    """Trains one model.

    Returns figures, epochs, and CPU seconds with and without validation.
    """
    split = data.split
    drawn = np.random.default_rng(0).permutation(split.validation)[:VALIDATION_USERS]
    rows = drawn[np.argsort(split.histories(drawn).lengths, kind="stable")]
    looking = 0.0

    def validate(model: Recommender) -> float:
        nonlocal looking
        began = time.process_time()
        value = mean_ndcg(ModelScorer(model, max_length), split, rows)
        looking += time.process_time() - began
        return value

    def show(report: EpochReport) -> None:
        loss = f"loss {report.loss:.4f}"
        print(f"  epoch {report.epoch} {loss} best {report.best}", flush=True)

    context = FitContext(split, max_length, seed, Checkpoints(home, 60.0), validate, show)
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision(precision)
    model = RECOMMENDERS[kind].build(options, split.n_items, max_length)
    began = time.process_time()
    result = RECOMMENDERS[kind].fit(model, options, context)
    cpu_s = time.process_time() - began
    model.eval().requires_grad_(False)
    torch.set_float32_matmul_precision("highest")
    about = {
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "validation_ndcg@20": result.best,
    }
    about |= {"cpu_s": cpu_s, "epoch_cpu_s": (cpu_s - looking) / result.epochs}
    return (
        judged(ModelScorer(model, max_length), split)
        | about
        | {"options": dataclasses.asdict(options)}
    )


def run_recbole(data: Data, seed: int, home: Path, parsed: argparse.Namespace) -> dict[str, Any]:
    """Trains RecBole's SASRec on the same sequences, in its own Python."""
    split = data.split
    folder = home / "sequences"
    folder.mkdir(parents=True, exist_ok=True)
    whole = split.histories(split.test)
    last = split.target_items.rows(split.test).items
    with (folder / "sequences.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for user, start, stop in zip(
            range(whole.size), whole.offsets, whole.offsets[1:], strict=False
        ):
            for place, item in enumerate([*whole.items[start:stop], last[user]]):
                file.write(f"{user}\t{item}\t{place}\n")
    home = home.resolve()
    script = Path(__file__).resolve().with_name("sequential_recbole.py")
    out = home / "lists.npz"
    command = [parsed.recbole_python, "-W", "ignore", script, home, out]
    flags = {"seed": seed, "threads": parsed.threads, "precision": parsed.precision}
    flags["max-length"] = RECBOLE_MAX_LENGTH
    command += [f"--{name}={value}" for name, value in flags.items()]
    # RecBole allocates a matrix of all scores a step; glibc would give each back to the system at
    # once.
    environment = os.environ | {
        "MALLOC_MMAP_THRESHOLD_": "4294967296",
        "MALLOC_TRIM_THRESHOLD_": "4294967296",
    }
    environment.pop("PYTHONPATH", None)
    subprocess.run(
        [str(part) for part in command], check=True, env=environment, cwd=home
    )  # it leaves files
    with np.load(out) as found:
        users = found["users"].astype(np.int64)
        about: dict[str, Any] = json.loads(str(found["about"]))
        if not np.array_equal(found["targets"].astype(np.int64), last[users]):
            raise SystemExit("RecBole held out other items than we did")
        targets = split.targets(split.test[users])
        figures: dict[str, Any] = {}
        for name, key in (("", "masked"), ("_unmasked", "plain")):
            figures[f"hr{name}"] = float(
                metrics.recall(found[key].astype(np.int64), targets).mean()
            )
            figures[f"ndcg{name}"] = float(
                metrics.ndcg(found[key].astype(np.int64), targets).mean()
            )
    return figures | about


def run_cell(data: Data, label: str, seed: int, parsed: argparse.Namespace) -> None:
    """Computes a cell unless it is there, and says so."""
    path = (
        parsed.out / "cells" / f"{data.name} {label} {seed}.json".replace(" ", "_").replace(",", "")
    )
    if path.is_file():
        return
    print(f"{data.name}: {label}, seed {seed}", flush=True)
    home = parsed.out / "work" / path.stem
    began = time.monotonic()
    if label == RECBOLE:
        if parsed.recbole_python is None:
            print("  not run: no --recbole-python")
            return
        figures = run_recbole(data, seed, home, parsed)
    elif label == POPULARITY:
        counts = torch.from_numpy(data.split.popularity().astype(np.float32))
        figures = judged(PopularityScorer(counts), data.split)
    else:
        kind, options = MODELS["SASRec" if label == SHORT else label]
        length = RECBOLE_MAX_LENGTH if label == SHORT else MAX_LENGTH
        figures = train(data, kind, options, length, seed, home, parsed.precision)
    split = data.split
    about = {"data": data.name, "label": label, "seed": seed, "wall_s": time.monotonic() - began}
    about |= {"n_items": split.n_items, "test_users": len(split.test), "repeats": data.repeats}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, about | {"command": command_line()} | figures)
    print(f"  HR@{N} {figures['hr']:.4f}, NDCG@{N} {figures['ndcg']:.4f}", flush=True)


def command_line() -> str:
    """As it was typed, without the folders of this machine."""
    shown = [Path(part).name if part.startswith("/") else part for part in sys.argv[1:]]
    return " ".join(["python", "-m", "benchmarks.models.sequential", *shown])


def report(cells: Sequence[dict[str, Any]]) -> Report:
    """Tables, one a data set, over all seeds."""
    tables = []
    figures = []
    for name in dict.fromkeys(cell["data"] for cell in cells):
        chosen = [cell for cell in cells if cell["data"] == name]
        first = chosen[0]
        rows: list[list[object]] = []
        for label in [*MODELS, SHORT, RECBOLE, POPULARITY]:
            if not (group := [cell for cell in chosen if cell["label"] == label]):
                rows.append([label, *["not run"] * 4, None, None, 0])
                continue
            estimates = [
                Estimate.of([cell[key] for cell in group], None)
                for key in ("hr", "ndcg", "hr_unmasked", "ndcg_unmasked")
            ]
            rows.append(
                [
                    label,
                    *estimates,
                    _mean(group, "best_epoch"),
                    _mean(group, "epoch_cpu_s"),
                    len(group),
                ]
            )
        title = (
            f"{name}: {first['test_users']:,} test users, {first['n_items']:,} items, "
            f"{first['repeats']:,} repeated pairs dropped"
        )
        columns = (
            "model",
            *("HR@10", "NDCG@10", "HR@10 unmasked", "NDCG@10 unmasked"),
            *("best epoch", "CPU s / epoch", "seeds"),
        )
        tables.append(Table(title, columns, rows))
        figures += chosen
    return Report(
        name="sequential",
        title="Sequential models, leave-one-out, full ranking",
        command=command_line(),
        paragraphs=RULES,
        tables=tables,
        plot=None,
        figures=figures,
        seconds=sum(cell["wall_s"] for cell in cells),
    )


def _mean(group: Iterable[dict[str, Any]], key: str) -> str | None:
    values = [cell[key] for cell in group if key in cell]
    return f"{np.mean(values):.1f}" if values else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, nargs="*", default=[], help="Folders of interactions.parquet."
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="Where cells and unfinished work are kept."
    )
    parser.add_argument("--models", nargs="*", default=[*MODELS, SHORT, RECBOLE, POPULARITY])
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--recbole-python", type=Path, help="Python that has RecBole, see above.")
    parser.add_argument(
        "--report", type=Path, help="Folder to write sequential.md and sequential.json to."
    )
    parser.add_argument("--threads", type=int, default=1)
    text = "Of matrix products in training, on both sides: torch.set_float32_matmul_precision."
    parser.add_argument(
        "--precision", choices=["highest", "high", "medium"], default="highest", help=text
    )
    parsed = parser.parse_args()
    torch.set_num_threads(parsed.threads)
    for folder in parsed.data:
        data = load(folder)
        for seed in parsed.seeds:
            for label in parsed.models:
                run_cell(data, label, seed, parsed)
    if parsed.report is not None:
        report([read_json(path) for path in sorted((parsed.out / "cells").glob("*.json"))]).write(
            parsed.report
        )


if __name__ == "__main__":
    main()
