"""Reads small files in the publishers' formats, and checks that malformed ones are refused."""

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from training.datasets import DATASETS, load_data_set
from training.datasets.folder import FolderOptions
from training.errors import DataError
from training.interactions import AttributeKind, Prepared, RawData, prepare

RATINGS_DAT = "1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n"
MOVIES_DAT = (
    "661::James and the Giant Peach (1996)::Animation|Children's|Musical\n"
    "1193::One Flew Over the Cuckoo's Nest (1975)::Drama\n"
    "73::Misérables, Les (1995)::Drama|Musical\n"
)
RATINGS_CSV = (
    "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3,0.5,964981247\n2,3,5.0,1445714835\n"
)
MOVIES_CSV = (
    "movieId,title,genres\n1,Toy Story (1995),Adventure|Animation\n"
    '3,"American President, The (1995)",(no genres listed)\n'
)
TAGS_CSV = (
    "userId,movieId,tag,timestamp\n"
    "2,1,Pixar,1445714994\n7,1,pixar ,1445714996\n2,1,fun,1445714992\n"
)
REVIEWS = [
    {"rating": 5.0, "title": "Good", "text": "é", "images": [], "asin": "A1", "parent_asin": "P1"}
    | {"user_id": "AG", "timestamp": 1588687728923, "helpful_vote": 0, "verified_purchase": True},
    {
        "rating": 2.0,
        "title": "Bad",
        "text": "",
        "images": [{"u": 1}],
        "asin": "A2",
        "parent_asin": "P2",
    }
    | {"user_id": "AH", "timestamp": 1588687728924, "helpful_vote": 3, "verified_purchase": False},
]
META: list[dict[str, Any]] = [
    {
        "main_category": "All Beauty",
        "title": "Spray",
        "average_rating": 4.8,
        "price": None,
        "store": "Howard",
    }
    | {"categories": ["Hair", "Sprays"], "details": {"Brand": "Howard"}, "parent_asin": "P1"},
    {
        "main_category": "All Beauty",
        "title": "Oil",
        "average_rating": 4.5,
        "price": "9.99",
        "store": None,
    }
    | {"categories": [], "details": {}, "parent_asin": "P2"},
]
LASTFM = {
    "user_artists.dat": "userID\tartistID\tweight\r\n2\t51\t13883\r\n2\t52\t11690\r\n3\t51\t7\r\n",
    "artists.dat": "id\tname\turl\tpictureURL\r\n51\tDuran Duran\thttp://a\thttp://b\r\n52\tBjörk\thttp://c\t\r\n",
    "user_taggedartists.dat": (
        "userID\tartistID\ttagID\tday\tmonth\tyear\r\n2\t52\t13\t1\t4\t2009\r\n"
        "3\t52\t13\t1\t4\t2009\r\n2\t52\t15\t1\t4\t2009\r\n2\t51\t99\t1\t4\t2009\r\n"
    ),
    "tags.dat": "tagID\ttagValue\r\n13\tChillout\r\n15\tdüster\r\n",
}


def load(name: str, folder: Path | None, **options: Any) -> RawData:
    return load_data_set(name, DATASETS[name].options(dir=folder, **options), 0)


def row(result: Prepared, item_id: str) -> dict[str, Any]:
    return result.catalogue.items.row(by_predicate=pl.col("item_id") == item_id, named=True)


def write_dat(
    folder: Path, ratings: str = RATINGS_DAT, movies: bytes = MOVIES_DAT.encode("latin-1")
) -> None:
    (folder / "ratings.dat").write_text(ratings)
    (folder / "movies.dat").write_bytes(movies)


def write_csv(folder: Path, ratings: str = RATINGS_CSV) -> None:
    (folder / "ratings.csv").write_text(ratings)
    (folder / "movies.csv").write_text(MOVIES_CSV)
    (folder / "tags.csv").write_text(TAGS_CSV)


def write_amazon(folder: Path, category: str = "All_Beauty", packed: bool = False) -> None:
    for stem, rows in ((category, REVIEWS), (f"meta_{category}", META)):
        text = "".join(json.dumps(line) + "\n" for line in rows).encode()
        path = folder / f"{stem}.jsonl{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(text) if packed else text)


def write_lastfm(folder: Path) -> None:
    for name, text in LASTFM.items():
        (folder / name).write_bytes(text.encode("latin-1" if name == "tags.dat" else "utf-8"))


def test_movielens_1m_reads_colons_and_latin_1(tmp_path: Path) -> None:
    write_dat(tmp_path)
    raw = load("ml-1m", tmp_path)
    assert raw.min_value == 4.0
    assert raw.events.rows() == [
        ("1", "1193", 5.0, 978300760), ("1", "661", 3.0, 978302109), ("2", "1193", 4.0, 978298413),
    ]  # fmt: skip
    assert raw.items["title"].to_list()[2] == "Misérables, Les (1995)"
    result = prepare(raw)
    assert row(result, "661")["genres"] == ["Animation", "Children's", "Musical"]
    assert row(result, "1193")["year"] == 1975.0
    assert result.catalogue.attributes == {
        "genres": AttributeKind.TAGS,
        "year": AttributeKind.NUMBER,
    }


def test_a_copy_of_movielens_1m_with_lines_in_both_encodings_is_read_line_by_line(
    tmp_path: Path,
) -> None:
    latin = MOVIES_DAT.encode("latin-1")
    utf8 = "74::Amélie (2001)::Comedy\n".encode()
    write_dat(tmp_path, movies=latin + utf8)
    assert load("ml-1m", tmp_path).items["title"].to_list()[2:] == [
        "Misérables, Les (1995)",
        "Amélie (2001)",
    ]


@pytest.mark.parametrize("name", ["ml-25m", "ml-32m", "ml-latest-small"])
def test_movielens_csv_gives_genres_year_and_lower_cased_tags(name: str, tmp_path: Path) -> None:
    write_csv(tmp_path)
    raw = load(name, tmp_path)
    assert raw.events.rows() == [
        ("1", "1", 4.0, 964982703), ("1", "3", 0.5, 964981247), ("2", "3", 5.0, 1445714835),
    ]  # fmt: skip
    assert (raw.name, raw.min_value, raw.notes) == (name, 4.0, ())
    result = prepare(raw)
    assert row(result, "1")["tags"] == ["pixar", "fun"]
    other = row(result, "3")
    assert (other["title"], other["genres"], other["tags"]) == (
        "American President, The (1995)",
        [],
        None,
    )
    assert other["year"] == 1995.0


def test_movielens_without_tags_is_read_and_said(tmp_path: Path) -> None:
    write_csv(tmp_path)
    (tmp_path / "tags.csv").unlink()
    raw = load("ml-25m", tmp_path)
    assert "tags" not in raw.items.columns
    assert "tags.csv is absent" in raw.notes[0]


def test_the_archives_own_folder_inside_the_one_named_is_found(tmp_path: Path) -> None:
    (tmp_path / "ml-1m").mkdir()
    write_dat(tmp_path / "ml-1m")
    assert load("ml-1m", tmp_path).events.height == 3


@pytest.mark.parametrize("packed", [False, True])
def test_amazon_reviews_are_read_plain_and_packed(packed: bool, tmp_path: Path) -> None:
    write_amazon(tmp_path, packed=packed)
    raw = load("amazon-2023", tmp_path)
    assert raw.events.rows() == [("AG", "P1", 5.0, 1588687728923), ("AH", "P2", 2.0, 1588687728924)]
    assert (raw.name, raw.min_value) == ("amazon-2023 All_Beauty", 4.0)
    result = prepare(raw)
    spray = row(result, "P1")
    assert (spray["title"], spray["categories"], spray["store"]) == (
        "Spray",
        ["Hair", "Sprays"],
        "Howard",
    )
    assert result.catalogue.attributes == {
        "categories": AttributeKind.TAGS,
        "store": AttributeKind.TEXT,
    }


def test_of_several_amazon_categories_one_must_be_chosen(tmp_path: Path) -> None:
    write_amazon(tmp_path)
    write_amazon(tmp_path, "Software", packed=True)
    with pytest.raises(DataError, match=r"found All_Beauty, Software: choose with --data-category"):
        load("amazon-2023", tmp_path)
    assert load("amazon-2023", tmp_path, category="Software").name == "amazon-2023 Software"
    with pytest.raises(DataError, match=r"expected Toys.jsonl\[.gz\] in .*found All_Beauty.jsonl"):
        load("amazon-2023", tmp_path, category="Toys")


def test_lastfm_counts_are_implicit_and_tags_lower_cased(tmp_path: Path) -> None:
    write_lastfm(tmp_path)
    raw = load("lastfm-hetrec", tmp_path)
    assert raw.min_value is None
    assert raw.events.rows() == [
        ("2", "51", 13883.0, None), ("2", "52", 11690.0, None), ("3", "51", 7.0, None),
    ]  # fmt: skip
    result = prepare(raw)
    assert row(result, "52")["title"] == "Björk"
    assert row(result, "52")["tags"] == ["chillout", "düster"]
    assert row(result, "51")["tags"] is None


@pytest.mark.parametrize(
    ("name", "files", "page"),
    [
        ("ml-1m", "ratings.dat and movies.dat", "grouplens.org/datasets/movielens/1m/"),
        ("ml-25m", "ratings.csv and movies.csv", "grouplens.org/datasets/movielens/25m/"),
        ("ml-32m", "ratings.csv and movies.csv", "grouplens.org/datasets/movielens/32m/"),
        (
            "ml-latest-small",
            "ratings.csv and movies.csv",
            "grouplens.org/datasets/movielens/latest/",
        ),
        ("amazon-2023", "CATEGORY.jsonl", "amazon-reviews-2023.github.io"),
        (
            "lastfm-hetrec",
            "user_artists.dat and artists.dat",
            "grouplens.org/datasets/hetrec-2011/",
        ),
    ],
)
def test_absent_files_are_answered_with_what_where_and_who_offers_them(
    name: str, files: str, page: str, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("")
    for folder, where in (
        (tmp_path, f"in {tmp_path}, found notes.txt"),
        (tmp_path / "no", f"in {tmp_path / 'no'}, found no such folder"),
        (None, "expected --data-dir, the folder of"),
    ):
        with pytest.raises(DataError) as caught:
            load(name, folder)
        assert files in str(caught.value)
        assert where in str(caught.value)
        assert page in str(caught.value)


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        ("", r"ratings.dat: expected lines of userId::movieId::rating::timestamp, found an empty"),
        ("1\t2\t3\t4\n", r"ratings.dat: line 1: expected .*, found no '::'"),
        ("1::1193::5::1\n1::661::3\n", r"ratings.dat: line 2: expected .*, found too few fields"),
        ("1::1193::5::1\n1::661::3::2::9\n", r"ratings.dat is not a table"),
        ("1::1193::5::1\n1::661::good::2\n", r"rating in row 2: expected a number, found 'good'"),
        ("1::1193::5::today\n", r"timestamp in row 1: expected a number, found 'today'"),
    ],
)
def test_malformed_lines_of_movielens_1m_are_named(
    ratings: str, message: str, tmp_path: Path
) -> None:
    write_dat(tmp_path, ratings)
    with pytest.raises(DataError, match=message):
        load("ml-1m", tmp_path)


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        ("", r"ratings.csv: expected rows, found an empty file"),
        ("userId,movieId,rating,timestamp\n", r"ratings.csv: expected rows, found a header alone"),
        (
            "user,movieId,rating,timestamp\n1,1,4,5\n",
            r"expected also the columns \['userId'\], found \['user', ",
        ),
        (
            "userId,movieId,rating,timestamp\n1,1,4,5\n1,2,x,5\n",
            r"rating in row 2: expected a number, found 'x'",
        ),
        ("userId,movieId,rating,timestamp\n1,1,4,5\n1,2,3,5,6\n", r"ratings.csv is not a table"),
    ],
)
def test_malformed_movielens_csv_is_named(ratings: str, message: str, tmp_path: Path) -> None:
    write_csv(tmp_path, ratings)
    with pytest.raises(DataError, match=message):
        load("ml-25m", tmp_path)


@pytest.mark.parametrize(
    ("reviews", "message"),
    [
        ("", r"All_Beauty.jsonl: expected .*, found an empty file"),
        ("\n\n", r"All_Beauty.jsonl: expected .*, found an empty file"),
        ("user_id,rating\n", r"All_Beauty.jsonl is not JSON lines"),
        ('[{"user_id": "A"}]\n', r"line 1: expected one JSON object a line, found an array"),
        (
            '{"user_id": "A", "rating": 5.0}\n',
            r"expected also the columns \['parent_asin', 'timestamp'\]",
        ),
        (
            '{"user_id": "A", "parent_asin": "P1", "rating": "good", "timestamp": 1}\n',
            r"All_Beauty.jsonl .*cannot parse 'good'",
        ),
    ],
)
def test_malformed_amazon_reviews_are_named(reviews: str, message: str, tmp_path: Path) -> None:
    write_amazon(tmp_path)
    (tmp_path / "All_Beauty.jsonl").write_text(reviews)
    with pytest.raises(DataError, match=message):
        load("amazon-2023", tmp_path)


def test_a_damaged_packed_file_is_named(tmp_path: Path) -> None:
    write_amazon(tmp_path, packed=True)
    (tmp_path / "All_Beauty.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match=r"All_Beauty.jsonl.gz is not JSON lines"):
        load("amazon-2023", tmp_path)


def test_lastfm_files_with_other_columns_or_words_for_counts_are_named(tmp_path: Path) -> None:
    write_lastfm(tmp_path)
    (tmp_path / "user_artists.dat").write_text("userID\tartistID\tweight\n2\t51\tmany\n")
    with pytest.raises(DataError, match="weight in row 1: expected a number, found 'many'"):
        load("lastfm-hetrec", tmp_path)
    (tmp_path / "user_artists.dat").write_text("user\tartist\n2\t51\n")
    with pytest.raises(
        DataError, match=r"expected also the columns \['userID', 'artistID', 'weight'\]"
    ):
        load("lastfm-hetrec", tmp_path)


def test_movielens_1m_written_as_published_reads_like_the_folder(
    data_sets: Path, tmp_path: Path
) -> None:
    """The copy's ratings and times are whole for the users up to 2999."""
    events = pl.read_parquet(data_sets / "ml-1m" / "interactions.parquet").filter(
        pl.col("user_id") <= 2999
    )
    items = pl.read_parquet(data_sets / "ml-1m" / "items.parquet")
    assert events["rating"].null_count() == 0
    line = pl.format(
        "{}::{}::{}::{}", "user_id", "item_id", pl.col("rating").cast(pl.Int64), "timestamp"
    )
    (tmp_path / "ratings.dat").write_text("\n".join(events.select(line).to_series()) + "\n")
    line = pl.format("{}::{}::{}", "item_id", "title", pl.col("genres").list.join("|"))
    text = "\n".join(items.select(line).to_series()) + "\n"
    (tmp_path / "movies.dat").write_bytes(text.encode("latin-1"))
    events.write_parquet(tmp_path / "interactions.parquet")
    items.write_parquet(tmp_path / "items.parquet")
    published = load("ml-1m", tmp_path)
    folder = load_data_set(str(tmp_path), FolderOptions(), 0)
    assert published.events.equals(folder.events)
    assert published.events.height == 487_650
    assert published.min_value == folder.min_value == 4.0
    columns = ["item_id", "title", "genres", "year"]
    assert published.items.select(columns).equals(folder.items.select(columns))


def test_ratings_that_are_partly_unknown_count_as_positive_all(data_sets: Path) -> None:
    raw = load_data_set(str(data_sets / "ml-1m"), FolderOptions(), 0)
    unknown = 512_559 - 154_034
    assert raw.min_value is None
    assert (
        f"rating is null for {unknown} of 1000209 interactions: every interaction counts"
        in raw.notes[0]
    )
    interactions = prepare(raw).interactions
    assert len(interactions.positives(None).items) == 1_000_209
    known = len(interactions.positives(1.0).items)
    assert known == 1_000_209 - unknown  # with a threshold, an unknown rating is not positive


def test_movielens_latest_small_written_as_published_reads_like_the_copy(
    data_sets: Path, tmp_path: Path
) -> None:
    source = data_sets / "ml-latest-small"
    events, items, tags = (
        pl.read_parquet(source / f"{name}.parquet") for name in ("interactions", "items", "tags")
    )
    events.rename({"user_id": "userId", "item_id": "movieId"}).write_csv(tmp_path / "ratings.csv")
    genres = pl.col("genres").list.join("|").replace("", "(no genres listed)")
    items.select("title", genres, movieId="item_id").write_csv(tmp_path / "movies.csv")
    tags.rename({"user_id": "userId", "item_id": "movieId"}).write_csv(tmp_path / "tags.csv")
    result = prepare(load("ml-latest-small", tmp_path))
    assert len(result.interactions.users) == 100_836
    assert (len(result.interactions.user_ids), result.catalogue.n_items) == (610, 9_724)
    rated = result.catalogue.items
    assert rated["title"].null_count() == 0
    assert "pixar" in row(result, "1")["tags"]
    distinct = tags.filter(pl.col("item_id").cast(pl.String).is_in(rated["item_id"].implode()))
    distinct = distinct.select(
        "item_id", pl.col("tag").str.strip_chars().str.to_lowercase()
    ).unique()
    assert rated["tags"].list.len().sum() == distinct.height
