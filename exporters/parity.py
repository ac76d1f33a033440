"""Compares the answers of written files, computed as the service does, with torch's."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from trimtab.manifest import FLAT
from trimtab.v1.bundle_pb2 import BundleManifest

from exporters.contents import BundleContents, as_stored, random_code_edits
from exporters.errors import ParityError
from exporters.recall import rounded_recall
from exporters.scale_rules import Normalisation, normalisation
from service.arrays import Floats
from service.bundle.encoder import Activation
from service.bundle.onnx_encoder import OnnxEncoder
from service.bundle.open import open_encoder, open_index, open_items
from service.bundle.precision import Precision
from service.bundle.replay import REPLAY_TOLERANCE, SMALLEST_ACTIVATION, dense_codes
from service.retrieval.protocol import Index

SCORE_TOLERANCE = 1e-3
"""Relative difference of scores that have no order. Rounding z to float16 changes it by up to
2**-11 = 5e-4 of itself."""

LIST_LENGTH = 100
"""Items in each list that is compared. Longer lists also compare items that are hardly listed."""

Reference = dict[str, NDArray[Any]]
"""The arrays of reference.npz by name; see contents.References."""


def check_parity(directory: Path, manifest: BundleManifest, contents: BundleContents) -> None:
    """Runs the references through the written files, then compares whole lists with torch's.

    Raises:
        ParityError: names the output that differs, and by how much.
    """
    served = _ServedModel.open(directory, manifest)
    _check_outputs(served, contents)
    _check_batches(served)
    _check_recall(served)
    _check_lists(served, contents, steered=False)
    _check_lists(served, contents, steered=True)


@dataclass(frozen=True)
class _ServedModel:
    """The written files, opened by the service's own code."""

    manifest: BundleManifest
    encoder: OnnxEncoder
    index: Index
    items: Floats
    """[V | b], float32 [n_items, p + 1]."""
    decoder: Floats
    """[W_dec; b_dec], float32 [n_neurons + 1, d]."""
    reference: Reference

    @classmethod
    def open(cls, directory: Path, manifest: BundleManifest) -> "_ServedModel":
        """Opens the files of a bundle."""
        items = open_items(directory)
        with np.load(directory / "reference.npz") as file:
            reference = dict(file)
        reference.setdefault("context", np.zeros((len(reference["z"]), 0), np.float32))
        return cls(
            manifest=manifest,
            encoder=open_encoder(directory, manifest),
            index=open_index(directory, manifest, items),
            items=items,
            decoder=np.load(directory / "decoder.npy"),
            reference=reference,
        )

    def normalisation(self, z: Floats) -> Normalisation:
        """Computes the scale and shift of z [batch, d]."""
        return normalisation(self.manifest.scale_rule, self.manifest.scale_factor, z)

    def scores(self, z: Floats, context: Floats) -> Floats:
        """Scores every item for z [batch, d]: float32 [batch, n_items]."""
        queries = self.encoder.head(z, context)
        return np.asarray(queries @ self.items[:, :-1].T + self.items[:, -1])


@torch.no_grad()
def _check_outputs(served: _ServedModel, contents: BundleContents) -> None:
    """Compares the outputs of every graph, and the decoder, with torch's."""
    reference = served.reference
    states = served.encoder.embed(reference["items"], reference["mask"])
    _compare_states("", states, reference, slice(None))
    codes = served.encoder.code(reference["z"])
    scale, shift = served.normalisation(reference["z"])
    read_norm = np.linalg.norm((reference["z"] - shift) / scale, axis=1, keepdims=True)
    least = SMALLEST_ACTIVATION * read_norm
    _compare("sae.onnx: activations", codes.activations, reference["activations"], least)
    n_neurons = contents.dims.n_neurons
    actual = dense_codes(codes.neurons, codes.activations, n_neurons)
    expected = dense_codes(reference["neurons"], reference["activations"], n_neurons)
    _compare("sae.onnx: code", actual, expected, least)
    queries = served.encoder.head(reference["z"], reference["context"])
    _compare("head.onnx: q", queries, reference["q"])
    sae = contents.sae
    z = contents.references.z
    rebuilt = sae.scale(z) * (torch.from_numpy(expected) @ sae.W_dec + sae.b_dec) + sae.shift(z)
    decoded = scale * (expected @ served.decoder[:-1] + served.decoder[-1]) + shift
    _compare("decoder.npy: reconstruction", decoded, rebuilt.numpy())


def _check_batches(served: _ServedModel) -> None:
    """Checks that an embedding depends neither on the rest of its batch nor on padding."""
    reference = served.reference
    longest = int(reference["mask"].sum(axis=1).argmax())
    length = int(reference["mask"][longest].sum())
    items = reference["items"][[longest], :length]
    alone = served.encoder.embed(items, reference["mask"][[longest], :length])
    _compare_states(" of one history alone", alone, reference, slice(longest, longest + 1))
    empty = served.encoder.embed(np.zeros((1, 0), np.int64), np.zeros((1, 0), np.float32))
    _compare_states(" of the empty history", empty, reference, slice(1))


def _compare_states(of: str, states: Activation, reference: Reference, rows: slice) -> None:
    for name, values in states._asdict().items():
        _compare(f"encoder.onnx: {name}{of}", values, reference[name][rows])


def _check_recall(served: _ServedModel) -> None:
    """Compares the index's recall with what was measured before it was written."""
    info = served.manifest.index
    if info.kind == FLAT:
        return
    expected_recalls = {"queries": info.recall_plain, "steered_queries": info.recall_steered}
    for name, expected in expected_recalls.items():
        measured = rounded_recall(served.index, served.items, served.reference[name])
        if measured < expected:
            raise ParityError(
                f"items.faiss: recall for {name}: expected {expected} as measured before writing, "
                f"found {measured}"
            )


@torch.no_grad()
def _check_lists(served: _ServedModel, contents: BundleContents, steered: bool) -> None:
    """Compares lists, unsteered or with random edits."""
    reference = served.reference
    codes = random_code_edits(
        len(reference["z"]),
        contents.cards.activity.unit,
        contents.concepts,
        np.random.default_rng(1),
    ) * float(steered)
    z = as_stored(contents.references.z)
    context = as_stored(contents.references.context)
    edited = z + contents.sae.scale(z) * (codes @ contents.sae.W_dec)
    expected = (contents.recommender.head(edited, context) @ contents.V.T + contents.b).numpy()
    state = served.encoder.embed(reference["items"], reference["mask"])
    rounded = Precision.FLOAT16.rounded
    users = rounded(state.z)
    moved = users + served.normalisation(users).scale * (codes.numpy() @ served.decoder[:-1])
    actual = served.scores(moved.astype(np.float32), rounded(state.context))
    compare_lists("steered" if steered else "unsteered", actual, expected, reference)


def compare_lists(kind: str, actual: Floats, expected: Floats, reference: Reference) -> None:
    """Compares lists of unseen items, by scores [users, n_items]; near-equal ones may swap places.

    Raises:
        ParityError: a listed item belongs elsewhere by the expected scores.
    """
    if not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        raise ParityError(f"{kind} lists: expected finite scores, found some that are not finite")
    rows = np.arange(len(actual))[:, None]
    seen = reference["mask"] > 0
    for scores in (actual, expected):
        users, positions = np.nonzero(seen)
        scores[users, reference["items"][users, positions]] = -np.inf
    available = int(np.isfinite(expected).sum(axis=1).min())
    length = min(LIST_LENGTH, available)
    listed = np.argsort(-actual, axis=1, kind="stable")[:, :length]
    ideal = -np.sort(-expected, axis=1)[:, :length]
    gaps = np.abs(expected[rows, listed] - ideal)
    scale = np.abs(ideal).max(axis=1, keepdims=True)
    worst = float((gaps / np.maximum(scale, np.finfo(np.float32).tiny)).max(initial=0.0))
    if worst > SCORE_TOLERANCE:
        raise ParityError(
            f"{kind} lists differ from torch's: expected scores at the same rank to differ by at "
            f"most {SCORE_TOLERANCE:.0e}, found {worst:.1e}"
        )


def _compare(what: str, actual: Floats, expected: Floats, least: Floats | float = 0.0) -> None:
    """Compares rows relative to the largest value of each, or to least [rows, 1] if larger.

    Raises:
        ParityError: shapes or values differ.
    """
    if actual.shape != expected.shape:
        raise ParityError(
            f"{what}: expected shape {list(expected.shape)} as torch's, found {list(actual.shape)}"
        )
    scale = np.abs(expected).max(axis=1, keepdims=True, initial=np.finfo(np.float32).tiny)
    scale = np.maximum(np.maximum(scale, least), 1e-6)
    error = float((np.abs(actual - expected) / scale).max(initial=0.0))
    if not error <= REPLAY_TOLERANCE:
        raise ParityError(
            f"{what} differs from torch's: expected at most {REPLAY_TOLERANCE:.0e}, "
            f"found {error:.1e}"
        )
