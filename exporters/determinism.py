"""Limits computations to one thread, so that results and times do not depend on their number."""

import contextlib
from collections.abc import Iterator

import faiss
import torch


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Lets torch and FAISS compute on one thread within a context or a decorated function."""
    torch_threads = torch.get_num_threads()
    faiss_threads = faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        faiss.omp_set_num_threads(faiss_threads)
