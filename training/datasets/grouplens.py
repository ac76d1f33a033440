"""Reads MovieLens 1M, 25M, 32M and "latest small" (GroupLens) as the archives unpack.

F. M. Harper and J. A. Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 5(4), 2015.
For research use. MovieLens 1M is text separated by "::" in Latin-1; the later sets are CSV in
UTF-8.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from training.datasets.columns import STARS_POSITIVE, numbers
from training.datasets.files import Publisher, mixed_to_utf8, read_separated
from training.errors import DataError
from training.interactions import RawData
from training.options import options

_RATINGS = ("userId", "movieId", "rating", "timestamp")
_ARCHIVES = {
    "ml-1m": "movielens/1m/ (ml-1m.zip)",
    "ml-25m": "movielens/25m/ (ml-25m.zip)",
    "ml-32m": "movielens/32m/ (ml-32m.zip)",
    "ml-latest-small": "movielens/latest/ (ml-latest-small.zip)",
}


@options
class GroupLensOptions:
    """Names the folder that holds the files."""

    dir: Path | None = None
    """Folder of the unpacked archive: ratings.dat and movies.dat, or ratings.csv, movies.csv and
    tags.csv."""


def _publisher(name: str) -> Publisher:
    return Publisher(
        name, f"GroupLens offers it at https://grouplens.org/datasets/{_ARCHIVES[name]}"
    )


def load_dat(source: str, options: GroupLensOptions, _seed: int) -> RawData:
    """Reads MovieLens 1M: ratings.dat and movies.dat, separated by two colons, without header.

    Raises:
        DataError: if a file is absent, or a line is not what the layout says.
    """
    ratings, movies = _publisher(source).locate(options.dir, ("ratings.dat", "movies.dat"))
    events = _read_colons(ratings, _RATINGS)
    items = _read_colons(movies, ("movieId", "title", "genres"))
    return RawData(source, _events(events, ratings), _items(items), STARS_POSITIVE)


def load_csv(source: str, options: GroupLensOptions, _seed: int) -> RawData:
    """Reads MovieLens 25M, 32M and "latest small".

    Ratings.csv, movies.csv and, if present, tags.csv.

    Raises:
        DataError: if a file is absent, or lacks a column, or holds what it cannot.
    """
    ratings, movies = _publisher(source).locate(options.dir, ("ratings.csv", "movies.csv"))
    items = _items(read_separated(movies, ",", ("movieId", "title", "genres")))
    tags = ratings.with_name("tags.csv")
    notes: tuple[str, ...] = ()
    if tags.is_file():
        items = items.join(_tags(tags), on="item_id", how="left", maintain_order="left")
    else:
        notes = (f"{tags} is absent: items have genres and year, no tags",)
    return RawData(source, _events(_read_ratings(ratings), ratings), items, STARS_POSITIVE, notes)


def _read_ratings(path: Path) -> pl.DataFrame:
    """Parses numbers while reading: 32 million rows as text would take twice the memory."""
    try:
        typed = {"rating": pl.Float64, "timestamp": pl.Int64}
        return read_separated(path, ",", _RATINGS, schema=typed)
    except DataError:
        return read_separated(
            path, ",", _RATINGS
        )  # names the cause, or lets numbers() name the row


def _read_colons(path: Path, names: tuple[str, ...]) -> pl.DataFrame:
    content = path.read_bytes()
    if not content.strip():
        raise DataError(f"{path}: expected lines of {'::'.join(names)}, found an empty file")
    if b"::" not in content.split(b"\n", 1)[0]:
        raise DataError(f"{path}: line 1: expected {'::'.join(names)}, found no '::'")
    content = mixed_to_utf8(content).replace(b"\t", b" ").replace(b"::", b"\t")
    table = read_separated(path, "\t", header=names, quote=None, content=content)
    short = table[names[-1]].is_null()
    if short.any():
        row = short.arg_true()[0]
        raise DataError(
            f"{path}: line {row + 1}: expected {'::'.join(names)}, found too few fields"
        )
    return table


def _events(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    return table.select(
        user_id="userId",
        item_id="movieId",
        value=numbers(table, "rating", path),
        time=numbers(table, "timestamp", path).cast(pl.Int64),
    )


def _items(table: pl.DataFrame) -> pl.DataFrame:
    known = pl.element().is_in(["", "(no genres listed)"]).not_()
    return table.select(
        pl.col("movieId").alias("item_id"),
        "title",
        genres=pl.col("genres").str.strip_chars("\r ").str.split("|").list.filter(known),
        year=pl.col("title").str.extract(r"\((\d{4})\)\s*$").cast(pl.Float64),
    )


def _tags(path: Path) -> pl.DataFrame:
    """Returns item_id and tags: the lower-cased tags that any user gave the film."""
    table = read_separated(path, ",", ("userId", "movieId", "tag"))
    tag = pl.col("tag").str.strip_chars().str.to_lowercase()
    return (
        table.select(item_id="movieId", tags=tag)
        .filter(pl.col("tags").is_not_null() & (pl.col("tags") != ""))
        .unique(maintain_order=True)
        .group_by("item_id", maintain_order=True)
        .agg(pl.col("tags"))
    )
