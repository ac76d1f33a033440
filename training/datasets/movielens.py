"""Reads MovieLens 100K (GroupLens, 1998) from the files inside the recbole 1.2.1 wheel.

F. M. Harper and J. A. Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 5(4), 2015.
For research use. The package is never imported: only its data files are read.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import polars as pl

from training.datasets.columns import STARS_POSITIVE
from training.datasets.files import require_columns
from training.errors import DataError
from training.interactions import RawData
from training.options import options


@options
class MovieLensOptions:
    """Names the folder that holds the files."""

    dir: Path | None = None
    """Folder with ml-100k.inter and ml-100k.item; by default the one inside the installed package
    recbole."""


def load_movielens_100k(_source: str, options: MovieLensOptions, _seed: int) -> RawData:
    """Reads 100,000 ratings of 1,682 films by 943 users, with genres and release year.

    Raises:
        DataError: if the files are not found, or lack a column.
    """
    folder = options.dir or installed_folder()
    events_path = folder / "ml-100k.inter"
    items_path = folder / "ml-100k.item"
    if missing := [str(path) for path in (events_path, items_path) if not path.is_file()]:
        raise DataError(f"MovieLens 100K: expected {' and '.join(missing)}, found none; {_ADVICE}")
    events = read_typed_table(events_path, ("user_id", "item_id", "rating", "timestamp"))
    items = read_typed_table(items_path, ("item_id", "movie_title", "release_year", "class"))
    return RawData(
        name="ml-100k",
        events=events.select(
            "user_id",
            "item_id",
            value=_number(events, "rating", events_path),
            time=_number(events, "timestamp", events_path).cast(pl.Int64),
        ),
        items=items.select(
            "item_id",
            title=pl.col("movie_title"),
            genres=pl.col("class").str.split(" ").list.filter(pl.element() != ""),
            year=pl.col("release_year").cast(pl.Float64, strict=False),
        ),
        min_value=STARS_POSITIVE,
    )


def read_typed_table(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    """Reads tab-separated text with a header of "name:type".

    All columns as text, under their bare names.

    Raises:
        DataError: if the file is empty or a column is missing.
    """
    try:
        table = pl.read_csv(path, separator="\t", infer_schema=False, quote_char=None)
    except pl.exceptions.NoDataError as error:
        raise DataError(f"{path}: expected a header and rows, found an empty file") from error
    table = table.rename({name: name.split(":")[0] for name in table.columns})
    require_columns(path, table.columns, columns)
    return table


_ADVICE = (
    "install them with `pip install --no-deps recbole==1.2.1`, or name their folder with --data-dir"
)


def installed_folder(package: str = "recbole") -> Path:
    """Returns the files' folder inside an installed package, without importing the package.

    Raises:
        DataError: if the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        wanted = f"expected dataset_example/ml-100k in the package {package}"
        raise DataError(f"MovieLens 100K: {wanted}, found no such package; {_ADVICE}")
    return Path(spec.submodule_search_locations[0]) / "dataset_example" / "ml-100k"


def _number(table: pl.DataFrame, column: str, path: Path) -> pl.Series:
    numbers = table[column].cast(pl.Float64, strict=False)
    wrong = numbers.is_null() & table[column].is_not_null()
    if wrong.any():
        row = wrong.arg_true()[0]
        raise DataError(
            f"{path}: {column} in row {row + 1}: expected a number, found {table[column][row]!r}"
        )
    return numbers
