"""Opens a bundle and checks its files."""

from pathlib import Path

import numpy as np
from trimtab.manifest import MANIFEST_NAME, ManifestError, content_id, file_digest, from_json
from trimtab.v1.bundle_pb2 import (
    SCALE_RULE_NONE,
    SCALE_RULE_STANDARD,
    SCALE_RULE_UNIT_NORM,
    BundleManifest,
)

from service.arrays import AnyArray, Floats
from service.bundle.bundle import Bundle, BundleError
from service.bundle.catalogue import Catalogue
from service.bundle.encoder import Encoder, pad
from service.bundle.label_set import LabelSet
from service.bundle.precision import Precision
from service.bundle.replay import _replay
from service.retrieval.exact_index import ExactIndex
from service.retrieval.faiss_index import FaissIndex
from service.retrieval.protocol import Index

FLAT = "flat"
"""The kind of index that is none: every item is scored."""


REQUIRED_FILES = {
    "encoder.onnx", "sae.onnx", "decoder.npy", "items.npy",
    "items.parquet", "neurons.parquet", "concepts.parquet", "reference.npz",
}  # fmt: skip


def open_bundle(directory: Path, precision: Precision = Precision.FLOAT16) -> Bundle:
    """Opens and checks a bundle, whose user states are to be of a precision.

    Raises:
        BundleError: naming what is wrong.
    """
    manifest = _read_manifest(directory)
    _check_files(directory, manifest)
    try:
        bundle = _assemble(directory, manifest, precision)
    except Exception as error:  # onnxruntime, pyarrow and faiss each have a tree of their own
        raise BundleError(f"{directory}: cannot be opened: {error}") from error
    _check_shapes(directory, bundle)
    _replay(directory, bundle)
    return bundle


def _read_manifest(directory: Path) -> BundleManifest:
    try:
        return from_json((directory / MANIFEST_NAME).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{directory}: no readable {MANIFEST_NAME}: {error}") from error
    except ManifestError as error:
        raise BundleError(f"{directory}: {error}") from error


def _check_files(directory: Path, manifest: BundleManifest) -> None:
    listed = {file.name for file in manifest.files}
    needed = REQUIRED_FILES | ({"head.onnx"} if manifest.dimensions.has_head else set())
    needed |= {"items.faiss"} if manifest.index.kind != FLAT else set()
    needed |= {"gains.npy"} if manifest.gains else set()
    if unlisted := sorted(needed - listed):
        raise BundleError(f"{directory}: the manifest does not list {', '.join(unlisted)}")
    for file in manifest.files:
        path = directory / file.name
        if path.name != file.name or not path.is_file():
            raise BundleError(f"{directory}: {file.name} is missing")
        if (size := path.stat().st_size) != file.size_bytes:
            raise BundleError(
                f"{directory}: {file.name} has {size} bytes, {file.size_bytes} expected"
            )
        if file_digest(path) != file.sha256:
            raise BundleError(
                f"{directory}: {file.name} was altered: its SHA-256 is not the manifest's"
            )
    if content_id(manifest.files) != manifest.bundle_id:
        raise BundleError(f"{directory}: the bundle id does not fit the files")


def _assemble(directory: Path, manifest: BundleManifest, precision: Precision) -> Bundle:
    if manifest.scale_rule not in (SCALE_RULE_UNIT_NORM, SCALE_RULE_NONE, SCALE_RULE_STANDARD):
        raise ValueError(f"scale rule {manifest.scale_rule} is not known")
    dims = manifest.dimensions
    if dims.context and not dims.has_head:
        raise ValueError(f"a context of width {dims.context} is of no use without a head")
    encoder = Encoder(directory, dims.has_head, dims.context, precision)
    nothing = encoder.embed(*pad([np.empty(0, np.int64)]))
    items = np.asarray(
        np.load(directory / "items.npy", mmap_mode="r")
    )  # a memmap's rows are slow to take
    (mean_user,) = encoder.states(np.array([manifest.mean_user], np.float32), nothing.context)
    labels = LabelSet.read(directory, manifest.label_set)
    return Bundle(
        manifest=manifest,
        catalogue=Catalogue.read(
            directory / "items.parquet", [a.name for a in manifest.attributes]
        ),
        labels=labels,
        encoder=encoder,
        index=_open_index(directory, manifest, items),
        items=items,
        mean_user=mean_user,
        gains=_open_gains(directory, labels) if manifest.gains else {},
    )


def _open_gains(directory: Path, labels: LabelSet) -> dict[tuple[str, str], AnyArray]:
    """One row a concept, in the order of the bundle's own label set."""
    rows = np.load(directory / "gains.npy", mmap_mode="r")
    if len(rows) != len(labels.concepts) or rows.dtype != np.float16:
        raise ValueError(
            f"gains.npy holds {len(rows)} rows of {rows.dtype}, {len(labels.concepts)} of float16 expected"
        )
    pairs = zip(labels.concepts, np.asarray(rows), strict=True)
    return {(concept.attribute, concept.value): row for concept, row in pairs}


def _open_index(directory: Path, manifest: BundleManifest, items: Floats) -> Index:
    if manifest.index.kind == FLAT:
        return ExactIndex(items)
    return FaissIndex.read(directory / "items.faiss", manifest.index.over_fetch)


def _check_shapes(directory: Path, bundle: Bundle) -> None:
    dims = bundle.manifest.dimensions
    found_and_expected = {
        "items.npy": (bundle.items.shape, (dims.n_items, dims.p + 1)),
        "items.parquet": (len(bundle.catalogue), dims.n_items),
        "decoder.npy": (bundle.labels.decoder.shape, (dims.n_neurons, dims.d)),
        "neurons.parquet": (len(bundle.labels.units), dims.n_neurons),
        "the index": (bundle.index.n_items, dims.n_items),
        "mean_user": (bundle.mean_user.z.shape, (dims.d,)),
        "encoder.onnx's context": (bundle.mean_user.context.shape, (dims.context,)),
    }
    for of, gains in bundle.gains.items():
        found_and_expected[f"gains.npy's row of {of[1]}"] = (gains.shape, (dims.n_items,))
    for concept in bundle.labels.concepts:
        if concept.attribute not in bundle.catalogue.attributes:
            raise BundleError(
                f"{directory}: concept {concept.name!r} is of {concept.attribute!r}, no attribute"
            )
    for name, (found, expected) in found_and_expected.items():
        if found != expected:
            raise BundleError(
                f"{directory}: {name} has shape {found}, the manifest's dimensions say {expected}"
            )
