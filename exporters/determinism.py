"""One thread, where results or times must not depend on how many there are."""

import contextlib
from collections.abc import Iterator

import faiss
import torch


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within it torch and FAISS compute on one thread; also a decorator."""
    of_torch, of_faiss = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(of_torch)
        faiss.omp_set_num_threads(of_faiss)
