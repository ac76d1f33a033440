"""Any table of interactions, and what is said of tables that are not so."""

import gzip
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from training.cli import train
from training.config import TrainConfig
from training.datasets import load_data_set
from training.datasets.table import TableOptions
from training.errors import ConfigError, DataError
from training.interactions import AttributeKind, RawData, prepare

COLUMNS = "user=uid,item=sku,time=ts,rating=stars"
CSV = "uid,sku,ts,stars,shop\nu1,0042,30,5,x\nu1,b,20,3.5,y\nu2,b,10,,\n"
FRAME = pl.DataFrame(
    {
        "uid": ["u1", "u1", "u2"],
        "sku": ["0042", "b", "b"],
        "ts": [30, 20, 10],
        "stars": [5.0, 3.5, None],
    }
)
ITEMS = (
    "sku,name,kind,maker,price,popularity\n"
    '0042,"Lamp, red",Light|Home,Ikon,9.5,7\nb,Chair,Home,,,3\n'
)


def table(path: Path, content: str | bytes, **options: Any) -> RawData:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_data_set(str(path), TableOptions(**options), 0)


def rows(raw: RawData) -> list[tuple[Any, ...]]:
    return raw.events.rows()


EXPECTED = [("u1", "0042", 5.0, 30), ("u1", "b", 3.5, 20), ("u2", "b", None, 10)]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_csv_file_is_read_by_its_column_names(separator: str, tmp_path: Path) -> None:
    raw = table(tmp_path / "clicks.csv", CSV.replace(",", separator), columns=COLUMNS)
    assert rows(raw) == EXPECTED
    assert raw.name == "clicks"


def test_parquet_json_lines_and_packed_files_say_the_same(tmp_path: Path) -> None:
    FRAME.write_parquet(tmp_path / "t.parquet")
    FRAME.write_ndjson(tmp_path / "t.jsonl")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    (tmp_path / "t.ndjson.gz").write_bytes(gzip.compress((tmp_path / "t.jsonl").read_bytes()))
    for name in ("t.parquet", "t.jsonl", "t.csv.gz", "t.ndjson.gz"):
        assert (
            rows(load_data_set(str(tmp_path / name), TableOptions(columns=COLUMNS), 0)) == EXPECTED
        ), name


def test_the_usual_names_need_no_mapping(tmp_path: Path) -> None:
    raw = table(tmp_path / "t.csv", "user_id,item_id,rating\n1,7,5\n2,8,4\n")
    assert rows(raw) == [("1", "7", 5.0, None), ("2", "8", 4.0, None)]
    assert raw.min_value == 4.0
    with pytest.raises(
        DataError, match=r"expected a column 'user_id', found uid, .*name yours with --columns"
    ):
        table(tmp_path / "t.csv", CSV)


def test_other_columns_of_the_items_become_attributes(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(ITEMS)
    raw = table(
        tmp_path / "t.csv", CSV, columns=COLUMNS, items=tmp_path / "items.csv",
        item_columns="item=sku,title=name", list_separator="|",
    )  # fmt: skip
    catalogue = prepare(raw).catalogue
    assert catalogue.attributes == {
        "kind": AttributeKind.TAGS,
        "maker": AttributeKind.TEXT,
        "price": AttributeKind.NUMBER,
        "given_popularity": AttributeKind.NUMBER,  # the catalogue counts its own
    }
    lamp, chair = catalogue.items.rows(named=True)
    assert (lamp["title"], lamp["kind"], lamp["maker"], lamp["price"]) == (
        "Lamp, red", ["Light", "Home"], "Ikon", 9.5,
    )  # fmt: skip
    assert (chair["kind"], chair["maker"], chair["price"]) == (["Home"], None, None)


def test_lists_in_json_lines_are_tags_and_nested_columns_are_left_out(tmp_path: Path) -> None:
    lines = [
        {"item_id": "b", "tags": ["x", "y"], "size": {"w": 1}},
        {"item_id": "c", "tags": [], "size": None},
    ]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    raw = table(tmp_path / "t.csv", CSV, columns=COLUMNS, items=tmp_path / "items.jsonl")
    assert prepare(raw).catalogue.attributes == {"tags": AttributeKind.TAGS}
    assert any("column size holds Struct" in note for note in raw.notes)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2024-05-31", "2024-06-01"),
        ("2024-05-31 12:00:00", "2024-05-31 12:00:01"),
        ("2024-05-31T12:00:00Z", "2024-05-31T12:00:01Z"),
        ("2024-05-31T23:00:00+02:00", "2024-05-31T22:00:00+00:00"),
    ],
)
def test_dates_order_events_like_numbers(first: str, second: str, tmp_path: Path) -> None:
    raw = table(
        tmp_path / "t.csv", f"user_id,item_id,timestamp\nu,late,{second}\nu,early,{first}\n"
    )
    interactions = prepare(raw).interactions
    assert [interactions.item_ids[item] for item in interactions.items] == ["early", "late"]


def test_a_date_column_of_parquet_is_a_time(tmp_path: Path) -> None:
    days = [datetime(2024, 6, 1), datetime(2024, 5, 31)]
    pl.DataFrame({"user_id": [1, 1], "item_id": [1, 2], "timestamp": days}).write_parquet(
        tmp_path / "t.parquet"
    )
    raw = load_data_set(str(tmp_path / "t.parquet"), TableOptions(), 0)
    assert raw.events["time"].to_list() == [1717200000000000, 1717113600000000]


def test_whole_numbers_that_a_gap_made_floating_point_are_whole_ids_again(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": [1.0, 2.0], "item_id": [7, 8]}).write_parquet(tmp_path / "t.parquet")
    raw = load_data_set(str(tmp_path / "t.parquet"), TableOptions(), 0)
    assert raw.events["user_id"].to_list() == ["1", "2"]


def test_gaps_and_scales_without_stars_make_every_event_positive_and_say_so(tmp_path: Path) -> None:
    gaps = table(tmp_path / "t.csv", CSV, columns=COLUMNS)
    assert gaps.min_value is None
    assert "stars is null for 1 of 3 interactions" in gaps.notes[0]
    counts = table(tmp_path / "t.csv", "user_id,item_id,rating\n1,7,1\n2,8,1\n")
    assert counts.min_value is None
    assert "rating goes up to 1: every interaction counts as positive" in counts.notes[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"columns": "user=uid,item=sku,stars=stars"},
            "a role of user, item, time, rating, found 'stars'",
        ),
        ({"columns": "user=uid,itme=sku"}, "a role of time, item, user, rating, found 'itme'"),
        ({"columns": "uid,sku"}, "expected ROLE=COLUMN, .*, found 'uid'"),
        ({"columns": "user=uid,user=sku"}, "gives the role 'user' twice: uid and sku"),
        ({"item_columns": "item=sku"}, "a table that --items must name"),
        ({"list_separator": ""}, "--list-separator: expected at least one character, found none"),
        ({"encoding": "latin-99"}, "--encoding: expected one such as latin-1, found 'latin-99'"),
    ],
)
def test_mappings_without_meaning_are_refused_before_a_file_is_read(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        TableOptions(**options)


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        (CSV, "user=uid,item=skus", r"expected a column 'skus', found sku, uid, ts, stars, shop"),
        (CSV, "user=UID,item=sku", r"expected a column 'UID', found uid, "),
        (
            CSV,
            "user=uid",
            r"--columns: expected a column for item, found none; .* has uid, sku, ts, stars, shop",
        ),
        (CSV.replace("3.5", "good"), COLUMNS, r"stars in row 2: expected a number, found 'good'"),
        (
            CSV.replace("20", "noon"),
            COLUMNS,
            r"ts in row 2: expected a number, or a date such as .*, found 'noon'",
        ),
        (
            CSV.replace("30", "noon"),
            "user=uid,item=sku,time=ts",
            r"ts in row 1: expected .*, found 'noon'",
        ),
        ("", COLUMNS, r"t.csv: expected rows, found an empty file"),
        ("\n\n", COLUMNS, r"t.csv(: expected rows| is not a table)|expected a column"),
        ("uid,sku,ts,stars\n", COLUMNS, r"expected rows, found a header alone"),
        ("uid,sku,ts,stars\nu,b,1,2,3,4\n", COLUMNS, r"is not a table separated by ','"),
        (
            b"PAR1\x00\x01\x02",
            COLUMNS,
            r"t.csv: expected text separated by commas, found binary data",
        ),
        (
            "uid,sku,ts,stars\nu,é,1,5\n".encode() + "u,ü,1,5\n".encode("latin-1"),
            COLUMNS,
            r"expected UTF-8, found the byte 0xfc in line 3 at 3; another .* with --encoding",
        ),
    ],
)
def test_bad_tables_get_a_clear_answer(
    content: str | bytes, columns: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        table(tmp_path / "t.csv", content, columns=columns)


def test_another_encoding_is_read_when_it_is_named(tmp_path: Path) -> None:
    text = "user_id,item_id\nu,ü\nv,b\n".encode("latin-1")
    for name, content in (("t.csv", text), ("t.csv.gz", gzip.compress(text))):
        raw = table(tmp_path / name, content, encoding="latin-1")
        assert raw.events["item_id"].to_list() == ["ü", "b"]
    with pytest.raises(DataError, match="codec can't decode byte 0xfc"):
        table(tmp_path / "t.csv", text, encoding="ascii")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.parquet", b"uid,sku\n1,2\n", "t.parquet is not a Parquet file"),
        ("t.jsonl", b"uid,sku\n1,2\n", "t.jsonl is not JSON lines"),
        (
            "t.jsonl",
            b'[{"user_id": 1}]\n',
            "line 1: expected one JSON object a line, found an array",
        ),
        ("t.jsonl", b'{"user_id": 1, "item_id": 2}\n{"user_id": \n', "t.jsonl does not hold"),
        ("t.csv.gz", b"user_id,item_id\n", "t.csv.gz is not gzipped text"),
        (
            "t.xlsx",
            b"PK\x03\x04",
            r"t.xlsx: expected a name ending in .csv, .*, found '.xlsx'",
        ),
        ("t.parquet", b"", "t.parquet: expected rows, found an empty file"),
    ],
)
def test_files_of_another_kind_are_named(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        table(tmp_path / name, content)


def test_absent_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no.csv: expected a table, found no such file"):
        load_data_set(str(tmp_path / "no.csv"), TableOptions(), 0)
    with pytest.raises(DataError, match=r"items.csv: expected a table, found no such file"):
        table(tmp_path / "t.csv", CSV, columns=COLUMNS, items=tmp_path / "items.csv")


def test_a_table_trains_from_the_command_line_and_its_configuration_can_be_read_again(
    tmp_path: Path,
) -> None:
    events = [
        f"u{user},i{(user * 7 + 3 * step + user % 3) % 45}"
        for user in range(90)
        for step in range(10)
    ]
    (tmp_path / "t.csv").write_text("uid,sku\n" + "\n".join(events) + "\n")
    items = [f"i{item},Thing {item},{'red|big' if item % 3 else 'blue'}" for item in range(45)]
    (tmp_path / "items.csv").write_text("sku,name,look\n" + "\n".join(items) + "\n")
    flags = ["--data", str(tmp_path / "t.csv"), "--columns", "user=uid,item=sku"]
    flags += ["--items", str(tmp_path / "items.csv"), "--item-columns", "item=sku,title=name"]
    flags += ["--list-separator", "|", "--user-core", "2", "--item-core", "2", "--threads", "1"]
    flags += [
        "--recommender-d",
        "8",
        "--recommender-epochs",
        "2",
        "--sae-epochs",
        "2",
        "--sae-k",
        "2",
    ]
    assert train([*flags, "--out", str(tmp_path / "run")]) == 0
    config = TrainConfig.from_json(
        json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    )
    assert config.data_options == TableOptions(
        "user=uid,item=sku", tmp_path / "items.csv", "item=sku,title=name", "|"
    )
    assert (config.user_core, config.item_core) == (2, 2)
    names = pl.read_parquet(tmp_path / "run" / "concepts.parquet")["name"].to_list()
    assert sorted(names) == ["big", "blue", "red"]
