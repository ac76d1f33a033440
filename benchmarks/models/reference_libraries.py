"""Trains implicit's and RecBole's models for references.py, in their own Python.

python reference_libraries.py TASK.json IN.npz OUT.npz: trains on IN's training histories and writes
what is needed to score anyone: item vectors V and biases b, EASE's B, LightGCN's layer 0 of users
and items, or an autoencoder's scores of IN's held-out histories. Models trained by RecBole are
written at several epochs, so that the caller can choose among them. Runs with numpy, scipy, torch,
implicit 0.7 and RecBole 1.2.1.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

Arrays = dict[str, NDArray[Any]]


def matrix(arrays: Any, name: str, n_items: int) -> csr_matrix:
    """Histories as float32 [n, n_items]."""
    offsets = arrays[f"{name}_offsets"]
    items = arrays[f"{name}_items"]
    return csr_matrix(
        (np.ones(len(items), np.float32), items, offsets), (len(offsets) - 1, n_items)
    )


def with_implicit(task: dict[str, Any], X: csr_matrix) -> Iterator[tuple[int, Arrays]]:
    """Trains ALS, BPR or logistic factorisation.

    The constant columns that implicit adds become biases.
    """
    from implicit.cpu.als import AlternatingLeastSquares
    from implicit.cpu.bpr import BayesianPersonalizedRanking
    from implicit.cpu.lmf import LogisticMatrixFactorization

    kinds = {
        "ALS": AlternatingLeastSquares,
        "BPR": BayesianPersonalizedRanking,
        "LMF": LogisticMatrixFactorization,
    }
    model = kinds[task["model"]](
        random_state=task["seed"], num_threads=task["threads"], **task["options"]
    )
    model.fit(X, show_progress=False)
    V = np.asarray(model.item_factors)
    b = np.zeros(len(V), np.float32)
    if task["model"] == "BPR":
        V, b = V[:, :-1], V[:, -1]
    if task["model"] == "LMF":
        V, b = V[:, :-2], V[:, -2:][:, ~np.all(V[:, -2:] == 1, axis=0)][:, 0]
    yield task["options"]["iterations"], {"V": V, "b": b}


def with_recbole(
    task: dict[str, Any], X: csr_matrix, held_out: csr_matrix
) -> Iterator[tuple[int, Arrays]]:
    """Trains any of RecBole's general recommenders that take_from knows."""
    from recbole.config import Config
    from recbole.data import create_dataset
    from recbole.data.utils import create_samplers, get_dataloader
    from recbole.utils import get_model, get_trainer, init_seed

    torch.set_num_threads(task["threads"])
    with tempfile.TemporaryDirectory() as folder:
        write_pairs(Path(folder) / "histories", X)
        settings = {
            "data_path": folder,
            "checkpoint_dir": folder,
            "load_col": {"inter": ["user_id", "item_id"]},
            "eval_args": {
                "split": {"RS": [1.0, 0.0, 0.0]},
                "order": "RO",
                "group_by": None,
                "mode": "full",
            },
            "use_gpu": False,
            "seed": task["seed"],
            "show_progress": False,
            **task["options"],
        }
        if task["model"] in ("MultiVAE", "MultiDAE"):
            settings["train_neg_sample_args"] = None
        config = Config(model=task["model"], dataset="histories", config_dict=settings)
        init_seed(config["seed"], config["reproducibility"])
        dataset = create_dataset(config)
        built = dataset.build()
        sampler = create_samplers(config, dataset, built)[0]
        loader = get_dataloader(config, "train")(
            config, built[0], sampler, shuffle=config["shuffle"]
        )
        model = get_model(config["model"])(config, built[0])
        take = take_from(model, built[0], X.shape[1], held_out)
        if task["model"] == "EASE":
            yield 1, take()
            return
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
        for epoch in range(1, task["epochs"] + 1):
            model.train()
            trainer._train_epoch(loader, epoch, show_progress=False)
            if epoch % task["every"] == 0:
                model.eval()
                with torch.no_grad():
                    yield epoch, take()


def write_pairs(folder: Path, X: csr_matrix) -> None:
    """Writes RecBole's atomic file of the training users' pairs; tokens are our indices."""
    folder.mkdir()
    pairs = X.tocoo()
    rows = "".join(f"{user}\t{item}\n" for user, item in zip(pairs.row, pairs.col, strict=True))
    (folder / "histories.inter").write_text("user_id:token\titem_id:token\n" + rows)


def take_from(model: Any, data: Any, n_items: int, held_out: csr_matrix) -> Callable[[], Arrays]:
    """Returns a function that reads a model's parameters.

    Rows are in our numbering; items without pairs have zeros.
    """
    places = {
        field: np.array([-1, *map(int, data.field2id_token[field][1:])])
        for field in ("user_id", "item_id")
    }

    def ours(values: Any, field: str, size: int) -> np.ndarray:
        result = np.zeros((size, values.shape[1]), np.float32)
        result[places[field][1:]] = np.asarray(values, np.float32)[1:]
        return result

    n_users = len(places["user_id"]) - 1
    name = type(model).__name__
    if name == "EASE":
        items = ours(np.asarray(model.item_similarity), "item_id", n_items)
        return lambda: {"B": ours(items.T, "item_id", n_items).T}
    if name in ("MultiVAE", "MultiDAE"):
        shown = np.zeros((held_out.shape[0], len(places["item_id"])), np.float32)
        shown[:, 1:] = held_out[:, places["item_id"][1:]].toarray()

        def scores() -> Arrays:
            given = model(torch.from_numpy(shown))
            given = given[0] if isinstance(given, tuple) else given
            return {"scores": ours(given.numpy().T, "item_id", n_items).T}

        return scores
    items = model.item_embedding.weight
    users = model.user_embedding.weight
    return lambda: {
        "V": ours(items.detach(), "item_id", n_items),
        "P": ours(users.detach(), "user_id", n_users),
    }


def main() -> None:
    task_file, source, out = map(Path, sys.argv[1:])
    task = json.loads(task_file.read_text())
    with np.load(source) as arrays:
        n_items = int(arrays["n_items"])
        X = matrix(arrays, "train", n_items)
        held_out = matrix(arrays, "held_out", n_items)
    library = task["library"]
    start = time.process_time()
    parts: dict[str, Any] = {}
    found = with_implicit(task, X) if library == "implicit" else with_recbole(task, X, held_out)
    for epoch, values in found:
        seconds = time.process_time() - start
        parts |= {f"{epoch}/{name}": value for name, value in values.items()}
        parts[f"{epoch}/cpu_seconds"] = np.array(seconds)
    np.savez(out, **parts)


if __name__ == "__main__":
    main()
