"""Opens bundles and checks their files: a faulty bundle is refused before it is served."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from trimtab.manifest import FLAT, MANIFEST_NAME, ManifestError, content_id, file_digest, from_json
from trimtab.v1.bundle_pb2 import BundleManifest

from service.arrays import AnyArray, Floats
from service.bundle.bundle import Bundle, BundleError
from service.bundle.catalogue import Catalogue
from service.bundle.label_set import LabelSet
from service.bundle.normalisation import SCALE_RULES
from service.bundle.onnx_encoder import OnnxEncoder, pad
from service.bundle.precision import Precision
from service.bundle.replay import replay
from service.retrieval.exact_index import ExactIndex
from service.retrieval.faiss_index import FaissIndex
from service.retrieval.protocol import Index

REQUIRED_FILES = frozenset(
    {
        "encoder.onnx",
        "sae.onnx",
        "decoder.npy",
        "items.npy",
        "items.parquet",
        "neurons.parquet",
        "concepts.parquet",
        "reference.npz",
    }
)
"""Files that every bundle has."""


def open_bundle(directory: Path, precision: Precision = Precision.FLOAT16) -> Bundle:
    """Opens and checks a bundle.

    Args:
        directory: The bundle's.
        precision: The precision that user states are rounded to.

    Raises:
        BundleError: names the first fault.
    """
    manifest = read_manifest(directory)
    check_files(directory, manifest)
    try:
        bundle = _assemble(directory, manifest, precision)
    except Exception as error:  # onnxruntime, pyarrow and faiss each have a tree of their own
        raise BundleError(f"{directory}: cannot be opened: {error}") from error
    _check_shapes(directory, bundle)
    replay(directory, bundle)
    return bundle


def read_manifest(directory: Path) -> BundleManifest:
    """Reads a bundle's manifest and checks its seal.

    Raises:
        BundleError: it is missing, altered, or of another format version.
    """
    try:
        return from_json((directory / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{directory}: no readable {MANIFEST_NAME}: {error}") from error
    except ManifestError as error:
        raise BundleError(f"{directory}: {error}") from error


def check_files(directory: Path, manifest: BundleManifest) -> None:
    """Checks that every file that a bundle needs is listed, and every listed one as it was written.

    Raises:
        BundleError: names the first file that is not listed, missing or altered.
    """
    listed = {file.name for file in manifest.files}
    if unlisted := sorted(needed_files(manifest) - listed):
        raise BundleError(f"{directory}: the manifest does not list {', '.join(unlisted)}")
    for file in manifest.files:
        path = directory / file.name
        if path.name != file.name or not path.is_file():
            raise BundleError(f"{directory}: {file.name} is missing")
        size = path.stat().st_size
        if size != file.size_bytes:
            raise BundleError(
                f"{directory}: {file.name}: expected {file.size_bytes:,} bytes, found {size:,}"
            )
        if file_digest(path) != file.sha256:
            raise BundleError(
                f"{directory}: {file.name} was altered: its SHA-256 is not the manifest's"
            )
    if content_id(manifest.files) != manifest.bundle_id:
        raise BundleError(f"{directory}: the bundle id does not fit the files")


def needed_files(manifest: BundleManifest) -> set[str]:
    """Names the files that a bundle with this manifest must have, but for the manifest."""
    names = set(REQUIRED_FILES)
    if manifest.dimensions.has_head:
        names.add("head.onnx")
    if manifest.index.kind != FLAT:
        names.add("items.faiss")
    if manifest.gains:
        names.add("gains.npy")
    return names


def open_encoder(
    directory: Path, manifest: BundleManifest, precision: Precision = Precision.FLOAT16
) -> OnnxEncoder:
    """Opens a bundle's model alone.

    Raises:
        ValueError: its graphs do not fit the manifest; onnxruntime's own errors pass.
    """
    dims = manifest.dimensions
    if dims.context and not dims.has_head:
        raise ValueError(f"expected a head that reads the context of width {dims.context}")
    return OnnxEncoder(directory, dims.has_head, dims.context, precision)


def open_items(directory: Path) -> Floats:
    """Opens [V | b], float32 [n_items, p + 1], memory-mapped."""
    # No np.memmap, whose rows are slow to take; the memory stays mapped.
    return np.asarray(np.load(directory / "items.npy", mmap_mode="r"))


def open_index(directory: Path, manifest: BundleManifest, items: Floats) -> Index:
    """Opens the index over the items [V | b]: float32 [n_items, p + 1]."""
    if manifest.index.kind == FLAT:
        return ExactIndex(items)
    return FaissIndex.read(directory / "items.faiss", manifest.index.over_fetch)


def _assemble(directory: Path, manifest: BundleManifest, precision: Precision) -> Bundle:
    if manifest.scale_rule not in SCALE_RULES:
        raise ValueError(f"scale rule {manifest.scale_rule} is not known")
    encoder = open_encoder(directory, manifest, precision)
    empty = encoder.embed(*pad([np.empty(0, np.int64)]))
    (mean_user,) = encoder.states(np.array([manifest.mean_user], np.float32), empty.context)
    items = open_items(directory)
    attributes = [attribute.name for attribute in manifest.attributes]
    labels = LabelSet.read(directory, manifest.label_set)
    return Bundle(
        manifest=manifest,
        catalogue=Catalogue.read(directory / "items.parquet", attributes),
        labels=labels,
        encoder=encoder,
        index=open_index(directory, manifest, items),
        items=items,
        mean_user=mean_user,
        gains=_open_gains(directory, labels) if manifest.gains else {},
    )


def _open_gains(directory: Path, labels: LabelSet) -> dict[tuple[str, str], AnyArray]:
    """Opens gains.npy: one row a concept, in the order of the bundle's own label set."""
    rows = np.load(directory / "gains.npy", mmap_mode="r")
    concepts = labels.concepts
    if len(rows) != len(concepts) or rows.dtype != np.float16:
        raise ValueError(
            f"gains.npy: expected {len(concepts)} rows of float16,"
            f" found {len(rows)} of {rows.dtype}"
        )
    pairs = zip(concepts, np.asarray(rows), strict=True)
    return {(concept.attribute, concept.value): row for concept, row in pairs}


def _check_shapes(directory: Path, bundle: Bundle) -> None:
    """Compares the parts' shapes with the manifest's dimensions."""
    dims = bundle.manifest.dimensions
    expect = partial(_expect_shape, directory)
    expect("items.npy", bundle.items.shape, (dims.n_items, dims.p + 1))
    expect("items.parquet", len(bundle.catalogue), dims.n_items)
    expect("decoder.npy", bundle.labels.decoder.shape, (dims.n_neurons, dims.d))
    expect("neurons.parquet", len(bundle.labels.units), dims.n_neurons)
    expect("the index", bundle.index.n_items, dims.n_items)
    expect("mean_user", bundle.mean_user.z.shape, (dims.d,))
    expect("encoder.onnx's context", bundle.mean_user.context.shape, (dims.context,))
    for (_, value), gains in bundle.gains.items():
        expect(f"gains.npy's row of {value}", gains.shape, (dims.n_items,))
    known = bundle.catalogue.attributes
    for concept in bundle.labels.concepts:
        if concept.attribute not in known:
            raise BundleError(
                f"{directory}: concept {concept.name!r}: expected an attribute of the items"
                f" ({', '.join(known) or 'none'}), found {concept.attribute!r}"
            )


def _expect_shape(directory: Path, name: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise BundleError(
            f"{directory}: {name}: expected shape {expected} by the manifest's dimensions,"
            f" found {found}"
        )
