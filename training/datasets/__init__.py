"""Readers of data sets, one file per publisher, and their registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol

from training.datasets.amazon import AmazonOptions, load_amazon
from training.datasets.folder import FolderOptions, load_folder
from training.datasets.grouplens import GroupLensOptions, load_csv, load_dat
from training.datasets.lastfm import LastFmOptions, load_lastfm
from training.datasets.movielens import MovieLensOptions, load_movielens_100k
from training.datasets.synthetic import SyntheticOptions, generate
from training.datasets.table import SUFFIXES, TableOptions, load_table
from training.errors import DataError
from training.interactions import RawData


class Load(Protocol):
    """Reads or generates a data set."""

    def __call__(self, source: str, options: Any, seed: int, /) -> RawData:
        """Reads the source that --data names; raises DataError with what was expected and found."""


class DataSetKind(NamedTuple):
    """A kind of data set: its options, its loader, and the prefix of its flags."""

    options: type[Any]
    load: Load
    prefix: str = "data_"


DATASETS: dict[str, DataSetKind] = {
    "ml-100k": DataSetKind(MovieLensOptions, load_movielens_100k),
    "synthetic": DataSetKind(SyntheticOptions, generate),
    "ml-1m": DataSetKind(GroupLensOptions, load_dat),
    "ml-25m": DataSetKind(GroupLensOptions, load_csv),
    "ml-32m": DataSetKind(GroupLensOptions, load_csv),
    "ml-latest-small": DataSetKind(GroupLensOptions, load_csv),
    "amazon-2023": DataSetKind(AmazonOptions, load_amazon),
    "lastfm-hetrec": DataSetKind(LastFmOptions, load_lastfm),
}

FOLDER = DataSetKind(FolderOptions, load_folder)
TABLE = DataSetKind(TableOptions, load_table, prefix="")


def data_set_kind(name: str) -> DataSetKind:
    """Returns the kind that a --data value names.

    A registered name, or the path of a folder or table.

    Raises:
        DataError: if it is neither.
    """
    if name in DATASETS:
        return DATASETS[name]
    if Path(name).is_dir():
        return FOLDER
    if Path(name).is_file() or name.endswith(SUFFIXES):
        return TABLE
    known = ", ".join(DATASETS)
    rest = "a folder with interactions.parquet, or a CSV, Parquet or JSON lines file"
    raise DataError(f"--data: expected one of {known}, {rest}, found {name!r}")


def options_type(name: str) -> type[Any]:
    """Returns the options of a --data value, whether or not the folder or table exists here."""
    table = name.endswith(SUFFIXES) and not Path(name).is_dir()
    return DATASETS.get(name, TABLE if table or Path(name).is_file() else FOLDER).options


def load_data_set(name: str, options: Any, seed: int) -> RawData:
    """Loads the data set that --data names, with that kind's options."""
    return data_set_kind(name).load(name, options, seed)
