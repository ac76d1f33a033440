"""A bundle that answers otherwise than torch does not pass, and the fault is named."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from exporters.errors import ParityError
from exporters.parity import SCORE_TOLERANCE, check_parity, compare_lists
from service.bundle.open import read_manifest

Arrays = dict[str, NDArray[Any]]


def test_what_was_written_passes(any_bundle: Path, any_contents: Any) -> None:
    check_parity(any_bundle, read_manifest(any_bundle), any_contents)


def _change_weights(path: Path, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    model = onnx.load(path)
    largest = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    array = numpy_helper.to_array(largest)
    largest.CopyFrom(numpy_helper.from_array(change(array).astype(array.dtype), largest.name))
    onnx.save(model, path)


def _drop_half_of_the_index(path: Path) -> None:
    items = np.load(path.parent / "items.npy")[:, :-1]
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(np.ascontiguousarray(items[:100]))
    faiss.write_index(index, str(path))


def _permute(path: Path) -> None:
    np.save(path, np.roll(np.load(path), 1, axis=0))


def _scale(path: Path, factor: float) -> None:
    np.save(path, np.load(path) * np.float32(factor))


@pytest.mark.parametrize(
    ("name", "damage", "fault"),
    [
        (
            "encoder.onnx",
            lambda path: _change_weights(path, lambda A: A * 1.001),
            r"encoder\.onnx: z differs",
        ),
        (
            "encoder.onnx",
            lambda path: _change_weights(path, lambda A: A[::-1]),
            r"encoder\.onnx: z differs",
        ),
        (
            "sae.onnx",
            lambda path: _change_weights(path, lambda W: W * 1.01),
            r"sae\.onnx: activations differ",
        ),
        (
            "sae.onnx",
            lambda path: _change_weights(path, lambda W: W[:, ::-1]),
            r"sae\.onnx: code differs",
        ),
        ("items.faiss", _drop_half_of_the_index, r"items\.faiss: recall for queries: expected"),
        ("items.npy", _permute, "recall|unsteered lists differ"),
        ("decoder.npy", lambda path: _scale(path, 0.5), r"decoder\.npy: reconstruction differs"),
    ],
)
def test_a_changed_file_is_found_and_named(
    indexed_path: Path,
    contents: Any,
    tmp_path: Path,
    name: str,
    damage: Callable[[Path], None],
    fault: str,
) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(indexed_path, out)
    damage(out / name)
    with pytest.raises(ParityError, match=fault):
        check_parity(out, read_manifest(out), contents)


def _nothing_seen(users: int) -> Arrays:
    return {"items": np.zeros((users, 1), np.int64), "mask": np.zeros((users, 1), np.float32)}


def test_items_whose_scores_nearly_tie_may_swap_places() -> None:
    expected = np.array([[1.0, 0.9999, 0.5, 0.1]], np.float32)
    compare_lists("test", expected[:, [1, 0, 2, 3]].copy(), expected, _nothing_seen(1))


def test_items_whose_scores_differ_may_not_swap_places() -> None:
    expected = np.array([[1.0, 1.0 - 3 * SCORE_TOLERANCE, 0.5, 0.1]], np.float32)
    with pytest.raises(ParityError, match="test lists differ"):
        compare_lists("test", expected[:, [1, 0, 2, 3]].copy(), expected, _nothing_seen(1))


def test_scores_that_are_no_numbers_do_not_pass() -> None:
    expected = np.array([[1.0, 0.7, 0.5, 0.1]], np.float32)
    with pytest.raises(ParityError, match="not finite"):
        compare_lists("test", expected * np.nan, expected.copy(), _nothing_seen(1))
    with pytest.raises(ParityError, match="not finite"):
        compare_lists("test", expected.copy(), expected * np.nan, _nothing_seen(1))


def test_seen_items_are_left_out_of_the_comparison() -> None:
    expected = np.array([[1.0, 0.7, 0.5, 0.1]], np.float32)
    found = expected.copy()
    found[0, 2] = 99.0
    reference = {"items": np.array([[2, 0]]), "mask": np.array([[1.0, 0.0]], np.float32)}
    compare_lists("test", found, expected.copy(), reference)
    with pytest.raises(ParityError):
        compare_lists("test", found, expected.copy(), _nothing_seen(1))


def test_reference_npz_is_written_without_times(bundle_path: Path) -> None:
    content = (bundle_path / "reference.npz").read_bytes()
    with np.load(io.BytesIO(content)) as file:
        assert {one.date_time for one in file.zip.infolist()} == {(1980, 1, 1, 0, 0, 0)}
