"""Where interactions come from: one file per publisher, and a registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol

from training.datasets.folder import FolderOptions, load_folder
from training.datasets.movielens import MovieLensOptions, load_movielens_100k
from training.datasets.synthetic import SyntheticOptions, generate
from training.errors import DataError
from training.interactions import RawData


class Load(Protocol):
    """Reads or generates a data set."""

    def __call__(self, source: str, options: Any, seed: int) -> RawData:
        """Source is the --data value; raises DataError with what was found and expected."""


class DataSetKind(NamedTuple):
    """A kind of data set: its options, and what loads it."""

    options: type[Any]
    load: Load


DATASETS: dict[str, DataSetKind] = {
    "ml-100k": DataSetKind(MovieLensOptions, load_movielens_100k),
    "synthetic": DataSetKind(SyntheticOptions, generate),
}

FOLDER = DataSetKind(FolderOptions, load_folder)


def data_set_kind(name: str) -> DataSetKind:
    """The kind that a --data value names: a registered name, or the path of a folder.

    Raises:
        DataError: if it is neither.
    """
    if name in DATASETS:
        return DATASETS[name]
    if Path(name).is_dir():
        return FOLDER
    known = ", ".join(sorted(DATASETS))
    raise DataError(f"no data set {name!r}: expected one of {known}, or a folder with interactions.parquet")


def options_type(name: str) -> type[Any]:
    """The options of what a --data value names, whether or not the folder exists here."""
    return DATASETS.get(name, FOLDER).options


def load_data_set(name: str, options: Any, seed: int) -> RawData:
    """Loads what --data names, with that kind's options."""
    return data_set_kind(name).load(name, options, seed)
