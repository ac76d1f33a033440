"""Lists the kinds of index that can be chosen, and the settings that are tried for each."""

import math
from typing import NamedTuple

_CELL_SHARES = (1 / 256, 1 / 128, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4)


class IndexKind(NamedTuple):
    """A kind of index, and the settings that are tried."""

    factory: str
    """FAISS's name; {cells} and {pairs} are the numbers of cells and of pairs of dimensions."""
    over_fetches: tuple[float, ...]
    """Candidates fetched for each item needed; approximate scores need more."""
    efforts: tuple[float, ...] = (0,)
    """Shares of the cells to probe, or breadths of the search; least first."""
    largest: float = math.inf
    """Items. Larger catalogues take too long to build or to search."""


# The simplest first. 4-bit codes of pairs of dimensions are read by table look-ups within
# registers, 32 items at once (Andre et al., "Cache locality is not enough", VLDB 2015).
KINDS = {
    "pq4": IndexKind("PQ{pairs}x4fs", (2, 4, 8, 16), largest=1_000_000),
    "ivf-pq4": IndexKind("IVF{cells},PQ{pairs}x4fsr", (2, 4, 8, 16), _CELL_SHARES),
    "ivf-sq8": IndexKind("IVF{cells},SQ8", (1, 2), _CELL_SHARES),
    "sq8": IndexKind("SQ8", (1, 2), largest=200_000),
    "ivf": IndexKind("IVF{cells},Flat", (1,), _CELL_SHARES, largest=1_000_000),
    "hnsw": IndexKind("HNSW32,Flat", (1,), (128, 256, 512), largest=200_000),
}
"""The kinds by name."""
