"""Writes a bundle's files: the same bytes for the same contents, each forced to the disk."""

import contextlib
import io
import os
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
from trimtab.manifest import file_digest
from trimtab.v1.bundle_pb2 import BundleFile

from exporters.choose_index import ChosenIndex, IndexOptions, choose_index
from exporters.contents import BundleContents
from exporters.errors import BundleWriteError
from exporters.graphs import RecommenderGraphs, export_graphs
from exporters.progress import Report
from exporters.tables import concept_table, item_table, neuron_table

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest time of a zip entry: the bytes must not depend on when they are written."""


class Written(NamedTuple):
    """The written files, as the manifest describes them."""

    files: list[BundleFile]
    """In the order of their names."""
    chosen: ChosenIndex
    """The index, and its measurements."""


def write_files(
    contents: BundleContents,
    directory: Path,
    report: Report,
    options: IndexOptions,
    ready: RecommenderGraphs | None,
) -> Written:
    """Writes every file but the manifest into an empty directory.

    Raises:
        BundleWriteError: the file system refused a file.
        GraphError: a model cannot be exported.
    """
    report("exporting graphs")
    graphs = export_graphs(contents.recommender, contents.sae, contents.dims.d, ready)
    for name, graph in graphs._asdict().items():
        if graph is not None:
            with new_file(directory / f"{name}.onnx") as file:
                file.write(graph)
    report("writing arrays")
    decoder = np.vstack([_array(contents.sae.W_dec), _array(contents.sae.b_dec)])
    items = np.column_stack([_array(contents.V), _array(contents.b)])
    arrays = {"decoder.npy": decoder.astype("<f4"), "items.npy": items.astype("<f4")}
    if contents.gains is not None:
        arrays["gains.npy"] = contents.gains.values.astype("<f2")
    for name, array in arrays.items():
        with new_file(directory / name) as file:
            np.lib.format.write_array(file, np.ascontiguousarray(array))
    report("building the index")
    chosen = _index(contents, items, options)
    if chosen.index is not None:
        with new_file(directory / "items.faiss") as file:
            file.write(faiss.serialize_index(chosen.index).data)
    report("writing tables")
    _write_tables(contents, directory)
    shapes = {name: array.shape for name, array in arrays.items()}
    return Written([_describe(path, shapes) for path in sorted(directory.iterdir())], chosen)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Opens a new file, which is forced to the disk when the context ends.

    Raises:
        BundleWriteError: the file system refused it.
    """
    try:
        with path.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise BundleWriteError(f"cannot write {path.name}: {error.strerror or error}") from error


def _write_tables(contents: BundleContents, directory: Path) -> None:
    catalogue = contents.catalogue
    _write_table(directory / "items.parquet", item_table(catalogue.items, catalogue.attributes))
    _write_table(
        directory / "neurons.parquet",
        neuron_table(contents.cards, contents.labels, contents.purity),
    )
    _write_table(directory / "concepts.parquet", concept_table(contents.concepts))
    parts = contents.references._asdict()
    arrays = {
        name: _array(part)
        for name, part in parts.items()
        if isinstance(part, Tensor) and part.numel()
    }
    with new_file(directory / "reference.npz") as file:
        _write_npz(file, arrays)


def _index(
    contents: BundleContents, items: NDArray[np.float32], options: IndexOptions
) -> ChosenIndex:
    references = contents.references
    return choose_index(
        items, _array(references.queries), _array(references.steered_queries), options
    )


def _describe(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> BundleFile:
    return BundleFile(
        name=path.name,
        sha256=file_digest(path),
        size_bytes=path.stat().st_size,
        shape=shapes.get(path.name, ()),
    )


def _write_table(path: Path, table: pa.Table) -> None:
    with new_file(path) as file:
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
