"""Does a written bundle answer as torch does? It is used here the way a server uses it."""

from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from trimtab.v1.bundle_pb2 import BundleManifest

from exporters.contents import BundleContents, as_stored, random_code_edits
from exporters.errors import ParityError
from exporters.graphs import session
from exporters.index_kinds import FLAT
from exporters.models import Floats
from exporters.normalisation import Normalisation, normalisation
from exporters.recall import measure_recall

# Rounding differs between torch's and onnxruntime's kernels; a wrong graph is off by far more.
RELATIVE_TOLERANCE = 1e-4


# Activations below this share of the norm of what the SAE reads are differences of larger numbers,
# and carry the rounding of those: they are judged relative to this share.
SMALLEST_ACTIVATION = 0.02


# z rounded to float16 is off by up to 2**-11 = 5e-4 of itself, so scores this close have no order.
SCORE_TOLERANCE = 1e-3


LIST_LENGTH = 100


def check_parity(directory: Path, manifest: BundleManifest, contents: BundleContents) -> None:
    """Replays the references through the written files, then compares whole lists with torch's.

    Raises:
        ParityError: names the output that differs, and by how much.
    """
    served = _ServedModel(directory, manifest)
    _check_outputs(served, contents)
    _check_recall(served, manifest)
    _check_lists(served, contents, steered=False)
    _check_lists(served, contents, steered=True)


class _State(NamedTuple):
    z: Floats
    context: Floats


class _ServedModel:
    """The written files, used the way a server uses them: onnxruntime, faiss and numpy."""

    def __init__(self, directory: Path, manifest: BundleManifest) -> None:
        self.encoder = session(str(directory / "encoder.onnx"))
        self.sae = session(str(directory / "sae.onnx"))
        self.has_head = manifest.dimensions.has_head
        self._head = session(str(directory / "head.onnx")) if self.has_head else None
        self.decoder: Floats = np.load(directory / "decoder.npy")
        self.items: Floats = np.load(directory / "items.npy")
        self.has_bias = manifest.dimensions.has_bias
        self._scale_rule, self._scale_factor = manifest.scale_rule, manifest.scale_factor
        self.over_fetch = manifest.index.over_fetch
        self.index: Any = None  # every item is scored
        if manifest.index.kind != FLAT:
            self.index = faiss.read_index(str(directory / "items.faiss"))
        with np.load(directory / "reference.npz") as file:
            self.reference: dict[str, NDArray[Any]] = dict(file)
        self.has_context = manifest.dimensions.context > 0
        self.reference.setdefault("context", np.zeros((len(self.reference["z"]), 0), np.float32))

    def encode(self, items: NDArray[np.int64], mask: Floats) -> _State:
        z, *rest = self.encoder.run(None, {"items": items, "mask": mask})
        return _State(z, rest[0] if self.has_context else np.zeros((len(items), 0), np.float32))

    def head(self, z: Floats, context: Floats) -> Floats:
        if self._head is None:
            return z
        q: Floats = self._head.run(
            ["q"], {"z": z, "context": context} if self.has_context else {"z": z}
        )[0]
        return q

    def scores(self, z: Floats, context: Floats) -> Floats:
        scores: Floats = self.head(z, context) @ self.items[:, :-1].T + self.items[:, -1]
        return scores

    def normalisation(self, z: Floats) -> Normalisation:
        return normalisation(self._scale_rule, self._scale_factor, z)


@torch.no_grad()
def _check_outputs(served: _ServedModel, contents: BundleContents) -> None:
    reference = served.reference
    _compare_states(
        "", served.encode(reference["items"], reference["mask"]), reference, slice(None)
    )
    neurons, activations = served.sae.run(["neurons", "activations"], {"z": reference["z"]})
    scale, shift = served.normalisation(reference["z"])
    read = np.linalg.norm((reference["z"] - shift) / scale, axis=1, keepdims=True)
    least = SMALLEST_ACTIVATION * read
    _compare("sae.onnx: activations", activations, reference["activations"], least)
    n_neurons = contents.dims.n_neurons
    # Activations that tie may come in another order, so codes are compared as vectors.
    found, expected = (
        _dense(neurons, activations, n_neurons),
        _dense(reference["neurons"], reference["activations"], n_neurons),
    )
    _compare("sae.onnx: code", found, expected, least)
    _compare("head.onnx: q", served.head(reference["z"], reference["context"]), reference["q"])
    sae, z = contents.sae, contents.references.z
    rebuilt = sae.scale(z) * (torch.from_numpy(expected) @ sae.W_dec + sae.b_dec) + sae.shift(z)
    decoded = scale * (expected @ served.decoder[:-1] + served.decoder[-1]) + shift
    _compare("decoder.npy: reconstruction", decoded, rebuilt.numpy())
    # What the service reads must also not depend on who else is in the batch, or on padding.
    longest = int(reference["mask"].sum(axis=1).argmax())
    length = int(reference["mask"][longest].sum())
    alone = served.encode(
        reference["items"][[longest], :length], reference["mask"][[longest], :length]
    )
    _compare_states(" of one history alone", alone, reference, slice(longest, longest + 1))
    empty = served.encode(np.zeros((1, 0), np.int64), np.zeros((1, 0), np.float32))
    _compare_states(" of the empty history", empty, reference, slice(1))


def _compare_states(
    of: str, found: _State, reference: dict[str, NDArray[Any]], rows: slice
) -> None:
    for name, values in found._asdict().items():
        _compare(f"encoder.onnx: {name}{of}", values, reference[name][rows])


def _check_recall(served: _ServedModel, manifest: BundleManifest) -> None:
    if served.index is None:
        return
    vectors = np.ascontiguousarray(served.items if served.has_bias else served.items[:, :-1])
    expected = {
        "queries": manifest.index.recall_plain,
        "steered_queries": manifest.index.recall_steered,
    }
    for name, recall in expected.items():
        queries = served.reference[name]
        if served.has_bias:
            queries = np.hstack([queries, np.ones((len(queries), 1), np.float32)])
        found = measure_recall(served.index, vectors, queries, served.over_fetch)
        if found < recall:
            raise ParityError(
                f"items.faiss: recall for {name} is {found}, {recall} was measured before writing"
            )


@torch.no_grad()
def _check_lists(served: _ServedModel, contents: BundleContents, steered: bool) -> None:
    reference = served.reference
    codes = random_code_edits(
        len(reference["z"]),
        contents.cards.activity.unit,
        contents.concepts,
        np.random.default_rng(1),
    ) * float(steered)
    z, context = as_stored(contents.references.z), as_stored(contents.references.context)
    edited = z + contents.sae.scale(z) * (codes @ contents.sae.W_dec)
    expected = (contents.recommender.head(edited, context) @ contents.V.T + contents.b).numpy()
    state = served.encode(reference["items"], reference["mask"])
    users, contexts = (as_stored(torch.from_numpy(part)).numpy() for part in state)
    moved = users + served.normalisation(users).scale * (codes.numpy() @ served.decoder[:-1])
    found = served.scores(moved.astype(np.float32), contexts)
    compare_lists("steered" if steered else "unsteered", found, expected, reference)


def compare_lists(
    kind: str, found: Floats, expected: Floats, reference: dict[str, NDArray[Any]]
) -> None:
    """Compares lists of unseen items by scores [users, n_items]; only near-equal scores may swap places.

    Raises:
        ParityError: an item of the found lists would not stand there by the expected scores.
    """
    if not (np.isfinite(found).all() and np.isfinite(expected).all()):
        raise ParityError(f"{kind} lists rest on scores that are not finite")
    rows = np.arange(len(found))[:, None]
    seen = reference["mask"] > 0
    for scores in (found, expected):
        users, positions = np.nonzero(seen)
        scores[users, reference["items"][users, positions]] = -np.inf
    available = int(np.isfinite(expected).sum(axis=1).min())
    length = min(LIST_LENGTH, available)
    listed = np.argsort(-found, axis=1, kind="stable")[:, :length]
    ideal = -np.sort(-expected, axis=1)[:, :length]
    gaps = np.abs(expected[rows, listed] - ideal)
    scale = np.abs(ideal).max(axis=1, keepdims=True)
    worst = float((gaps / np.maximum(scale, np.finfo(np.float32).tiny)).max(initial=0.0))
    if worst > SCORE_TOLERANCE:
        raise ParityError(
            f"{kind} lists differ from torch's: scores at the same rank are off by {worst:.1e}, "
            f"at most {SCORE_TOLERANCE:.0e} is allowed"
        )


def _compare(what: str, found: Floats, expected: Floats, least: Floats | float = 0.0) -> None:
    """Differences count relative to each row's largest value, or to least [rows, 1] if that is more."""
    if found.shape != expected.shape:
        raise ParityError(
            f"{what} has shape {list(found.shape)}, torch gave {list(expected.shape)}"
        )
    scale = np.abs(expected).max(axis=1, keepdims=True, initial=np.finfo(np.float32).tiny)
    scale = np.maximum(np.maximum(scale, least), 1e-6)
    error = float((np.abs(found - expected) / scale).max(initial=0.0))
    if not error <= RELATIVE_TOLERANCE:
        raise ParityError(
            f"{what} differs from torch by {error:.1e}, at most {RELATIVE_TOLERANCE:.0e} is allowed"
        )


def _dense(neurons: NDArray[np.int64], activations: Floats, n_neurons: int) -> Floats:
    codes = np.zeros((len(neurons), n_neurons), np.float32)
    # Silent entries may repeat a neuron, so values are added.
    np.add.at(codes, (np.arange(len(neurons))[:, None], neurons), activations)
    return codes
