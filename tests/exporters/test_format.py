"""Every file of the bundle format, as docs/bundle.md has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trimtab.manifest import combined_digest, from_json
from trimtab.v1.bundle_pb2 import AttributeKind, BundleManifest, ScaleRule

from exporters.choose_index import IndexOptions
from exporters.contents import BundleContents
from exporters.graphs import session
from exporters.publish import write_bundle
from tests.support.bundle_factory import make_world


@pytest.fixture
def manifest(any_bundle: Path) -> BundleManifest:
    return from_json((any_bundle / "manifest.json").read_text())


def test_the_manifest_lists_every_other_file_and_no_more(
    any_bundle: Path, manifest: BundleManifest
) -> None:
    found = {path.name for path in any_bundle.iterdir()}
    assert found == {file.name for file in manifest.files} | {"manifest.json"}
    assert ("head.onnx" in found) == manifest.dimensions.has_head
    assert {"encoder.onnx", "sae.onnx", "decoder.npy", "items.npy"} < found
    assert ("items.faiss" in found) == (manifest.index.kind != "flat")
    assert {"items.parquet", "neurons.parquet", "concepts.parquet", "reference.npz"} < found


def test_the_manifest_is_filled(any_contents: Any, manifest: BundleManifest) -> None:
    unset = {field.name for field in BundleManifest.DESCRIPTOR.fields} - {
        field.name for field, _ in manifest.ListFields()
    }
    assert unset == {"gains"}  # which these bundles have none of
    dims = manifest.dimensions
    assert (dims.n_items, dims.d, dims.n_neurons, dims.k) == (200, 32, 128, any_contents.sae.k)
    assert dims.context == any_contents.recommender.context_size
    assert dims.p == (48 if dims.has_head and not dims.context else 32)
    assert dims.has_head == any_contents.recommender.has_head
    assert dims.has_bias == bool((any_contents.b != 0).any())
    standard = any_contents.sae.scale_rule == "standard"
    rules = ScaleRule.SCALE_RULE_UNIT_NORM, ScaleRule.SCALE_RULE_STANDARD
    assert manifest.scale_rule == rules[standard]
    assert manifest.scale_factor == (2.5 if standard else 1.0)
    assert manifest.index.kind == "flat"
    assert manifest.index.recall_plain == manifest.index.recall_steered == 1.0
    assert [(one.name, one.kind) for one in manifest.attributes] == [
        ("genres", AttributeKind.ATTRIBUTE_KIND_TAGS),
        ("year", AttributeKind.ATTRIBUTE_KIND_NUMBER),
        ("studio", AttributeKind.ATTRIBUTE_KIND_TEXT),
    ]


def test_the_ids_are_digests_of_the_files_that_they_stand_for(manifest: BundleManifest) -> None:
    labels = combined_digest(manifest.files, "concepts.parquet", "neurons.parquet")
    assert manifest.label_set == labels[:12]
    assert manifest.model_id == combined_digest(manifest.files, "encoder.onnx", "sae.onnx")


def test_the_mean_user_is_the_mean_of_the_training_users(contents: BundleContents) -> None:
    world = make_world()
    expected = world.recommender.activate(*world.train.padded()).z.mean(dim=0).detach().numpy()
    np.testing.assert_allclose(contents.mean_user, expected, rtol=1e-5, atol=1e-6)


def test_arrays_hold_the_models_parts(
    any_bundle: Path, any_contents: Any, manifest: BundleManifest
) -> None:
    decoder = np.load(any_bundle / "decoder.npy")
    items = np.load(any_bundle / "items.npy")
    dims = manifest.dimensions
    assert decoder.dtype == items.dtype == np.dtype("<f4")
    assert decoder.shape == (dims.n_neurons + 1, dims.d)
    assert items.shape == (dims.n_items, dims.p + 1)
    np.testing.assert_array_equal(decoder[:-1], any_contents.sae.W_dec.detach())
    np.testing.assert_array_equal(decoder[-1], any_contents.sae.b_dec.detach())
    np.testing.assert_allclose(np.linalg.norm(decoder[:-1], axis=1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(items[:, :-1], any_contents.V)
    np.testing.assert_array_equal(items[:, -1], any_contents.b)
    shapes = {file.name: tuple(file.shape) for file in manifest.files if file.shape}
    assert shapes == {"decoder.npy": decoder.shape, "items.npy": items.shape}


def test_the_index_takes_the_bias_as_a_column_only_if_there_is_one_and_is_of_even_width(
    any_contents: Any, tmp_path: Path
) -> None:
    manifest = write_bundle(
        any_contents, tmp_path / "out", index=IndexOptions(flat_limit=0, kinds=("sq8",))
    )
    index = faiss.read_index(str(tmp_path / "out" / "items.faiss"))
    width = manifest.dimensions.p + manifest.dimensions.has_bias
    assert index.d == width + width % 2
    items = np.load(tmp_path / "out" / "items.npy")
    queries = np.load(tmp_path / "out" / "reference.npz")["steered_queries"]
    padded = np.zeros((len(queries), index.d), np.float32)
    padded[:, : manifest.dimensions.p] = queries
    padded[:, manifest.dimensions.p :] = 1.0
    exact = -np.sort(-(queries @ items[:, :-1].T + items[:, -1]), axis=1)[:, :20]
    scores, _ = index.search(padded, 20)
    np.testing.assert_allclose(scores, exact, atol=0.02 * np.abs(exact).max())


def test_graphs_have_the_names_and_types_that_the_format_states(
    any_bundle: Path, manifest: BundleManifest
) -> None:
    found = {}
    for name in ("encoder", "sae", "head"):
        if (any_bundle / f"{name}.onnx").exists():
            graph = session(str(any_bundle / f"{name}.onnx"))
            found[name] = [
                (one.name, one.type) for one in [*graph.get_inputs(), *graph.get_outputs()]
            ]
    floats = "tensor(float)"
    integers = "tensor(int64)"
    expected = {
        "encoder": [("items", integers), ("mask", floats), ("z", floats)],
        "sae": [("z", floats), ("neurons", integers), ("activations", floats)],
    }
    context = [("context", floats)] if manifest.dimensions.context else []
    expected["encoder"] += context
    if manifest.dimensions.has_head:
        expected["head"] = [("z", floats), *context, ("q", floats)]
    assert found == expected


def test_item_rows_keep_nulls_and_order(any_bundle: Path) -> None:
    table = pq.read_table(any_bundle / "items.parquet")
    assert table.schema.equals(
        pa.schema(
            [
                ("item_id", pa.string()),
                ("title", pa.string()),
                ("popularity", pa.int64()),
                ("genres", pa.list_(pa.string())),
                ("year", pa.float64()),
                ("studio", pa.string()),
            ]
        )
    )
    rows = table.to_pylist()
    assert [row["item_id"] for row in rows] == [f"item-{item}" for item in range(200)]
    assert [rows[-1][name] for name in ("title", "genres", "year", "studio")] == [None] * 4
    assert any(row["studio"] is None for row in rows[:-1])
    assert rows[0]["genres"]


def test_neuron_rows_have_the_columns_of_the_format(any_bundle: Path) -> None:
    table = pq.read_table(any_bundle / "neurons.parquet")
    items = pa.list_(pa.struct([("item", pa.int32()), ("value", pa.float32())]))
    texts = [(name, pa.string()) for name in ("text", "method", "provenance")]
    label = pa.struct([*texts[:2], ("score", pa.float32()), texts[2]])
    assert table.schema.equals(
        pa.schema(
            [
                ("labels", pa.list_(label)),
                ("density", pa.float32()),
                ("unit", pa.float32()),
                ("dead", pa.bool_()),
                ("quantiles", pa.list_(pa.float32())),
                ("histogram", pa.list_(pa.int32())),
                ("top_items", items),
                ("raised_items", items),
                ("lowered_items", items),
                (
                    "nearest",
                    pa.list_(pa.struct([("neuron", pa.int32()), ("cosine", pa.float32())])),
                ),
                ("monosemanticity", pa.float32()),
                ("entropy", pa.float32()),
            ]
        )
    )
    rows = table.to_pylist()
    assert len(rows) == 128
    assert {len(row["quantiles"]) for row in rows} == {6}
    assert {len(row["histogram"]) for row in rows} == {20}
    assert {len(row["nearest"]) for row in rows} == {8}
    assert all(row["unit"] > 0 for row in rows)
    assert rows[6]["labels"] == []
    scores = [label["score"] for label in rows[0]["labels"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 2


def test_concept_rows_hold_what_was_fitted(any_bundle: Path, any_contents: Any) -> None:
    rows = pq.read_table(any_bundle / "concepts.parquet").to_pylist()
    assert [row["name"] for row in rows] == [concept.name for concept in any_contents.concepts]
    for row, concept in zip(rows, any_contents.concepts, strict=True):
        np.testing.assert_array_equal(np.array(row["weights"], np.float32), concept.weights)
        assert row["blend_neurons"] == concept.blend_neurons
        assert row["unit"] == pytest.approx(concept.unit, rel=1e-6)
        assert row["steered_share"] > row["unsteered_share"]


def test_references_are_64_histories_with_the_empty_one_first_and_256_queries_of_each_kind(
    any_bundle: Path, manifest: BundleManifest
) -> None:
    dims = manifest.dimensions
    with np.load(any_bundle / "reference.npz") as file:
        reference = dict(file)
    length = reference["items"].shape[1]
    context = {"context": (64, dims.context)} if dims.context else {}
    assert length <= manifest.history.max_length
    assert {name: array.shape for name, array in reference.items()} == {
        "items": (64, length),
        "mask": (64, length),
        "z": (64, dims.d),
        **context,
        "neurons": (64, dims.k),
        "activations": (64, dims.k),
        "q": (64, dims.p),
        "queries": (256, dims.p),
        "steered_queries": (256, dims.p),
    }
    assert reference["mask"][0].sum() == 0
    assert (reference["mask"][1:].sum(axis=1) >= 1).all()
    assert reference["items"].dtype == reference["neurons"].dtype == np.int64
    moved = np.linalg.norm(reference["steered_queries"] - reference["queries"], axis=1)
    assert (moved > 0).all()
