"""Opening a bundle: one that is incomplete, altered, of an unknown format, or unlike torch is not served."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
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
from service.catalogue import Catalogue
from service.concepts import Concept, LabelSet
from service.encoding import Encoder, UserState, pad
from service.histories import HistoryRule
from service.indexes import ExactIndex, FaissIndex, Index
from service.precision import Precision
from service.ranking import score

REPLAY_TOLERANCE = 1e-4
"""How far onnxruntime here may be from torch there, relative to the largest value of each output."""
SMALLEST_ACTIVATION = 0.02
"""Activations below this share of the norm of what the SAE reads are differences of larger numbers, and carry
the rounding of those: they are judged relative to this share."""
RECALL_DEPTH = 100
FLAT = "flat"
"""The kind of index that is none: every item is scored."""
REQUIRED_FILES = {
    "encoder.onnx", "sae.onnx", "decoder.npy", "items.npy",
    "items.parquet", "neurons.parquet", "concepts.parquet", "reference.npz",
}  # fmt: skip


class BundleError(Exception):
    """A bundle that must not be served; the message names the fault."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """Everything that one request reads, opened and checked. Never changed once made.

    Attributes:
        labels: What names are read in.
        items: [V | b], float32 [n_items, p + 1], memory-mapped.
        mean_user: Whom an unknown user is taken for when steering is asked: the mean user embedding, in the
            context of the empty history.
        cache_key: Short name of encoder and SAE, within which cached embeddings are valid.
        gains: By attribute and value, how much of it each item carries, float16 [n_items], memory-mapped;
            empty where BOOST goes by who has the tag.
        label_sets: By version, its own first, then those that were imported beside it.
    """

    manifest: BundleManifest
    catalogue: Catalogue
    labels: LabelSet
    encoder: Encoder
    index: Index
    items: Floats
    mean_user: UserState
    gains: Mapping[tuple[str, str], AnyArray] = field(default_factory=dict)
    label_sets: Mapping[str, LabelSet] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.label_sets:
            object.__setattr__(self, "label_sets", {self.labels.version: self.labels})

    def labelled(self, label_sets: Mapping[str, LabelSet], current: str) -> "Bundle":
        """The same with other label sets beside its own, and names read in the current one."""
        others = label_sets.values()
        known = {version: labels.beside(others) for version, labels in label_sets.items()}
        return replace(self, labels=known[current], label_sets=known)

    def pinned(self, version: str) -> "Bundle":
        """The same with names read in the label set of this version, if there is one."""
        found = self.label_sets.get(version, self.labels)
        return self if found is self.labels else replace(self, labels=found)

    @property
    def own_labels(self) -> LabelSet:
        """The label set that is part of it."""
        return self.label_sets[self.manifest.label_set]

    @property
    def id(self) -> str:
        """The content id."""
        return self.manifest.bundle_id

    @property
    def cache_key(self) -> str:
        """See the class."""
        return self.manifest.model_id[:12]

    @cached_property
    def history_rule(self) -> HistoryRule:
        """How events become the encoder's input."""
        rule = self.manifest.history
        min_value = rule.min_value if rule.HasField("min_value") else None
        return HistoryRule(max(1, rule.max_length), min_value)

    def gain(self, concept: Concept) -> AnyArray:
        """How much of a concept each item carries: [n_items], from 0 to 1 or bool, not to be changed."""
        known = self.gains.get((concept.attribute, concept.value))
        return self.catalogue.members(concept.attribute, concept.value) if known is None else known

    def scale(self, z: Floats) -> float:
        """What z [d] is divided by before the SAE reads it; see ScaleRule in bundle.proto."""
        rule, factor = self._scale_rule
        if rule == SCALE_RULE_NONE:
            return factor
        size = float(z.std()) if rule == SCALE_RULE_STANDARD else math.sqrt(np.dot(z, z))
        return factor * size if size > 0.0 else factor

    def shift(self, z: Floats) -> float:
        """What is taken from z [d] before that."""
        return float(z.mean()) if self.manifest.scale_rule == SCALE_RULE_STANDARD else 0.0

    @cached_property
    def _scale_rule(self) -> tuple[int, float]:
        return self.manifest.scale_rule, self.manifest.scale_factor

    @cached_property
    def _state_shapes(self) -> tuple[tuple[int], tuple[int], int]:
        dims = self.manifest.dimensions
        return (dims.d,), (dims.context,), dims.n_neurons

    def fits(self, state: UserState) -> bool:
        """Whether a state could come from this bundle's encoder and SAE."""
        z_shape, context_shape, n_neurons = self._state_shapes
        shapes = state.z.shape == z_shape and state.context.shape == context_shape
        return shapes and bool(state.code.neurons.max(initial=-1) < n_neurons)


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
            raise BundleError(f"{directory}: {file.name} has {size} bytes, {file.size_bytes} expected")
        if file_digest(path) != file.sha256:
            raise BundleError(f"{directory}: {file.name} was altered: its SHA-256 is not the manifest's")
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
    items = np.asarray(np.load(directory / "items.npy", mmap_mode="r"))  # a memmap's rows are slow to take
    (mean_user,) = encoder.states(np.array([manifest.mean_user], np.float32), nothing.context)
    labels = LabelSet.read(directory, manifest.label_set)
    return Bundle(
        manifest=manifest,
        catalogue=Catalogue.read(directory / "items.parquet", [a.name for a in manifest.attributes]),
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
    return FaissIndex(directory / "items.faiss", manifest.index.over_fetch)


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
        # Items that tie with the last one count as found: which of them comes is not the index's fault.
        reached = score(bundle.items, items[items >= 0], query) >= cut - 1e-5 * np.abs(cut)
        hits.append(min(int(reached.sum()), depth) / depth)
    return float(np.mean(hits))


def _norm_read(bundle: Bundle, z: Floats) -> float:
    """The norm of what the SAE makes of z [d] before it encodes it."""
    return float(np.linalg.norm(z - bundle.shift(z))) / bundle.scale(z)


def _compare(directory: Path, name: str, found: AnyArray, expected: AnyArray, least: float = 0.0) -> None:
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
