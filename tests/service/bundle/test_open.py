"""Bundles that are incomplete, altered, unknown or unlike torch are refused by their fault."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from trimtab import manifest as sealing
from trimtab.v1.bundle_pb2 import BundleManifest, IndexInfo

from exporters.choose_index import IndexOptions
from exporters.contents import Gains
from exporters.publish import write_bundle
from service.bundle.bundle import Bundle, BundleError
from service.bundle.open import open_bundle
from service.bundle.replay import recall
from tests.support.bundle_factory import MakeBundle, make_contents
from tests.support.variants import MakeVariant


@pytest.fixture
def copy(bundle_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_dir, tmp_path / "copy"))


@pytest.fixture(scope="module")
def indexed_dir(make_bundle: MakeBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a bundle whose approximate index needs an over-fetch of two."""
    index = IndexOptions(flat_limit=0, kinds=("pq4",))
    return make_bundle(tmp_path_factory.mktemp("indexed") / "bundle", index=index, n_items=800)


@pytest.fixture
def indexed_copy(indexed_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(indexed_dir, tmp_path / "indexed"))


@pytest.fixture
def gained_copy(tmp_path: Path) -> Path:
    """Makes a bundle with gains."""
    contents = make_contents()
    values = np.full((len(contents.concepts), 200), 0.5, np.float32)
    write_bundle(replace(contents, gains=Gains("ridge", values)), tmp_path / "gained")
    return tmp_path / "gained"


@pytest.fixture
def context_copy(variant: MakeVariant, tmp_path: Path) -> Path:
    return Path(shutil.copytree(variant("context").path, tmp_path / "context"))


def reseal(directory: Path, change: Callable[[BundleManifest], None] = lambda _: None) -> None:
    """Rewrites the manifest as a faulty exporter would: right digests and seal, wrong content."""
    path = directory / sealing.MANIFEST_NAME
    manifest = sealing.from_json(path.read_text())
    for file in manifest.files:
        file.sha256 = sealing.file_digest(directory / file.name)
        file.size_bytes = (directory / file.name).stat().st_size
    manifest.bundle_id = sealing.content_id(manifest.files)
    change(manifest)
    path.write_text(sealing.to_json(manifest))


def test_a_whole_bundle_opens(bundle: Bundle, head_bundle: Bundle) -> None:
    assert len(bundle.catalogue) == bundle.manifest.dimensions.n_items
    assert head_bundle.encoder.has_head
    assert head_bundle.manifest.dimensions.has_bias


def test_a_directory_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no readable manifest\.json"):
        open_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name",
    [
        "encoder.onnx",
        "sae.onnx",
        "decoder.npy",
        "items.npy",
        "items.parquet",
        "neurons.parquet",
        "concepts.parquet",
        "reference.npz",
    ],
)
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        open_bundle(copy)


def test_a_missing_index_is_named(indexed_copy: Path) -> None:
    (indexed_copy / "items.faiss").unlink()
    with pytest.raises(BundleError, match=r"items\.faiss is missing"):
        open_bundle(indexed_copy)


@pytest.mark.parametrize("name", ["encoder.onnx", "items.npy", "concepts.parquet"])
def test_a_flipped_byte_is_named(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} was altered"):
        open_bundle(copy)


def test_a_truncated_file_is_named(copy: Path) -> None:
    data = (copy / "decoder.npy").read_bytes()
    (copy / "decoder.npy").write_bytes(data[:-7])
    with pytest.raises(BundleError, match=r"decoder\.npy: expected [\d,]+ bytes, found [\d,]+"):
        open_bundle(copy)


def test_a_future_format_version_is_refused(copy: Path) -> None:
    path = copy / sealing.MANIFEST_NAME
    fields = json.loads(path.read_text()) | {"format_version": 99, "a_field_of_the_future": 1}
    path.write_text(json.dumps(fields))
    with pytest.raises(BundleError, match="format version: expected 1, found 99"):
        open_bundle(copy)


@pytest.mark.parametrize(
    ("field", "value"), [("scale_factor", 2.0), ("label_set", "x"), ("opset", 3)]
)
def test_an_edited_manifest_is_refused(copy: Path, field: str, value: object) -> None:
    path = copy / sealing.MANIFEST_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(BundleError, match="edited after it was written"):
        open_bundle(copy)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format_version": "1"}', "\x00\xff"])
def test_a_manifest_that_is_none_is_refused(copy: Path, text: str) -> None:
    (copy / sealing.MANIFEST_NAME).write_text(text, encoding="latin-1")
    with pytest.raises(BundleError):
        open_bundle(copy)


def test_a_model_that_differs_from_its_reference_is_refused(copy: Path) -> None:
    with np.load(copy / "reference.npz") as archive:
        reference = dict(archive)
    reference["z"] = reference["z"] * 1.001
    np.savez(copy / "reference.npz", **reference)
    reseal(copy)
    with pytest.raises(BundleError, match=r"encoder\.onnx differs from its reference"):
        open_bundle(copy)


def _edit_reference(copy: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    with np.load(copy / "reference.npz") as archive:
        reference = dict(archive)
    change(reference)
    np.savez(copy / "reference.npz", **reference)
    reseal(copy)


def _scale_context(reference: dict[str, np.ndarray]) -> None:
    reference["context"][5, 3] += 0.1


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (_scale_context, r"encoder\.onnx's context differs from its reference by 1\.00e-01"),
        (lambda reference: reference.pop("context"), r"reference\.npz cannot be replayed"),
    ],
)
def test_an_edited_context_is_refused(
    context_copy: Path, change: Callable[[dict[str, np.ndarray]], None], fault: str
) -> None:
    _edit_reference(context_copy, change)
    with pytest.raises(BundleError, match=fault):
        open_bundle(context_copy)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"context": 0}, r"the outputs of encoder\.onnx: expected z, found z, context"),
        ({"context": 7}, r"encoder\.onnx's context: expected shape \(7,\) .*, found \(198,\)"),
        ({"has_head": False}, "expected a head that reads the context of width 198"),
    ],
)
def test_a_context_size_that_does_not_fit_is_refused(
    context_copy: Path, change: dict[str, int], fault: str
) -> None:
    def resize(manifest: BundleManifest) -> None:
        for name, value in change.items():
            setattr(manifest.dimensions, name, value)

    reseal(context_copy, resize)
    with pytest.raises(BundleError, match=fault):
        open_bundle(context_copy)


def test_an_unknown_scale_rule_is_refused(copy: Path) -> None:
    def change(manifest: BundleManifest) -> None:
        setattr(manifest, "scale_rule", 9)  # noqa: B010  no value of the enum

    reseal(copy, change)
    with pytest.raises(BundleError, match="scale rule 9 is not known"):
        open_bundle(copy)


def test_an_index_is_asked_for_as_many_items_as_its_scores_need(indexed_dir: Path) -> None:
    bundle = open_bundle(indexed_dir)
    assert bundle.manifest.index.kind == "pq4"
    assert bundle.index.over_fetch == bundle.manifest.index.over_fetch >= 2.0
    with np.load(indexed_dir / "reference.npz") as reference:
        measured = recall(bundle.index, bundle.items, reference["steered_queries"])
    assert measured == pytest.approx(bundle.manifest.index.recall_steered, abs=2e-4)


def test_a_bundle_of_an_earlier_exporter_opens(copy: Path, bundle: Bundle) -> None:
    """Opens one with a FAISS file for an exact index and without an over-fetch."""
    index = faiss.IndexFlatIP(bundle.manifest.dimensions.p)
    index.add(np.ascontiguousarray(bundle.items[:, :-1]))
    faiss.write_index(index, str(copy / "items.faiss"))
    for kind in ("flat", "hnsw"):

        def earlier(manifest: BundleManifest, kind: str = kind) -> None:
            if len(manifest.files) == len(bundle.manifest.files):
                manifest.files.add(
                    name="items.faiss", sha256=sealing.file_digest(copy / "items.faiss")
                )
                manifest.files[-1].size_bytes = (copy / "items.faiss").stat().st_size
            manifest.bundle_id = sealing.content_id(manifest.files)
            manifest.index.CopyFrom(IndexInfo(kind=kind, recall_plain=1.0, recall_steered=1.0))

        reseal(copy, earlier)
        opened = open_bundle(copy)
        assert opened.index.over_fetch == 1.0
        assert opened.index.n_items == len(bundle.items)


def test_an_index_of_other_vectors_is_refused(indexed_copy: Path) -> None:
    items = np.load(indexed_copy / "items.npy")
    index = faiss.IndexFlatIP(items.shape[1] - 1)
    index.add(np.ascontiguousarray(items[::-1, :-1]))
    faiss.write_index(index, str(indexed_copy / "items.faiss"))
    reseal(indexed_copy)
    with pytest.raises(BundleError, match=r"items\.faiss: expected a recall"):
        open_bundle(indexed_copy)


def test_shapes_that_do_not_fit_the_dimensions_are_refused(copy: Path) -> None:
    items = np.load(copy / "items.npy")
    np.save(copy / "items.npy", items[:-1])
    reseal(copy)
    with pytest.raises(BundleError, match=r"items\.npy: expected shape"):
        open_bundle(copy)


def test_gains_that_are_missing_or_do_not_fit_are_refused(gained_copy: Path) -> None:
    gains = np.load(gained_copy / "gains.npy")
    assert open_bundle(gained_copy).gains
    for wrong, fault in (
        (gains[:-1], "gains.npy: expected 6 rows of float16, found 5 of float16"),
        (gains.astype(np.float32), "gains.npy: expected 6 rows of float16, found 6 of float32"),
        (gains[:, :-1], r"gains.npy's row of \w+: expected shape \(200,\) .*, found \(199,\)"),
    ):
        np.save(gained_copy / "gains.npy", wrong)
        reseal(gained_copy)
        with pytest.raises(BundleError, match=fault):
            open_bundle(gained_copy)
    (gained_copy / "gains.npy").unlink()
    with pytest.raises(BundleError, match=r"gains\.npy is missing"):
        open_bundle(gained_copy)


def test_a_file_name_that_leaves_the_bundle_is_refused(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"x")

    def leave(manifest: BundleManifest) -> None:
        manifest.files.add(
            name="../outside", sha256=sealing.file_digest(tmp_path / "outside"), size_bytes=1
        )
        manifest.bundle_id = sealing.content_id(manifest.files)

    reseal(copy, leave)
    with pytest.raises(BundleError, match="outside is missing"):
        open_bundle(copy)


def test_recall_counts_what_the_index_finds(bundle: Bundle) -> None:
    queries = (
        np.random.default_rng(0).normal(size=(8, bundle.manifest.dimensions.p)).astype(np.float32)
    )
    assert recall(bundle.index, bundle.items, queries) == 1.0
