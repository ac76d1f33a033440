"""The kinds of index there are to choose from, and how hard each is made to search."""

import math
from typing import NamedTuple

FLAT = "flat"
"""No index: every item is scored."""


_CELL_SHARES = (1 / 256, 1 / 128, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4)


class Kind(NamedTuple):
    """A kind of index, and the settings that are tried."""

    factory: str
    """FAISS's name for it; {cells} and {pairs} are the numbers of cells and of pairs of dimensions."""
    over_fetches: tuple[float, ...]
    """Approximate scores need more candidates."""
    efforts: tuple[float, ...] = (0,)
    """Shares of the cells, or breadths of the search; least first."""
    largest: float = math.inf
    """Catalogues above this size take it too long to build or to search."""


# The simplest first. 4-bit codes of pairs of dimensions are read by table look-ups within registers
# (Andre et al., "Cache locality is not enough", VLDB 2015): 32 items at once.
KINDS = {
    "pq4": Kind("PQ{pairs}x4fs", (2, 4, 8, 16), largest=1_000_000),
    "ivf-pq4": Kind("IVF{cells},PQ{pairs}x4fsr", (2, 4, 8, 16), _CELL_SHARES),
    "ivf-sq8": Kind("IVF{cells},SQ8", (1, 2), _CELL_SHARES),
    "sq8": Kind("SQ8", (1, 2), largest=200_000),
    "ivf": Kind("IVF{cells},Flat", (1,), _CELL_SHARES, largest=1_000_000),
    "hnsw": Kind("HNSW32,Flat", (1,), (128, 256, 512), largest=200_000),
}
