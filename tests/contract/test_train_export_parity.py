"""Train, export, read by hand: the commands give a bundle whose files alone give torch's lists.

Every recommender and every SAE passes through the server's engine in test_matrix.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from exporters.cli import main
from training.config import TrainConfig
from training.datasets.synthetic import SyntheticOptions
from training.pipeline import train
from training.recommenders import RECOMMENDERS
from training.run import Run, load_run
from training.saes import SAES

LIST_LENGTH = 20
SCORE_TOLERANCE = 1e-3
"""Scores this close, relative to the best, have no order: z is rounded to float16."""

Floats = NDArray[np.float32]


class Exported(NamedTuple):
    run: Run
    bundle: Path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("parity")
    config = TrainConfig(
        data="synthetic",
        data_options=SyntheticOptions(n_users=300, n_items=120, n_concepts=6),
        recommender_options=RECOMMENDERS["elsa"].options(d=16, epochs=6),
        sae_options=SAES["topk"].options(k=4, expansion=4, epochs=10),
    )
    train(config, folder / "run")
    assert main([str(folder / "run"), "--out", str(folder / "bundle")]) == 0
    return Exported(load_run(folder / "run"), folder / "bundle")


class _Files:
    """A bundle as a server reads it, in as few lines as the format allows."""

    def __init__(self, folder: Path) -> None:
        self.encoder = onnxruntime.InferenceSession(folder / "encoder.onnx")
        self.sae = onnxruntime.InferenceSession(folder / "sae.onnx")
        head = folder / "head.onnx"
        self.head = onnxruntime.InferenceSession(head) if head.exists() else None
        self.items: Floats = np.load(folder / "items.npy")
        self.W_dec: Floats = np.load(folder / "decoder.npy")[:-1]
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["scale_rule"] == "SCALE_RULE_UNIT_NORM"
        self.scale_factor = manifest["scale_factor"]
        assert manifest["index"]["kind"] == "flat"
        self.concepts = pq.read_table(folder / "concepts.parquet").to_pylist()

    def embed(self, history: NDArray[np.int64]) -> Floats:
        feed = {"items": history[None], "mask": np.ones((1, len(history)), np.float32)}
        z: Floats = self.encoder.run(["z"], feed)[0][0]
        return z.astype(np.float16).astype(np.float32)

    def query(self, z: Floats) -> Floats:
        q: Floats = z if self.head is None else self.head.run(["q"], {"z": z[None]})[0][0]
        return q

    def steered(self, z: Floats, concept: dict[str, Any], strength: float) -> Floats:
        scale = self.scale_factor * (np.linalg.norm(z) or 1.0)
        direction = np.array(concept["weights"], np.float32) @ self.W_dec
        moved: Floats = z + np.float32(scale * strength * concept["unit"]) * direction
        return moved

    def best(self, q: Floats, history: NDArray[np.int64]) -> NDArray[np.int64]:
        found = np.argsort(-(self.items[:, :-1] @ q + self.items[:, -1]), kind="stable")
        unseen = [item for item in found if item not in set(history.tolist())]
        return np.array(unseen[:LIST_LENGTH])


def _histories(run: Run) -> list[NDArray[np.int64]]:
    held_out = run.split.histories(run.split.test)
    return [held_out.rows(np.array([row])).items for row in range(len(run.split.test))]


def _assert_same_list(
    found: NDArray[np.int64], scores: torch.Tensor, history: NDArray[np.int64]
) -> None:
    scores = scores.clone()
    scores[torch.from_numpy(history)] = -torch.inf
    best = torch.sort(scores, descending=True).values[: len(found)]
    assert len(set(found.tolist())) == len(found)
    np.testing.assert_allclose(
        scores[torch.from_numpy(found)], best, atol=SCORE_TOLERANCE * float(best.abs().max())
    )


@torch.no_grad()
def _torch_z(run: Run, history: NDArray[np.int64]) -> torch.Tensor:
    z = run.recommender.encode(torch.from_numpy(history)[None], torch.ones(1, len(history)))
    return z.half().float()


@torch.no_grad()
def test_unsteered_lists_of_held_out_users_are_torchs(exported: Exported) -> None:
    files = _Files(exported.bundle)
    histories = _histories(exported.run)
    assert len(histories) >= 20
    for history in histories:
        found = files.best(files.query(files.embed(history)), history)
        assert len(found) == LIST_LENGTH
        _assert_same_list(
            found, exported.run.recommender.scores(_torch_z(exported.run, history))[0], history
        )


@torch.no_grad()
@pytest.mark.parametrize("strength", [-1.0, 1.0, 2.0])
def test_steered_lists_of_held_out_users_are_torchs(exported: Exported, strength: float) -> None:
    run = exported.run
    files = _Files(exported.bundle)
    sae = run.sae
    assert [concept["name"] for concept in files.concepts] == [
        concept.name for concept in run.concepts
    ]
    for number, history in enumerate(_histories(run)):
        row = number % len(run.concepts)
        z = _torch_z(run, history)
        weights = torch.from_numpy(run.concepts[row].weights)
        code = sae.encode(z)
        steered = code + strength * run.concepts[row].unit * weights
        expected = z + sae.scale(z) * (sae.decode(steered) - sae.decode(code))
        found = files.best(
            files.query(files.steered(files.embed(history), files.concepts[row], strength)), history
        )
        _assert_same_list(found, run.recommender.scores(expected)[0], history)


@torch.no_grad()
def test_codes_of_held_out_users_are_torchs(exported: Exported) -> None:
    files = _Files(exported.bundle)
    for history in _histories(exported.run):
        z = _torch_z(exported.run, history)
        neurons, activations = files.sae.run(["neurons", "activations"], {"z": z.numpy()})
        found = np.zeros(exported.run.sae.n_neurons, np.float32)
        found[neurons[0]] = activations[0]
        np.testing.assert_allclose(
            found, exported.run.sae.encode(z)[0], atol=1e-4 * activations.max()
        )


def test_item_rows_are_the_runs_catalogue_in_index_order(exported: Exported) -> None:
    written = pq.read_table(exported.bundle / "items.parquet").to_pylist()
    assert written == exported.run.catalogue.items.to_dicts()


def test_a_run_exported_again_after_training_again_is_the_same_bundle(
    exported: Exported, tmp_path: Path
) -> None:
    train(exported.run.config, tmp_path / "run")
    assert main([str(tmp_path / "run"), "--out", str(tmp_path / "bundle")]) == 0
    for name in ("encoder.onnx", "sae.onnx", "items.npy", "concepts.parquet", "neurons.parquet"):
        assert (tmp_path / "bundle" / name).read_bytes() == (exported.bundle / name).read_bytes(), (
            name
        )
