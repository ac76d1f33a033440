"""Trains RecBole's SASRec on the sequences of sequential.py, in RecBole's own Python.

python sequential_recbole.py FOLDER OUT.npz --seed N: reads FOLDER/sequences/sequences.inter (user,
item, place in order), trains with full cross-entropy, leave-one-out, and writes lists of 10 item
tokens for every test user, with and without the items of the history, best first; CPU time, epochs
and versions beside them.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

Texts = NDArray[np.str_]

SETTINGS = {
    "USER_ID_FIELD": "user_id",
    "ITEM_ID_FIELD": "item_id",
    "TIME_FIELD": "timestamp",
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "eval_args": {
        "split": {"LS": "valid_and_test"},
        "group_by": "user",
        "order": "TO",
        "mode": {"valid": "full", "test": "full"},
    },
    "loss_type": "CE",
    "train_neg_sample_args": None,
    "metrics": ["Hit", "NDCG"],
    "topk": [10, 20],
    "valid_metric": "NDCG@20",
    "show_progress": False,
    "use_gpu": False,
}


def best(scores: torch.Tensor, tokens: Texts) -> Texts:
    """Finds the tokens of the 10 highest scores: [batch, n_items] -> [batch, 10]."""
    chosen: Texts = tokens[scores.topk(10, dim=1).indices.numpy()]
    return chosen


def histories(folder: Path, data: Any) -> dict[int, torch.Tensor]:
    """Reads RecBole's indices of each user's items except the last."""
    items: dict[int, list[int]] = {}
    with (folder / "sequences" / "sequences.inter").open() as file:
        next(file)
        for line in file:
            user, item, _ = line.split("\t")
            items.setdefault(data.token2id("user_id", user), []).append(
                data.token2id("item_id", item)
            )
    return {user: torch.tensor(row[:-1]) for user, row in items.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--max-length", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--patience", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="highest")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision(arguments.precision)
    own = {
        "data_path": str(arguments.folder),
        "checkpoint_dir": str(arguments.folder / "saved"),
        "seed": arguments.seed,
        "MAX_ITEM_LIST_LENGTH": arguments.max_length,
        "epochs": arguments.epochs,
        "stopping_step": arguments.patience,
    }
    config = Config(model="SASRec", dataset="sequences", config_dict=SETTINGS | own)
    init_seed(arguments.seed, True)
    train, valid, test = data_preparation(config, data := create_dataset(config))
    model = SASRec(config, train.dataset)
    trainer = Trainer(config, model)
    epochs: list[float] = []

    def looked(epoch: int, score: float) -> None:
        epochs.append(score)
        print(
            f"  epoch {epoch + 1} NDCG@20 {score:.4f} {time.process_time() - began:.0f} s",
            flush=True,
        )

    began = time.process_time()
    trainer.fit(train, valid, verbose=False, callback_fn=looked)
    fitting_s = time.process_time() - began
    torch.set_float32_matmul_precision("highest")
    # RecBole's own loading fails since torch 2.6, which reads nothing but weights unless told to.
    model.load_state_dict(torch.load(trainer.saved_model_file, weights_only=False)["state_dict"])
    figures = trainer.evaluate(test, load_best_model=False)
    model.eval()
    tokens = data.field2id_token["item_id"]
    seen = histories(arguments.folder, data)
    found: dict[str, list[np.ndarray]] = {"users": [], "targets": [], "plain": [], "masked": []}
    with torch.no_grad():
        for rows, _, _, positive in test:
            scores = model.full_sort_predict(rows)
            scores[:, 0] = -torch.inf
            found["plain"].append(best(scores, tokens))
            for score, user in zip(scores, rows["user_id"].tolist(), strict=True):
                score[seen[user]] = -torch.inf
            found["masked"].append(best(scores, tokens))
            found["users"].append(data.field2id_token["user_id"][rows["user_id"].numpy()])
            found["targets"].append(tokens[positive.numpy()])
    about = {
        "epochs": len(epochs),
        "best_epoch": int(np.argmax(epochs)) + 1,
        "cpu_s": fitting_s,
        "epoch_cpu_s": fitting_s / len(epochs),
        "own_figures": dict(figures),
        "versions": {"torch": torch.__version__, "numpy": np.__version__, "recbole": "1.2.1"},
    }
    arrays: dict[str, Any] = {
        name: np.concatenate(parts).astype(str) for name, parts in found.items()
    }
    np.savez(arguments.out, about=json.dumps(about), **arrays)


if __name__ == "__main__":
    main()
