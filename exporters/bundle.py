"""Writes a bundle so that it is either whole or not there.

Everything is written to a temporary directory beside the goal, forced to the disk, checked against torch and
renamed. A process that dies on the way leaves a directory `.NAME.*.partial`; it counts for nothing, and the
next export to the same goal removes it.
"""

import contextlib
import fcntl
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from torch import Tensor
from trimtab.manifest import FORMAT_VERSION, MANIFEST_NAME, combined_digest, content_id, file_digest, to_json
from trimtab.v1.bundle_pb2 import (
    AttributeInfo,
    BundleFile,
    BundleManifest,
    Dimensions,
    IndexInfo,
)
from trimtab.v1.bundle_pb2 import AttributeKind as WireKind

from exporters.contents import BundleContents
from exporters.errors import BundleExistsError, BundleFaultError, BundleWriteError
from exporters.graphs import OPSET, export_graphs
from exporters.index import FLAT_LIMIT, ChosenIndex, choose_index
from exporters.sealed import read_manifest, verify_files
from exporters.stages import Report, silent
from exporters.tables import concept_table, item_table, neuron_table
from exporters.verify import check_parity
from training.interactions import AttributeKind

__all__ = ["BundleContents", "refuse_what_is_no_bundle", "write_bundle"]

_WIRE_KINDS = {
    AttributeKind.TAGS: WireKind.ATTRIBUTE_KIND_TAGS,
    AttributeKind.TEXT: WireKind.ATTRIBUTE_KIND_TEXT,
    AttributeKind.NUMBER: WireKind.ATTRIBUTE_KIND_NUMBER,
}
# The earliest time that a zip entry can carry: the same arrays must give the same bytes.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


class _Written(NamedTuple):
    files: list[BundleFile]
    chosen: ChosenIndex


def write_bundle(
    contents: BundleContents, out: Path, *, report: Report = silent, flat_limit: int = FLAT_LIMIT
) -> BundleManifest:
    """Writes, checks and publishes a bundle.

    Args:
        contents: what to write.
        out: the directory to make. It may exist if it is empty, or if it is this very bundle already.
        report: told the name of each stage as it begins.
        flat_limit: catalogues above this size may get an approximate index.

    Raises:
        BundleExistsError: out is taken, from the start or by another export that was quicker.
        BundleWriteError: the file system refused a file.
        ParityError: what was written answers differently than torch; nothing is left.
        GraphError: a model cannot be exported.
    """
    out = out.absolute()
    refuse_what_is_no_bundle(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BundleWriteError(f"cannot make {out.parent}: {error.strerror}") from error
    with _partial_directory(out) as partial:
        written = _write_files(contents, partial, report, flat_limit)
        report("checking against torch")
        manifest = _describe(contents, written)
        check_parity(partial, manifest, contents)
        with _open(partial / MANIFEST_NAME) as file:
            file.write(to_json(manifest).encode())
        verify_files(partial)
        report("publishing")
        return _publish(partial, out, manifest)


def _write_files(contents: BundleContents, directory: Path, report: Report, flat_limit: int) -> _Written:
    references = contents.references
    report("exporting graphs")
    graphs = export_graphs(contents.recommender, contents.sae, contents.dims.d)
    for name, graph in graphs._asdict().items():
        if graph is not None:
            with _open(directory / f"{name}.onnx") as file:
                file.write(graph)
    report("writing arrays")
    decoder = np.vstack([_array(contents.sae.W_dec), _array(contents.sae.b_dec)])
    items = np.column_stack([_array(contents.V), _array(contents.b)])
    shapes = {"decoder.npy": decoder.shape, "items.npy": items.shape}
    for name, array in (("decoder.npy", decoder), ("items.npy", items)):
        with _open(directory / name) as file:
            np.lib.format.write_array(file, np.ascontiguousarray(array, "<f4"))
    report("building the index")
    index = _index(contents, items, flat_limit)
    with _open(directory / "items.faiss") as file:
        file.write(faiss.serialize_index(index.index).tobytes())
    report("writing tables")
    catalogue = contents.catalogue
    _write_table(directory / "items.parquet", item_table(catalogue.items, catalogue.attributes))
    _write_table(directory / "neurons.parquet", neuron_table(contents.cards, contents.labels))
    _write_table(directory / "concepts.parquet", concept_table(contents.concepts))
    arrays = {name: _array(part) for name, part in references._asdict().items() if isinstance(part, Tensor)}
    with _open(directory / "reference.npz") as file:
        _write_npz(file, arrays)
    files = [
        BundleFile(
            name=path.name,
            sha256=file_digest(path),
            size_bytes=path.stat().st_size,
            shape=shapes.get(path.name, ()),
        )
        for path in sorted(directory.iterdir())
    ]
    return _Written(files, index)


def _index(contents: BundleContents, items: NDArray[np.float32], flat_limit: int) -> ChosenIndex:
    plain, steered = _array(contents.references.queries), _array(contents.references.steered_queries)
    if not contents.has_bias:
        return choose_index(_array(contents.V), plain, steered, flat_limit)
    ones = np.ones((len(plain), 1), np.float32)
    return choose_index(
        np.ascontiguousarray(items), np.hstack([plain, ones]), np.hstack([steered, ones]), flat_limit
    )


def _describe(contents: BundleContents, written: _Written) -> BundleManifest:
    dims = contents.dims
    manifest = BundleManifest(
        format_version=FORMAT_VERSION,
        bundle_id=content_id(written.files),
        model_id=combined_digest(written.files, "encoder.onnx", "sae.onnx"),
        label_set=combined_digest(written.files, "concepts.parquet", "neurons.parquet")[:12],
        provenance=contents.provenance,
        hook_point=contents.recommender.hook_point,
        dimensions=Dimensions(
            n_items=dims.n_items,
            d=dims.d,
            p=dims.p,
            n_neurons=dims.n_neurons,
            k=dims.k,
            context=0,
            has_head=contents.recommender.has_head,
            has_bias=contents.has_bias,
        ),
        scale_rule=contents.scale_rule,
        scale_factor=contents.sae.scale_factor,
        opset=OPSET,
        files=written.files,
        history=contents.history,
        index=IndexInfo(
            kind=written.chosen.kind,
            recall_plain=written.chosen.recall_plain,
            recall_steered=written.chosen.recall_steered,
        ),
        attributes=[
            AttributeInfo(name=name, kind=_WIRE_KINDS[kind])
            for name, kind in contents.catalogue.attributes.items()
        ],
        mean_user=contents.mean_user.tolist(),
    )
    manifest.create_time.GetCurrentTime()
    return manifest


def _publish(partial: Path, out: Path, manifest: BundleManifest) -> BundleManifest:
    try:
        partial.chmod(0o755)
        _sync_directory(partial)
        # rename(2) replaces an empty directory and nothing else: of two exports at once, one wins.
        partial.rename(out)
        _sync_directory(out.parent)
    except OSError as error:
        if not (out.is_dir() and any(out.iterdir())):
            raise BundleWriteError(f"cannot make {out}: {error.strerror}") from error
        return _same_bundle(out, manifest)
    return manifest


def _same_bundle(out: Path, manifest: BundleManifest) -> BundleManifest:
    """The bundle at `out`, if it is the one that was about to be written."""
    try:
        present = verify_files(out)
    except BundleFaultError as error:
        raise BundleExistsError(f"{out} exists and is no whole bundle: {error}") from error
    if present.bundle_id != manifest.bundle_id:
        raise BundleExistsError(
            f"{out} holds another bundle ({present.bundle_id[:12]}, this one is {manifest.bundle_id[:12]}): "
            "bundles are never overwritten, choose another directory"
        )
    for field in ("provenance", "history", "mean_user", "scale_rule", "scale_factor", "hook_point"):
        if getattr(present, field) != getattr(manifest, field):
            raise BundleExistsError(
                f"{out} holds the same files with another {field}: choose another directory"
            )
    return present


def refuse_what_is_no_bundle(out: Path) -> None:
    """Raises BundleExistsError where no bundle can come to stand; the cheap check to make first."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise BundleExistsError(f"{out} exists and is no directory")
    if out.is_dir() and any(out.iterdir()):
        try:
            read_manifest(out)
        except BundleFaultError as error:
            raise BundleExistsError(f"{out} exists and is no bundle: {error}") from error


@contextlib.contextmanager
def _partial_directory(out: Path) -> Iterator[Path]:
    """A temporary directory beside `out`, locked as long as its writer lives, gone if the writer fails."""
    prefix, suffix = f".{out.name}.", ".partial"
    with _locked(out.parent, fcntl.LOCK_EX):
        leftovers = [path for path in out.parent.iterdir() if path.name.startswith(prefix)]
        for leftover in (path for path in leftovers if path.name.endswith(suffix)):
            # The lock of a dead process is free; a live one's directory stays.
            with contextlib.suppress(BlockingIOError), _locked(leftover, fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(leftover)
        try:
            partial = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=out.parent))
        except OSError as error:
            raise BundleWriteError(f"cannot write beside {out}: {error.strerror}") from error
        lock = contextlib.ExitStack()
        lock.enter_context(_locked(partial, fcntl.LOCK_EX))
    with lock:
        try:
            yield partial
        finally:
            # After the rename there is nothing of this name any more.
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _locked(directory: Path, mode: int) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, mode)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """A new file that is on the disk when the context ends."""
    try:
        with path.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise BundleWriteError(f"cannot write {path.name}: {error.strerror or error}") from error


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_table(path: Path, table: pa.Table) -> None:
    with _open(path) as file:
        pq.write_table(table, file, compression="zstd")


def _write_npz(file: IO[bytes], arrays: Mapping[str, NDArray[Any]]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array))
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _ZIP_TIME), buffer.getvalue())


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().cpu().contiguous().numpy()
    return array
