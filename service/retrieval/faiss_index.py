"""Indexes over the items: FAISS's of every kind, and the item matrix itself, which misses nothing."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from service.arrays import Bools, Floats, Ints

CHOSEN_DEPTH = 128
"""Up to so many candidates, times the over-fetch, the number of cells stored with an index is
right: it was chosen by the best 100, and a search's depth is a power of two."""


SPREAD = 2
"""Items that are picked out lie in so many times as many cells as their share of all makes likely."""


FAR = 4
"""So many codes are read in less time than one vector is gathered in."""


class FaissIndex:
    """A FAISS index of any kind over V, or over [V | b], zeros at the rows' ends allowed; memory-mapped.

    Args:
        path: The file.
        over_fetch: See Index.

    Raises:
        OSError, RuntimeError: the file is no index.
    """

    def __init__(self, path: Path, over_fetch: float = 1.0) -> None:
        self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        self.n_items: int = self._index.ntotal
        self.width: int = self._index.d
        self.over_fetch = max(over_fetch, 1.0)
        # A graph has no list to read, and FAISS's fast scan without cells takes no selectors.
        self.selects = isinstance(self._index, (faiss.IndexIVF, faiss.IndexScalarQuantizer))
        self._cells = _cells(self._index)
        self._parameters = lru_cache(maxsize=64)(self._made_parameters)  # few depths are asked for

    def search(self, queries: Floats, n: int) -> Ints:
        """See Index."""
        return self._search(queries, n, self._parameters(n))

    def search_among(self, queries: Floats, n: int, wanted: Bools) -> Ints:
        """See Index; only cells that hold any of them are looked into."""
        selector = faiss.IDSelectorBitmap(np.packbits(wanted, bitorder="little"))
        if not isinstance(self._index, faiss.IndexIVF):
            return self._search(queries, n, faiss.SearchParameters(sel=selector))
        held = self._held(wanted)
        wider = (
            SPREAD
            * self.n_items
            / max(int(np.count_nonzero(wanted)), 1)
            * max(self._deeper(n), 1.0)
        )
        probes = min(int(self._index.nprobe * wider) + 1, max(int(held.sum()), 1))
        cells = faiss.SearchParameters(
            sel=faiss.IDSelectorBitmap(np.packbits(held, bitorder="little"))
        )
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=probes, quantizer_params=cells)
        return self._search(queries, n, parameters)

    def comes_by(self, wanted: Bools, n: int) -> bool:
        """See Index: they are in most of the cells."""
        if not isinstance(self._index, faiss.IndexIVF):
            return False
        read = self.n_items * self._index.nprobe / self._index.nlist * self._deeper(n)
        return read < FAR * np.count_nonzero(wanted) and bool(self._held(wanted).mean() > 0.5)

    def _held(self, wanted: Bools) -> Bools:
        """Which cells hold any of the wanted items: bool [cells]."""
        held = np.zeros(self._index.nlist, bool)
        held[self._cells.take(np.flatnonzero(wanted))] = True
        return held

    def _search(self, queries: Floats, n: int, parameters: Any) -> Ints:
        n, width = min(n, self.n_items), queries.shape[1]
        if width < self.width:  # the index holds [V | b], or zeros; a one does no harm to those
            padded = np.zeros((len(queries), self.width), np.float32)
            padded[:, :width], padded[:, width] = queries, 1.0
            queries = padded
        _, items = self._index.search(np.ascontiguousarray(queries), n, params=parameters)
        return np.asarray(items, np.int64)

    def _made_parameters(self, n: int) -> Any:
        """For more candidates than it was chosen for, an index looks as many times as far.

        A filter may keep what lies far away.
        """
        deeper = self._deeper(n)
        if isinstance(self._index, faiss.IndexIVF) and deeper > 1.0:
            probes = int(self._index.nprobe * deeper) + 1
            return faiss.SearchParametersIVF(nprobe=min(probes, self._index.nlist))
        if isinstance(self._index, faiss.IndexHNSW) and deeper > 1.0:
            return faiss.SearchParametersHNSW(efSearch=int(self._index.hnsw.efSearch * deeper) + 1)
        return None

    def _deeper(self, n: int) -> float:
        """How many times as many candidates these are as the index was chosen for."""
        return n / (CHOSEN_DEPTH * self.over_fetch)


def _cells(index: Any) -> NDArray[np.int32]:
    """Which cell of an IVF index each item lies in: [n_items]; nothing of other kinds."""
    if not isinstance(index, faiss.IndexIVF):
        return np.empty(0, np.int32)
    cells, lists = np.empty(index.ntotal, np.int32), index.invlists
    for cell in range(index.nlist):
        cells[faiss.rev_swig_ptr(lists.get_ids(cell), lists.list_size(cell))] = cell
    return cells
