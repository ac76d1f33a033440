"""Membership of items in concepts, and the names that attribute values get as concepts."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix

from training.arrays import Bools, Ints
from training.concepts.config import ConceptConfig
from training.interactions import AttributeKind, Catalogue


class Membership(NamedTuple):
    """Names and attributes of concepts, and matrix float32 [n_concepts, n_items], 1 for members."""

    names: tuple[str, ...]
    attributes: tuple[str, ...]
    matrix: csr_matrix

    @property
    def item_counts(self) -> Ints:
        """Returns the number of items of each concept, [n_concepts]."""
        counts: Ints = np.diff(self.matrix.indptr).astype(np.int64)
        return counts


def memberships(catalogue: Catalogue, config: ConceptConfig) -> Membership:
    """Returns every value of a TAGS or TEXT attribute that enough items, but not all, carry.

    A value's name is the value itself, or "attribute=value" where two attributes share it.
    """
    values: list[tuple[str, str, list[int]]] = []
    for attribute, kind in catalogue.attributes.items():
        if kind is not AttributeKind.NUMBER:
            values += [(attribute, *entry) for entry in _values(catalogue, attribute, config)]
    shared = Counter(value for _, value, _ in values)
    names = tuple(
        value if shared[value] == 1 else f"{attribute}={value}" for attribute, value, _ in values
    )
    lengths = [len(items) for *_, items in values]
    indices = np.concatenate(
        [np.asarray(items, dtype=np.int64) for *_, items in values] or [np.zeros(0, np.int64)]
    )
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ones = np.ones(len(indices), dtype=np.float32)
    matrix = csr_matrix((ones, indices, offsets), shape=(len(values), catalogue.n_items))
    return Membership(names, tuple(attribute for attribute, *_ in values), matrix)


def items_with(catalogue: Catalogue, attribute: str, value: str) -> Bools | None:
    """Flags the items that carry a value of an attribute, [n_items]; None if it has no texts."""
    kind = catalogue.attributes.get(attribute)
    if kind is None or kind is AttributeKind.NUMBER:
        return None
    column = pl.col(attribute)
    carries = column.list.contains(value) if kind is AttributeKind.TAGS else column == value
    flags: Bools = catalogue.items.select(carries.fill_null(False)).to_series().to_numpy()
    return flags


def _values(
    catalogue: Catalogue, attribute: str, config: ConceptConfig
) -> list[tuple[str, list[int]]]:
    """Lists pairs of a value and its items in order, the most frequent value first."""
    column = catalogue.items.select(
        pl.int_range(pl.len()).alias("item"), pl.col(attribute).alias("value")
    )
    if column.schema["value"] == pl.List(pl.String):
        column = column.explode("value", empty_as_null=True, keep_nulls=True)
    grouped = (
        column.filter(pl.col("value").is_not_null() & (pl.col("value") != ""))
        .unique()
        .group_by("value")
        .agg(pl.col("item").sort(), count=pl.len())
        .filter((pl.col("count") >= config.min_items) & (pl.col("count") < catalogue.n_items))
        .sort(pl.col("count"), pl.col("value"), descending=[True, False])
        .head(config.max_values)
    )
    return list(zip(grouped["value"].to_list(), grouped["item"].to_list(), strict=True))
