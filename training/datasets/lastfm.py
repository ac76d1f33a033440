"""Reads Last.fm of HetRec 2011 (GroupLens and IR Group, UAM): listening counts and tags of artists.

I. Cantador, P. Brusilovsky, T. Kuflik, "Second Workshop on Information Heterogeneity and Fusion in
Recommender Systems", RecSys 2011. A weight is a count of listening events, so every pair is
positive.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from training.datasets.columns import numbers
from training.datasets.files import Publisher, mixed_to_utf8, read_separated
from training.interactions import RawData
from training.options import options

_PUBLISHER = Publisher(
    "lastfm-hetrec",
    "GroupLens offers it at https://grouplens.org/datasets/hetrec-2011/ (hetrec2011-lastfm-2k.zip)",
)
_FILES = ("user_artists.dat", "artists.dat", "user_taggedartists.dat", "tags.dat")


@options
class LastFmOptions:
    """Names the folder that holds the files."""

    dir: Path | None = None
    """Folder with user_artists.dat, artists.dat, user_taggedartists.dat and tags.dat."""


def load_lastfm(source: str, options: LastFmOptions, _seed: int) -> RawData:
    """Reads listening counts of artists, and the lower-cased tags that any user gave an artist.

    Raises:
        DataError: if a file is absent or empty, lacks a column, or holds what it cannot.
    """
    plays, artists, tagged, tags = _PUBLISHER.locate(options.dir, _FILES)
    events = _read(plays, ("userID", "artistID", "weight"))
    names = _read(artists, ("id", "name"))
    given = _read(tagged, ("userID", "artistID", "tagID"))
    texts = _read(tags, ("tagID", "tagValue"))
    text = pl.col("tagValue").str.strip_chars().str.to_lowercase()
    tags_of = (
        given.join(texts.select("tagID", tags=text), on="tagID", maintain_order="left")
        .select("tags", item_id="artistID")
        .filter(pl.col("tags").is_not_null() & (pl.col("tags") != ""))
        .unique(maintain_order=True)
        .group_by("item_id", maintain_order=True)
        .agg(pl.col("tags"))
    )
    return RawData(
        name=source,
        events=events.select(
            user_id="userID",
            item_id="artistID",
            value=numbers(events, "weight", plays),
            time=pl.lit(None, pl.Int64),
        ),
        items=names.select(item_id="id", title="name").join(
            tags_of, on="item_id", how="left", maintain_order="left"
        ),
        min_value=None,
    )


def _read(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    # Names are UTF-8, tags partly Latin-1, and neither is quoted.
    content = mixed_to_utf8(path.read_bytes()).replace(b"\r\n", b"\n")
    return read_separated(path, "\t", columns, quote=None, content=content)
