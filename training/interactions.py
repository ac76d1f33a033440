"""Prepares users' interactions with items, and the catalogue of the items."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import NamedTuple

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix

from training.arrays import Doubles, Ints
from training.errors import DataError
from training.histories import Histories

EVENT_SCHEMA = {"user_id": pl.String, "item_id": pl.String, "value": pl.Float64, "time": pl.Int64}


class AttributeKind(Enum):
    """The kind of values in an attribute's column."""

    TAGS = "tags"
    TEXT = "text"
    NUMBER = "number"


class RawData(NamedTuple):
    """The result of a data set's loader.

    events has the columns of EVENT_SCHEMA in the publisher's order, value and time null where
    unknown; items has item_id, title and one column an attribute. min_value is the scale's
    threshold for a positive event, None where every event is one.
    """

    name: str
    events: pl.DataFrame
    items: pl.DataFrame
    min_value: float | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Catalogue:
    """The items, in the order of their index.

    items has the columns item_id (String), title (String or null), popularity (Int64, positive
    events of the training users), then one column an attribute: List(String), String or Float64.
    """

    items: pl.DataFrame

    @property
    def n_items(self) -> int:
        """Returns the size of the catalogue."""
        return self.items.height

    @property
    def popularity(self) -> Ints:
        """Returns the positive events of the training users, [n_items]."""
        return self.items["popularity"].to_numpy()

    @property
    def attributes(self) -> dict[str, AttributeKind]:
        """Returns the kind of each attribute, in the order of the columns."""
        kinds = {}
        for name, dtype in self.items.schema.items():
            if name not in ("item_id", "title", "popularity"):
                kinds[name] = _attribute_kind(dtype)
        return kinds

    def with_popularity(self, popularity: Ints) -> Catalogue:
        """Returns the same items with other counts, [n_items]."""
        return Catalogue(
            self.items.with_columns(pl.Series("popularity", popularity, dtype=pl.Int64))
        )


@dataclass(frozen=True)
class Interactions:
    """Distinct user-item pairs, ordered by user, then time, then the publisher's order.

    users and items are indices [n_events]; value float64, NaN where unknown; time int64 in the
    publisher's unit, -1 where unknown (such events come first). duplicate_count repeated events
    were dropped, the latest kept.
    """

    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    users: Ints
    items: Ints
    value: Doubles
    time: Ints
    duplicate_count: int

    def positives(self, min_value: float | None) -> Histories:
        """Returns each user's positive items, oldest first.

        Value >= min_value, or all if that is None.
        """
        positive = (
            np.ones(len(self.users), dtype=np.bool_)
            if min_value is None
            else self.value >= min_value
        )
        counts = np.bincount(self.users[positive], minlength=len(self.user_ids))
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return Histories(offsets, self.items[positive])

    def positive_matrix(self, min_value: float | None) -> csr_matrix:
        """Returns the positive items as float32 [n_users, n_items]."""
        return self.positives(min_value).matrix(len(self.item_ids))

    @property
    def untimed_count(self) -> int:
        """Counts the events with neither time nor position."""
        return int((self.time == -1).sum())

    @cached_property
    def density(self) -> float:
        """Returns the share of the user-item pairs that occurred."""
        return len(self.users) / (len(self.user_ids) * len(self.item_ids))


class Prepared(NamedTuple):
    """A data set in index form."""

    interactions: Interactions
    catalogue: Catalogue
    notes: tuple[str, ...]


def prepare(raw: RawData) -> Prepared:
    """Numbers users and items, drops repeated pairs, joins metadata.

    The catalogue is every item that occurs in an event; items without metadata stay, title and
    attributes null.

    Raises:
        DataError: if there are no events, or an id is null.
    """
    if raw.events.is_empty():
        raise DataError(f"{raw.name}: expected at least one interaction, found none")
    for column in ("user_id", "item_id"):
        if missing := raw.events[column].null_count():
            raise DataError(f"{raw.name}: {missing} interactions have no {column}")
    events = raw.events.with_row_index("row")
    distinct = events.sort("time", "row", nulls_last=False).unique(
        ["user_id", "item_id"], keep="last", maintain_order=True
    )
    user_ids = events["user_id"].unique().sort()
    item_ids = events["item_id"].unique().sort()
    ordered = distinct.with_columns(
        user=pl.col("user_id").replace_strict(
            user_ids, np.arange(len(user_ids)), return_dtype=pl.Int64
        ),
        item=pl.col("item_id").replace_strict(
            item_ids, np.arange(len(item_ids)), return_dtype=pl.Int64
        ),
    ).sort("user", "time", "row", nulls_last=False)
    interactions = Interactions(
        user_ids=tuple(user_ids),
        item_ids=tuple(item_ids),
        users=ordered["user"].to_numpy(),
        items=ordered["item"].to_numpy(),
        value=ordered["value"].fill_null(float("nan")).to_numpy(),
        time=ordered["time"].fill_null(-1).to_numpy(),
        duplicate_count=events.height - ordered.height,
    )
    catalogue = _catalogue(item_ids, raw.items)
    return Prepared(interactions, catalogue, raw.notes + _notes(interactions, catalogue, raw.items))


def core(raw: RawData, user_core: int, item_core: int) -> RawData:
    """Keeps users with at least user_core items and items with at least item_core users.

    Raises:
        DataError: if nothing is left.
    """
    before = pairs = raw.events.select("user_id", "item_id").unique()
    removed = {"user_id": 0, "item_id": 0}
    while True:
        height = pairs.height
        for column, least in (("user_id", user_core), ("item_id", item_core)):
            kept = pairs.filter(pl.len().over(column) >= least)
            removed[column] += pairs.height - kept.height
            pairs = kept
        if pairs.height == height:
            break
    if pairs.is_empty():
        raise DataError(
            f"{raw.name}: no user has {user_core} items that each have {item_core} users: "
            "lower the cores"
        )
    if pairs.height == before.height:
        return raw
    events = raw.events.join(pairs, on=["user_id", "item_id"], how="semi", maintain_order="left")
    stay = " and ".join(
        f"{pairs[column].n_unique()} of {before[column].n_unique()} {word} stay"
        for column, word in (("user_id", "users"), ("item_id", "items"))
    )
    note = (
        f"of {before.height} pairs the core of {user_core} items a user removed "
        f"{removed['user_id']}, that of {item_core} users an item {removed['item_id']}: {stay}"
    )
    return raw._replace(events=events, notes=(*raw.notes, note))


def _catalogue(item_ids: pl.Series, metadata: pl.DataFrame) -> Catalogue:
    items = pl.DataFrame({"item_id": item_ids}).join(
        metadata.unique("item_id", keep="last", maintain_order=True),
        on="item_id",
        how="left",
        maintain_order="left",
    )
    attributes = [name for name in items.columns if name not in ("item_id", "title")]
    return Catalogue(
        items.select("item_id", "title", pl.lit(0, pl.Int64).alias("popularity"), *attributes)
    )


def _notes(
    interactions: Interactions, catalogue: Catalogue, metadata: pl.DataFrame
) -> tuple[str, ...]:
    notes = []
    if interactions.duplicate_count:
        notes.append(
            f"{interactions.duplicate_count} repeated user-item pairs: "
            "the latest event of each was kept"
        )
    bare = catalogue.items.join(metadata.select("item_id"), on="item_id", how="anti").height
    if bare:
        notes.append(f"{bare} items have no metadata: kept without title and attributes")
    return tuple(notes)


def _attribute_kind(dtype: pl.DataType) -> AttributeKind:
    if dtype == pl.List(pl.String):
        return AttributeKind.TAGS
    if dtype == pl.String:
        return AttributeKind.TEXT
    if dtype == pl.Float64:
        return AttributeKind.NUMBER
    raise DataError(f"attribute: expected List(String), String or Float64, found {dtype}")
