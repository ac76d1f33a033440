"""Replays a bundle's reference inputs and compares with what torch gave."""

from pathlib import Path

import numpy as np

from service.arrays import AnyArray, Floats
from service.bundle.bundle import Bundle, BundleError
from service.ranking.order import score
from service.retrieval.exact_index import ExactIndex

REPLAY_TOLERANCE = 1e-4
"""How far onnxruntime here may be from torch there, relative to the largest value of each output."""


SMALLEST_ACTIVATION = 0.02
"""Activations below this share of the norm of what the SAE reads are differences of larger numbers,
and carry the rounding of those: they are judged relative to this share."""


RECALL_DEPTH = 100


def _replay(directory: Path, bundle: Bundle) -> None:
    """Runs the references and compares with what torch gave."""
    try:
        with np.load(directory / "reference.npz", allow_pickle=False) as archive:
            reference = dict(archive)
        state = bundle.encoder.embed(reference["items"], reference["mask"])
        context = reference.get("context", np.empty((len(state.context), 0), np.float32))
        code = bundle.encoder.code(reference["z"])
        q = bundle.encoder.head(reference["z"], context)
        _compare(directory, "encoder.onnx", state.z, reference["z"])
        _compare(directory, "encoder.onnx's context", state.context, context)
        n_neurons = bundle.labels.n_neurons
        _compare(
            directory,
            "sae.onnx",
            _dense(*code, n_neurons),
            _dense(reference["neurons"], reference["activations"], n_neurons),
            SMALLEST_ACTIVATION * max(_norm_read(bundle, z) for z in reference["z"]),
        )
        _compare(directory, "head.onnx", q, reference["q"])
        info = bundle.manifest.index
        for kind, queries, expected in (
            ("plain", reference["queries"], info.recall_plain),
            ("steered", reference["steered_queries"], info.recall_steered),
        ):
            if (found := recall(bundle, queries)) < expected - 1e-6:
                raise BundleError(
                    f"{directory}: items.faiss recalls {found:.4f} of {kind} queries, {expected:.4f} expected"
                )
    except BundleError:
        raise
    except Exception as error:
        raise BundleError(f"{directory}: reference.npz cannot be replayed: {error}") from error


def recall(bundle: Bundle, queries: Floats) -> float:
    """Share of the exact 100 best items (by score) that the index finds for queries [m, p], over-fetched."""
    depth = min(RECALL_DEPTH, len(bundle.items))
    found = bundle.index.search(queries, int(np.ceil(depth * bundle.index.over_fetch)))
    best = ExactIndex(bundle.items).search(queries, depth)
    hits = []
    for items, exact, query in zip(found, best, queries, strict=True):
        cut = score(bundle.items, exact[-1:], query)
        # Items that tie with the last one count as found: which of them comes is not the index's
        # fault.
        reached = score(bundle.items, items[items >= 0], query) >= cut - 1e-5 * np.abs(cut)
        hits.append(min(int(reached.sum()), depth) / depth)
    return float(np.mean(hits))


def _norm_read(bundle: Bundle, z: Floats) -> float:
    """The norm of what the SAE makes of z [d] before it encodes it."""
    return float(np.linalg.norm(z - bundle.shift(z))) / bundle.scale(z)


def _compare(
    directory: Path, name: str, found: AnyArray, expected: AnyArray, least: float = 0.0
) -> None:
    """Differences count relative to the largest value, or to least if that is more."""
    if found.shape != expected.shape:
        raise BundleError(
            f"{directory}: {name} gives shape {found.shape}, its reference has {expected.shape}"
        )
    largest = float(np.abs(expected).max(initial=least))
    difference = float(np.abs(found - expected).max(initial=0.0))
    if not difference <= REPLAY_TOLERANCE * max(largest, 1e-6):
        raise BundleError(
            f"{directory}: {name} differs from its reference by {difference:.2e} (largest value"
            f" {largest:.2e}, tolerance {REPLAY_TOLERANCE:g} relative)"
        )


def _dense(neurons: AnyArray, activations: AnyArray, n_neurons: int) -> Floats:
    code = np.zeros((len(neurons), n_neurons), np.float32)
    # Entries that mean "none" may repeat a neuron, so values are added.
    np.add.at(code, (np.arange(len(neurons))[:, None], neurons), activations)
    return code
