"""Replays a bundle's reference inputs and compares the results with torch's."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from service.arrays import AnyArray, Floats, Ints
from service.bundle.bundle import Bundle, BundleError
from service.ranking.order import score
from service.retrieval.exact_index import ExactIndex
from service.retrieval.protocol import Index

REPLAY_TOLERANCE = 1e-4
"""Largest difference between onnxruntime here and torch there, relative to the largest value of
each output: far above what kernels round differently, far below what a wrong graph gives."""


SMALLEST_ACTIVATION = 0.02
"""Share of the norm of what the SAE reads. Activations below it are differences of larger numbers
and carry the rounding of those, so they are judged relative to this share."""


RECALL_DEPTH = 100
"""Number of best items whose recall is measured."""


RECALL_ROUNDING = 1e-6
"""Difference to the recall in the manifest that is rounding."""


TIE_TOLERANCE = 1e-5
"""Relative difference of scores that count as tied: which of tied items is found is chance."""


def replay(directory: Path, bundle: Bundle) -> None:
    """Runs the reference inputs through a bundle's graphs and index.

    Raises:
        BundleError: a result differs from what torch computed, or the index finds too little.
    """
    try:
        with np.load(directory / "reference.npz", allow_pickle=False) as archive:
            reference = dict(archive)
        _check_graphs(directory, bundle, reference)
        _check_index(directory, bundle, reference)
    except BundleError:
        raise
    except Exception as error:
        raise BundleError(f"{directory}: reference.npz cannot be replayed: {error}") from error


def _check_graphs(directory: Path, bundle: Bundle, reference: dict[str, Any]) -> None:
    encoder = bundle.encoder
    z = reference["z"]
    state = encoder.embed(reference["items"], reference["mask"])
    context = reference.get("context", np.empty((len(state.context), 0), np.float32))
    code = encoder.code(z)
    queries = encoder.head(z, context)
    _compare(directory, "encoder.onnx", state.z, z)
    _compare(directory, "encoder.onnx's context", state.context, context)
    n_neurons = bundle.labels.n_neurons
    _compare(
        directory,
        "sae.onnx",
        dense_codes(code.neurons, code.activations, n_neurons),
        dense_codes(reference["neurons"], reference["activations"], n_neurons),
        least=SMALLEST_ACTIVATION * max(_norm_read(bundle, row) for row in z),
    )
    _compare(directory, "head.onnx", queries, reference["q"])


def _check_index(directory: Path, bundle: Bundle, reference: dict[str, Any]) -> None:
    info = bundle.manifest.index
    for kind, queries, expected in (
        ("plain", reference["queries"], info.recall_plain),
        ("steered", reference["steered_queries"], info.recall_steered),
    ):
        measured = recall(bundle.index, bundle.items, queries)
        if measured < expected - RECALL_ROUNDING:
            raise BundleError(
                f"{directory}: items.faiss: expected a recall of {expected:.4f} for {kind} queries,"
                f" found {measured:.4f}"
            )


def recall(index: Index, items: Floats, queries: Floats) -> float:
    """Measures the share of the exact best 100 items that an index finds, over-fetching.

    Args:
        index: The index.
        items: [V | b], float32 [n_items, p + 1].
        queries: float32 [m, p].
    """
    depth = min(RECALL_DEPTH, len(items))
    candidates = index.search(queries, int(np.ceil(depth * index.over_fetch)))
    best = ExactIndex(items).search(queries, depth)
    return float(np.mean(shares_of_best(items, queries, candidates, best)))


def shares_of_best(
    items: Floats, queries: Floats, candidates: Iterable[Ints], best: Ints
) -> list[float]:
    """Measures, for each query, the share of its best items that are among the candidates.

    Candidates that score as high as the last of the best count as well: ties have no order.

    Args:
        items: [V | b], float32 [n_items, p + 1].
        queries: float32 [m, p].
        candidates: Item indices for each query; -1 for none.
        best: The exact best items of each query, best first: int64 [m, depth].
    """
    depth = best.shape[1]
    shares = []
    for row, exact, query in zip(candidates, best, queries, strict=True):
        last = score(items, exact[-1:], query)
        reached = score(items, row[row >= 0], query) >= last - TIE_TOLERANCE * np.abs(last)
        shares.append(min(int(reached.sum()), depth) / depth)
    return shares


def dense_codes(neurons: AnyArray, activations: AnyArray, n_neurons: int) -> Floats:
    """Writes codes [batch, k] as vectors: float32 [batch, n_neurons].

    Tied activations may come in any order, so codes are compared as vectors.
    """
    codes = np.zeros((len(neurons), n_neurons), np.float32)
    # Entries that mean no neuron may repeat one, so values are added.
    np.add.at(codes, (np.arange(len(neurons))[:, None], neurons), activations)
    return codes


def _norm_read(bundle: Bundle, z: Floats) -> float:
    """Computes the norm of what the SAE reads of z [d]."""
    return float(np.linalg.norm(z - bundle.shift(z))) / bundle.scale(z)


def _compare(
    directory: Path, name: str, found: AnyArray, expected: AnyArray, least: float = 0.0
) -> None:
    """Compares an output with its reference, relative to the largest value, or to least if larger.

    Raises:
        BundleError: shapes or values differ.
    """
    if found.shape != expected.shape:
        raise BundleError(
            f"{directory}: {name}: expected shape {expected.shape} as its reference,"
            f" found {found.shape}"
        )
    largest = float(np.abs(expected).max(initial=least))
    difference = float(np.abs(found - expected).max(initial=0.0))
    if not difference <= REPLAY_TOLERANCE * max(largest, 1e-6):
        raise BundleError(
            f"{directory}: {name} differs from its reference by {difference:.2e} (largest value"
            f" {largest:.2e}, tolerance {REPLAY_TOLERANCE:g} relative)"
        )
