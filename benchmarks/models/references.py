"""Compares every recommender of unordered histories with the libraries' own.

python -m benchmarks.models.references --data ML-1M --out DIR [--libraries PYTHON] [--settings ...]
[--methods ...] trains a cell for each setting, method, choice of options and seed, keeps its
figures under DIR and goes on where it was stopped. The first seed tries the whole grid of a method;
the choice with the best validation figure is run on the other seeds. With --report FOLDER it trains
nothing, and writes references.md and references.json from the cells that are there.

The libraries need a Python of their own, as RecBole 1.2.1 wants an older numpy and scipy than we
do:
    python -m venv DIR
    DIR/bin/pip install torch==2.13.0 numpy==1.26.4 scipy==1.11.4 implicit==0.7.3 pandas==2.2.3 tqdm
    \\
        colorlog==4.7.2 colorama scikit-learn pyyaml tensorboard thop tabulate plotly texttable
        psutil
    DIR/bin/pip install --no-deps recbole==1.2.1
Without --libraries their rows are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.models.references_report import Cell, report
from training.checkpoint import Checkpoints, read_json, write_json
from training.datasets import load_data_set
from training.datasets.folder import FolderOptions
from training.histories import Histories
from training.interactions import prepare
from training.measures.ranking import EASE_PENALTIES, judge, mean_ndcg
from training.measures.scorers import EaseScorer, ModelScorer, PopularityScorer, Scorer
from training.recommenders import RECOMMENDERS, FitContext, Recommender
from training.recommenders.als import Als
from training.recommenders.factorisation import Factorisation, FoldIn
from training.recommenders.fitting.lightgcn import mean
from training.recommenders.lightgcn import Graph
from training.splits import Split, SplitConfig, hold_out

N = 20
WHOLE = 10_000
"""Longest history that is read: every one, so that no model sees less than another."""
SEEDS = (1, 2, 3)
FIRST_FOLD_IN = (4.0, 0.1)
FOLD_INS = tuple(itertools.product((1.0, 4.0, 8.0), (0.01, 0.03, 0.1, 0.3)))
"""Weight of the catalogue, and penalty, of Factorisation's step for new users."""


class Setting(NamedTuple):
    """The positive interactions of ml-1m."""

    title: str
    where: str
    min_value: float | None


SETTINGS = {
    "stars": Setting("ml-1m, users <= 2999, ratings >= 4", "user_id <= 2999", 4.0),
    "all": Setting("ml-1m, all pairs as implicit feedback", "", None),
}
CHEAP = ("EASE", "RecBole EASE", "PureSVD", "popularity", "ALS", "implicit ALS")
"""Methods whose whole grid is tried in both settings."""
TRIED_AGAIN = 3
"""Number of the other methods' best choices in the smaller setting that the larger one tries."""


class Method(NamedTuple):
    """A model of ours, by its name in RECOMMENDERS, or of a library; grid: the options to try."""

    library: str
    model: str
    grid: tuple[dict[str, Any], ...]
    reference_of: str = ""
    epochs: int = 0
    every: int = 0


def grid(**options: Iterable[Any]) -> tuple[dict[str, Any], ...]:
    """Lists all combinations of the options."""
    return tuple(
        dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())
    )


METHODS = {
    "EASE": Method("ours", "ease", grid(lam=EASE_PENALTIES[2:])),
    "RecBole EASE": Method("recbole", "EASE", grid(reg_weight=EASE_PENALTIES[2:]), "EASE"),
    "PureSVD": Method("ours", "puresvd", grid(d=(16, 32, 64, 96))),
    "popularity": Method("ours", "popularity", ({},)),
    "ALS": Method(
        "ours", "als", grid(d=(64, 128), confidence=(4.0, 9.0), penalty=(10.0, 30.0, 100.0))
    ),
    "implicit ALS": Method(
        "implicit",
        "ALS",
        grid(
            factors=(64, 128),
            alpha=(5.0, 10.0),
            regularization=(10.0, 30.0, 100.0),
            iterations=(10, 20),
        ),
        "ALS",
    ),
    "BPR": Method("ours", "bpr", grid(penalty=(1e-2, 2e-2, 4e-2))),
    "implicit BPR": Method(
        "implicit",
        "BPR",
        grid(
            factors=(64,),
            learning_rate=(0.01, 0.03),
            regularization=(0.01, 0.03),
            iterations=(100, 200),
        ),
        "BPR",
    ),
    "RecBole BPR": Method(
        "recbole", "BPR", grid(learning_rate=(1e-3, 3e-3), train_batch_size=(2048,)), "BPR", 60, 5
    ),
    "logistic": Method("ours", "logistic", grid(penalty=(1e-2, 2e-2), negatives=(8.0, 16.0, 32.0))),
    "implicit LMF": Method(
        "implicit",
        "LMF",
        grid(
            factors=(64,),
            learning_rate=(0.3, 1.0),
            regularization=(3.0, 10.0, 30.0),
            neg_prop=(30,),
            iterations=(30, 60),
        ),
        "logistic",
    ),
    "LightGCN": Method("ours", "lightgcn", grid(layers=(2, 3), penalty=(1e-4, 1e-3))),
    "RecBole LightGCN": Method(
        "recbole",
        "LightGCN",
        grid(
            n_layers=(2, 3),
            learning_rate=(5e-3, 2e-2),
            reg_weight=(1e-4,),
            train_batch_size=(16384,),
        ),
        "LightGCN",
        100,
        10,
    ),
    "ELSA": Method(
        "ours",
        "elsa",
        (
            *grid(input_dropout=(0.5, 0.7)),
            *grid(
                input_dropout=(0.5, 0.7),
                loss=("exact",),
                d=(128,),
                lr=(3e-3,),
                batch_size=(128,),
                epochs=(100,),
            ),
        ),
    ),
    "Mult-DAE": Method("ours", "multdae", grid(lr=(1e-3, 3e-3))),
    "RecBole MultiDAE": Method(
        "recbole",
        "MultiDAE",
        grid(train_batch_size=(128,), learning_rate=(1e-3, 3e-3)),
        "Mult-DAE",
        60,
        5,
    ),
    "Mult-VAE": Method(
        "ours",
        "multvae",
        # The paper's noise, and that with which RecBole's draws.
        grid(kl_weight=(0.2, 0.5)) + grid(kl_weight=(0.2, 0.5), noise=(0.01,)),
    ),
    "RecBole MultiVAE": Method(
        "recbole",
        "MultiVAE",
        grid(train_batch_size=(128,), anneal_cap=(0.2, 0.5), total_anneal_steps=(2000,)),
        "Mult-VAE",
        100,
        5,
    ),
}


class Candidate(NamedTuple):
    """A scorer among which the validation users choose."""

    chosen: dict[str, Any]
    scorer: Scorer
    cpu_seconds: float


class KnownItems(NamedTuple):
    """Leaves out items without a training event: some methods cannot score them."""

    scorer: Scorer
    known: torch.Tensor

    def scores(self, histories: Histories) -> torch.Tensor:
        """Computes scores [len(histories), n_items]."""
        return self.scorer.scores(histories).masked_fill(~self.known, -torch.inf)


class GivenScores(NamedTuple):
    """Scores that a library gave to the held-out histories, found by their items."""

    by_history: dict[bytes, torch.Tensor]

    def scores(self, histories: Histories) -> torch.Tensor:
        """Computes scores [len(histories), n_items]."""
        return torch.stack([self.by_history[part.items.tobytes()] for part in histories.batches(1)])


def load(data: str, setting: Setting, seed: int) -> Split:
    """Loads the split of a setting and a seed."""
    raw = load_data_set(data, FolderOptions(where=setting.where), seed)
    interactions = prepare(raw).interactions
    positives = interactions.positives(setting.min_value)
    return hold_out(
        positives, interactions.user_ids, len(interactions.item_ids), SplitConfig(), seed
    )


def of_ours(
    method: Method, options: dict[str, Any], split: Split, seed: int
) -> Iterator[Candidate]:
    """Trains one of ours; those with a step for new users, with all its settings."""
    start = time.process_time()
    if method.model == "ease":
        X = split.input_matrix(split.train)
        yield Candidate({}, EaseScorer.fit(X, options["lam"], WHOLE), time.process_time() - start)
        return
    if method.model == "popularity":
        counts = torch.from_numpy(split.popularity().astype(np.float32))
        yield Candidate({}, PopularityScorer(counts), 0.0)
        return

    def validate(model: Recommender) -> float:
        return mean_ndcg(ModelScorer(model, WHOLE), split, split.validation)

    kind = RECOMMENDERS[method.model]
    torch.manual_seed(seed)
    settings = kind.options(**options)
    model = kind.build(settings, split.n_items, WHOLE)
    with tempfile.TemporaryDirectory() as folder:
        context = FitContext(split, WHOLE, seed, Checkpoints(Path(folder), every_s=1e9), validate)
        result = kind.fit(model, settings, context)
    seconds = time.process_time() - start
    epoch = {"epoch": result.best_epoch}
    yield Candidate(epoch, ModelScorer(model, WHOLE), seconds)
    if isinstance(model, Factorisation):
        for chosen, scorer in folded_in(*model.item_matrix()):
            yield Candidate(epoch | chosen, scorer, seconds)


def of_library(
    method: Method, options: dict[str, Any], split: Split, seed: int, python: str
) -> Iterator[Candidate]:
    """Trains a library's model; folds new users in like ours, with all settings of the step."""
    held_out = split.histories(np.concatenate([split.validation, split.test]))
    results = library_arrays(method, options, split, held_out, seed, python)
    epochs = sorted({int(key.split("/")[0]) for key in results})
    snapshots = []
    for epoch in epochs:
        values = {
            key.split("/")[1]: part for key, part in results.items() if key.startswith(f"{epoch}/")
        }
        scorer = library_scorer(method, options, split, held_out, values)
        snapshots.append(Candidate({"epoch": epoch}, scorer, float(values["cpu_seconds"])))
    best = max(snapshots, key=lambda part: mean_ndcg(part.scorer, split, split.validation))
    yield best
    if isinstance(best.scorer, ModelScorer) and isinstance(best.scorer.recommender, Factorisation):
        for chosen, scorer in folded_in(*best.scorer.recommender.item_matrix()):
            yield Candidate(best.chosen | chosen, scorer, best.cpu_seconds)


def library_arrays(
    method: Method,
    options: dict[str, Any],
    split: Split,
    held_out: Histories,
    seed: int,
    python: str,
) -> dict[str, torch.Tensor]:
    """Runs reference_libraries.py and reads its arrays: EPOCH/NAME -> array."""
    task = {"library": method.library, "model": method.model, "options": options, "seed": seed}
    task |= {"threads": torch.get_num_threads(), "epochs": method.epochs, "every": method.every}
    parts = {"train": split.histories(split.train), "held_out": held_out}
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / file for file in ("task.json", "in.npz", "out.npz")]
        files[0].write_text(json.dumps(task))
        arrays = {
            f"{key}_{field}": values
            for key, part in parts.items()
            for field, values in part._asdict().items()
        }
        np.savez(files[1], n_items=split.n_items, **arrays)
        worker = Path(__file__).with_name("reference_libraries.py").resolve()
        command = [python, str(worker), *map(str, files)]
        # As implicit advises; threads that wait for each other in a loop also cost minutes on a
        # busy machine.
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        subprocess.run(command, check=True, cwd=name, env=environment, capture_output=True)
        with np.load(files[2]) as found:
            return {key: torch.from_numpy(np.asarray(values)) for key, values in found.items()}


def library_scorer(
    method: Method,
    options: dict[str, Any],
    split: Split,
    held_out: Histories,
    values: dict[str, torch.Tensor],
) -> Scorer:
    """Makes a scorer of a library's model, for any history or for the held-out ones."""
    if method.model == "EASE":
        return EaseScorer(values["B"], WHOLE)
    if "scores" in values:
        keys = (part.items.tobytes() for part in held_out.batches(1))
        return GivenScores(dict(zip(keys, values["scores"], strict=True)))
    V = values["V"]
    b = values.get("b", torch.zeros(split.n_items))
    if method.model == "ALS":
        als = Als(
            split.n_items, V.shape[1], options["alpha"] - 1, options["regularization"], steps=5
        )
        als.set_items(V)
        return ModelScorer(als, WHOLE)
    if method.model == "LightGCN":
        graph = Graph(split.histories(split.train), split.n_items)
        V = mean(graph.layers(values["P"], V, options["n_layers"])).items
    return ModelScorer(factorisation(V, b, *FIRST_FOLD_IN), WHOLE)


def factorisation(
    V: torch.Tensor, b: torch.Tensor, negatives: float, penalty: float
) -> Factorisation:
    """Builds a model of given item vectors and biases."""
    n_items, d = V.shape
    model = Factorisation(n_items, d, FoldIn(negatives, penalty, steps=8))
    model.set_items(V, b)
    return model


def folded_in(V: torch.Tensor, b: torch.Tensor) -> Iterator[tuple[dict[str, Any], Scorer]]:
    """Yields every setting of the step for new users."""
    for negatives, penalty in FOLD_INS:
        chosen = {"fold_in_negatives": negatives, "fold_in_penalty": penalty}
        yield chosen, ModelScorer(factorisation(V, b, negatives, penalty), WHOLE)


class Bench(NamedTuple):
    """The folder of cells, the data, and the libraries' Python."""

    data: str
    out: Path
    python: str | None

    def cell(self, setting: str, name: str, options: dict[str, Any], seed: int) -> Cell:
        """Trains and measures, or reads the figures if that was done before."""
        key = hashlib.sha256(
            json.dumps([setting, name, options, seed], sort_keys=True).encode()
        ).hexdigest()
        path = self.out / f"{setting}.{name.replace(' ', '-')}.{seed}.{key[:8]}.json"
        if not path.is_file():
            write_json(path, self._measured(setting, name, options, seed)._asdict())
            print(time.strftime("%H:%M:%S"), path.name, read_json(path), flush=True)
        return Cell(**read_json(path))

    def best(self, setting: str, name: str) -> Cell:
        """Finds the first seed's cell of the grid with the best validation figure."""
        return self.searched(setting, name)[0]

    def searched(self, setting: str, name: str) -> list[Cell]:
        """Lists the first seed's cells of all choices that are tried, best first."""
        choices: Iterable[dict[str, Any]] = METHODS[name].grid
        if setting == "all" and name not in CHEAP:
            choices = [cell.options for cell in self.searched("stars", name)[:TRIED_AGAIN]]
        cells = [self.cell(setting, name, options, SEEDS[0]) for options in choices]
        return sorted(cells, key=lambda cell: -cell.validation)

    def kept(self, setting: str, name: str) -> list[Cell]:
        """Lists the measured cells; those of the best choice by validation come first."""
        paths = sorted(self.out.glob(f"{setting}.{name.replace(' ', '-')}.*.json"))
        cells = [Cell(**read_json(path)) for path in paths]
        first = {
            json.dumps(cell.options): cell.validation for cell in cells if cell.seed == SEEDS[0]
        }
        return sorted(
            cells, key=lambda cell: (-first.get(json.dumps(cell.options), -1.0), cell.seed)
        )

    def _measured(self, setting: str, name: str, options: dict[str, Any], seed: int) -> Cell:
        method = METHODS[name]
        split = load(self.data, SETTINGS[setting], seed)
        known = torch.from_numpy(split.popularity() > 0)
        if method.library == "ours":
            candidates = of_ours(method, options, split, seed)
        else:
            candidates = of_library(method, options, split, seed, str(self.python))
        best = None
        value = -np.inf
        for candidate in candidates:
            candidate = candidate._replace(scorer=KnownItems(candidate.scorer, known))
            found = mean_ndcg(candidate.scorer, split, split.validation, N)
            if best is None or found > value:
                best = candidate
                value = found
        assert best
        figures = judge(name, best.scorer, split, split.test, N)
        return Cell(
            setting,
            name,
            seed,
            options,
            best.chosen,
            value,
            figures.ndcg,
            figures.recall,
            best.cpu_seconds,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="ml-1m as a folder of Parquet files")
    parser.add_argument("--out", type=Path, required=True, help="where cells are kept")
    parser.add_argument("--libraries", help="the Python that has implicit and RecBole")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", type=Path, help="write references.md and references.json here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(arguments.data, arguments.out, arguments.libraries)
    if arguments.report:
        kept = {
            setting: {name: bench.kept(setting, name) for name in arguments.methods}
            for setting in arguments.settings
        }
        titles = {setting: SETTINGS[setting].title for setting in arguments.settings}
        references = {name: METHODS[name].reference_of for name in arguments.methods}
        report(kept, titles, references, SEEDS[0]).write(arguments.report)
        return
    names = [name for name in arguments.methods if bench.python or METHODS[name].library == "ours"]
    for name, setting in itertools.product(names, arguments.settings):
        best = bench.best(setting, name)
        for seed in SEEDS:
            bench.cell(setting, name, best.options, seed)


if __name__ == "__main__":
    main()
