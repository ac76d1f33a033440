"""Publishers' files, good and bad."""

import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from training.datasets import load_data_set
from training.datasets.folder import FolderOptions
from training.datasets.movielens import MovieLensOptions, installed_folder
from training.datasets.synthetic import SyntheticOptions, generate
from training.errors import ConfigError, DataError
from training.interactions import AttributeKind, RawData, prepare

EVENTS = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [7, 8, 7], "rating": [5.0, 3.0, 4.0]})
ITEMS = pl.DataFrame(
    {"item_id": [7, 8], "title": ["Seven", None], "tags": [["x", "y"], []], "year": [1995, None]}
)


def folder(
    path: Path, events: pl.DataFrame | None = EVENTS, items: pl.DataFrame | None = ITEMS
) -> RawData:
    if events is not None:
        events.write_parquet(path / "interactions.parquet")
    if items is not None:
        items.write_parquet(path / "items.parquet")
    return load_data_set(str(path), FolderOptions(), 0)


def test_movielens_100k_is_whole() -> None:
    raw = load_data_set("ml-100k", MovieLensOptions(), 0)
    interactions, catalogue, _ = prepare(raw)
    assert (len(interactions.users), len(interactions.user_ids), catalogue.n_items) == (
        100_000,
        943,
        1682,
    )
    assert interactions.duplicate_count == 0
    assert "42" in interactions.user_ids
    assert catalogue.attributes == {"genres": AttributeKind.TAGS, "year": AttributeKind.NUMBER}
    toy_story = catalogue.items.row(by_predicate=pl.col("item_id") == "1", named=True)
    assert toy_story["title"] == "Toy Story"
    assert toy_story["genres"] == ["Animation", "Children's", "Comedy"]
    assert toy_story["year"] == 1995.0
    genres = set(
        catalogue.items["genres"].explode(empty_as_null=True, keep_nulls=True).drop_nulls()
    )
    assert {"Film-Noir", "Sci-Fi", "Children's"} <= genres
    assert len(genres) <= 19
    assert raw.min_value == 4.0


def test_the_package_with_the_files_is_never_imported() -> None:
    load_data_set("ml-100k", MovieLensOptions(), 0)
    assert "recbole" not in sys.modules


def test_an_absent_package_is_answered_with_how_to_install_it() -> None:
    with pytest.raises(
        DataError, match=r"found no such package.*pip install --no-deps recbole==1.2.1"
    ):
        installed_folder("a_package_that_nobody_has")


def test_absent_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ml-100k.inter and .*ml-100k.item, found none"):
        load_data_set("ml-100k", MovieLensOptions(dir=tmp_path), 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "ml-100k.inter: expected a header and rows, found an empty file"),
        (
            "user_id:token\titem_id:token\trating:float\n1\t1\t5\n",
            r"expected also the columns \['timestamp'\]",
        ),
        (
            "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t1\tfive\t0\n",
            "rating in row 1: expected a number, found 'five'",
        ),
    ],
)
def test_malformed_movielens_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "ml-100k.inter").write_text(content)
    (tmp_path / "ml-100k.item").write_text(
        "item_id:token\tmovie_title:t\trelease_year:t\tclass:t\n1\tA\t1995\tDrama\n"
    )
    with pytest.raises(DataError, match=message):
        load_data_set("ml-100k", MovieLensOptions(dir=tmp_path), 0)


def test_a_folder_gives_ids_as_text_and_attributes_by_type(tmp_path: Path) -> None:
    raw = folder(tmp_path)
    interactions, catalogue, _ = prepare(raw)
    assert interactions.user_ids == ("1", "2")
    assert catalogue.items["title"].to_list() == ["Seven", None]
    assert catalogue.attributes == {"tags": AttributeKind.TAGS, "year": AttributeKind.NUMBER}
    assert raw.min_value == 4.0


def test_positions_order_a_folders_events(tmp_path: Path) -> None:
    events = pl.DataFrame({"user_id": [1, 1], "item_id": [7, 8], "position": [1, 0]})
    raw = folder(tmp_path, events)
    interactions, _, _ = prepare(raw)
    assert [interactions.item_ids[item] for item in interactions.items] == ["8", "7"]
    assert raw.min_value is None


def test_ratings_with_gaps_make_every_event_positive_and_say_so(tmp_path: Path) -> None:
    raw = folder(tmp_path, EVENTS.with_columns(rating=pl.Series([5.0, None, 1.0])))
    assert raw.min_value is None
    assert "rating is null for 1 of 3 interactions" in raw.notes[0]


def test_a_scale_beyond_five_stars_has_no_threshold_of_its_own(tmp_path: Path) -> None:
    raw = folder(tmp_path, EVENTS.with_columns(rating=pl.Series([10.0, 2.0, 1.0])))
    assert raw.min_value is None
    assert "goes up to 10" in raw.notes[0]


@pytest.mark.parametrize(
    ("events", "items", "message"),
    [
        (
            EVENTS.drop("item_id"),
            ITEMS,
            r"interactions.parquet: expected also the columns \['item_id'\], found .*",
        ),
        (
            EVENTS,
            ITEMS.drop("item_id"),
            r"items.parquet: expected also the columns \['item_id'\], found .*",
        ),
        (EVENTS.clear(), ITEMS, "interactions.parquet: expected rows, found none"),
        (EVENTS, ITEMS.clear(), "items.parquet: expected rows, found none"),
        (None, ITEMS, r"interactions.parquet: expected a Parquet file, found none"),
        (EVENTS, None, r"items.parquet: expected a Parquet file, found none"),
        (
            EVENTS.with_columns(rating=pl.Series(["5", "good", "1"])),
            ITEMS,
            "rating in row 1: expected a number, found 'good'",
        ),
    ],
)
def test_bad_folders_get_a_clear_answer(
    tmp_path: Path, events: pl.DataFrame | None, items: pl.DataFrame | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        folder(tmp_path, events, items)


def test_a_file_that_is_not_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "interactions.parquet").write_text("user,item\n")
    with pytest.raises(DataError, match=r"interactions.parquet is not a Parquet file"):
        folder(tmp_path, None)


def test_every_real_data_set_can_be_read(data_sets: Path) -> None:
    found = sorted(path.parent for path in data_sets.glob("*/interactions.parquet"))
    assert found
    for path in found:
        interactions, catalogue, _ = prepare(load_data_set(str(path), FolderOptions(), 0))
        assert len(interactions.item_ids) == catalogue.n_items
        assert len(interactions.users) + interactions.duplicate_count > 50_000


def test_the_two_copies_of_movielens_100k_agree(data_sets: Path) -> None:
    wheel = prepare(load_data_set("ml-100k", MovieLensOptions(), 0))
    copy = prepare(load_data_set(str(data_sets / "ml-100k"), FolderOptions(), 0))
    assert wheel.interactions.user_ids == copy.interactions.user_ids
    assert np.array_equal(wheel.interactions.items, copy.interactions.items)
    assert wheel.catalogue.items.select("item_id", "genres").equals(
        copy.catalogue.items.select("item_id", "genres")
    )


def test_generated_data_follow_the_seed_and_the_settings() -> None:
    options = SyntheticOptions(
        n_users=100, n_items=60, n_concepts=5, noise=0.0, second_concept_share=0.0, interests=2
    )
    first, again, other = (generate("synthetic", options, seed) for seed in (1, 1, 2))
    assert first.events.equals(again.events)
    assert not first.events.equals(other.events)
    concepts = dict(zip(first.items["item_id"], first.items["concepts"].list.first(), strict=True))
    assert len(set(concepts.values())) == 5
    for _, events in first.events.group_by("user_id"):
        assert len(events) >= 5
        assert len({concepts[item] for item in events["item_id"]}) <= 2


@pytest.mark.parametrize(
    "wrong",
    [{"n_users": 0}, {"interests": 13}, {"n_items": 3}, {"noise": 1.5}, {"mean_events": 0.0}],
)
def test_generator_settings_without_meaning_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        SyntheticOptions(**wrong)  # type: ignore[arg-type]
