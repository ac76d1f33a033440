"""Reads Amazon Reviews 2023 (McAuley Lab, UC San Diego): reviews and metadata of a category.

Y. Hou et al., "Bridging Language and Items for Retrieval and Recommendation", arXiv 2403.03952.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from training.datasets.columns import STARS_POSITIVE
from training.datasets.files import Publisher, Schema, read_json_lines
from training.errors import DataError
from training.interactions import RawData
from training.options import options

_PUBLISHER = Publisher(
    "amazon-2023",
    "The McAuley Lab offers them by category at https://amazon-reviews-2023.github.io/",
)
_SUFFIXES = (".jsonl.gz", ".jsonl")
_REVIEW: Schema = {
    "user_id": pl.String,
    "parent_asin": pl.String,
    "rating": pl.Float64,
    "timestamp": pl.Int64,
}
_META: Schema = {
    "parent_asin": pl.String,
    "title": pl.String,
    "store": pl.String,
    "categories": pl.List(pl.String),
}


@options
class AmazonOptions:
    """Names the folder that holds the files, and the category."""

    dir: Path | None = None
    """Folder with CATEGORY.jsonl and meta_CATEGORY.jsonl, plain or gzipped (.gz)."""
    category: str | None = None
    """Category as the files' names write it, such as All_Beauty, where the folder holds more than
    one."""


def load_amazon(source: str, options: AmazonOptions, _seed: int) -> RawData:
    """Reads reviews as ratings of products (parent_asin), and their metadata; times are in ms.

    Raises:
        DataError: if a file is absent or ambiguous, lacks a field, or holds what it cannot.
    """
    category = options.category or _only_category(options.dir)
    reviews = _file(options.dir, category)
    meta = _file(options.dir, f"meta_{category}")
    events = read_json_lines(reviews, list(_REVIEW), _REVIEW)
    items = read_json_lines(meta, ("parent_asin", "title"), _META)
    return RawData(
        name=f"{source} {category}",
        events=events.select("user_id", item_id="parent_asin", value="rating", time="timestamp"),
        items=items.select(pl.col("parent_asin").alias("item_id"), "title", "categories", "store"),
        min_value=STARS_POSITIVE,
    )


def _only_category(folder: Path | None) -> str:
    names: set[str] = set()
    if folder is not None and folder.is_dir():
        files = {path.name for path in folder.iterdir()}
        names = {
            name.removesuffix(end) for name in files for end in _SUFFIXES if name.endswith(end)
        }
        names = {name for name in names if not name.startswith("meta_")}
    if len(names) > 1:
        categories = ", ".join(sorted(names))
        raise DataError(
            f"{folder}: expected one category, found {categories}: choose with --data-category"
        )
    if not names:
        _PUBLISHER.locate(folder, ("CATEGORY.jsonl[.gz]", "meta_CATEGORY.jsonl[.gz]"))
    return names.pop()


def _file(folder: Path | None, stem: str) -> Path:
    for suffix in _SUFFIXES:
        if folder is not None and (path := folder / f"{stem}{suffix}").is_file():
            return path
    return _PUBLISHER.locate(folder, (f"{stem}.jsonl[.gz]",))[0]
