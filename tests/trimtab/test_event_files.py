import json
import random
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from trimtab import interaction
from trimtab.cli import main
from trimtab.cli.event_files import EventFileError, open_events
from trimtab.v1.recommendation_pb2 import EVENT_KIND_LIKE, Interaction

from tests.support.fake_server import FakeServer, fault

arrow = pytest.importorskip("pyarrow", reason="reading Parquet needs pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

EXPECTED = [interaction(1, 10, value=4.5, time=881250949), interaction(2, 20, time=881250950)]


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _read(path: Path) -> list[Interaction]:
    return list(open_events(path).interactions)


FILES = {
    "events.csv": "user_id,item_id,rating,timestamp\n1,10,4.5,881250949\n2,20,,881250950\n",
    "bom.csv": "\ufeffuser_id,item_id,rating,timestamp\r\n1,10,4.5,881250949\r\n"
    "2,20,,881250950.0\r\n",
    "other order.csv": "timestamp,title,item_id,value,user_id\n881250949,x,10,4.5,1\n"
    "881250950,y,20,nan,2\n",
    "events.tsv": "user_id\titem_id\tvalue\ttime\n1\t10\t4.5\t881250949\n2\t20\t\t881250950\n",
    "ml.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "1\t10\t4.5\t881250949\n2\t20\t\t881250950\n",
    "iso.csv": "user_id,item_id,rating,time\n"
    "1,10,4.5,1997-12-04T15:55:49Z\n2,20,,1997-12-04T16:55:50+01:00\n",
    "events.jsonl": '{"user_id": 1, "item_id": "10", "rating": 4.5, "timestamp": 881250949}\n\n'
    '{"user_id": "2", "item_id": 20, "rating": null, "timestamp": 881250950.0}\n',
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_text_file_is_read_as_the_events_it_holds(tmp_path: Path, name: str) -> None:
    assert _read(_write(tmp_path / name, FILES[name])) == EXPECTED


@pytest.mark.parametrize(
    "columns",
    [
        {
            "user_id": [1, 2],
            "item_id": [10, 20],
            "rating": [4.5, None],
            "timestamp": [881250949, 881250950],
        },
        {
            "user_id": ["1", "2"],
            "item_id": ["10", "20"],
            "value": [4.5, float("nan")],
            "time": [881250949.0, 881250950.0],
        },
        {
            "item_id": [10, 20],
            "user_id": [1, 2],
            "title": ["x", "y"],
            "rating": [4.5, None],
            "timestamp": [datetime(1997, 12, 4, 15, 55, 49), datetime(1997, 12, 4, 15, 55, 50)],
        },
    ],
    ids=["numbers", "texts", "times"],
)
def test_parquet_is_read_whatever_types_its_columns_have(
    tmp_path: Path, columns: dict[str, list[object]]
) -> None:
    parquet.write_table(arrow.table(columns), tmp_path / "events.parquet")
    assert _read(tmp_path / "events.parquet") == EXPECTED


def test_kinds_and_event_ids_are_read_where_there_are_columns_for_them(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", "user_id,item_id,kind,event_id\n1,10,like,e1\n1,11,,\n")
    first, second = _read(path)
    assert (first.event.kind, first.event.event_id) == (EVENT_KIND_LIKE, "e1")
    assert second.event.kind == 0


def test_events_without_times_have_ids_that_stay_the_same_when_the_file_is_read_again(
    tmp_path: Path,
) -> None:
    text = "user_id,item_id\n1,10\n1,10\n"
    first = [message.event.event_id for message in _read(_write(tmp_path / "a.csv", text))]
    again = [message.event.event_id for message in _read(_write(tmp_path / "b.csv", text))]
    other = [
        message.event.event_id for message in _read(_write(tmp_path / "c.csv", text + "1,11\n"))
    ]
    assert first == again
    assert len(set(first)) == 2
    assert not set(first) & set(other)


def test_a_file_that_changed_between_two_readings_has_other_ids(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", "user_id,item_id\n1,10\n")
    (before,) = _read(path)
    (after,) = _read(_write(path, "user_id,item_id\n1,11\n"))
    assert before.event.event_id != after.event.event_id


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.xlsx", "", "expected a file that ends in .parquet, .csv"),
        ("a.csv", "", "expected the columns user_id and item_id, found none"),
        ("a.csv", "user,item\n1,2\n", "expected the columns user_id and item_id, found user, item"),
        ("a.csv", "user_id,item_id\n1,2\n1\n", "row 1: expected 2 fields after this row, found 1"),
        (
            "a.csv",
            "user_id,item_id\n1,2\n1,\n",
            "row 2: item_id: expected a text or a whole number, found None",
        ),
        (
            "a.csv",
            "user_id,item_id,rating\n1,2,good\n",
            "row 1: value: expected a number, found 'good'",
        ),
        (
            "a.csv",
            "user_id,item_id,time\n1,2,soon\n",
            "row 1: time: expected seconds since 1970 or ISO 8601, found 'soon'",
        ),
        (
            "a.csv",
            "user_id,item_id,time\n1,2,881250949000\n",
            "row 1: time: expected seconds since 1970, found 881250949000",
        ),
        (
            "a.csv",
            "user_id,item_id,time\n1,2,2020-01-01\n",
            "found 2020-01-01T00:00:00 without a time zone",
        ),
        (
            "a.csv",
            "user_id,item_id,kind\n1,2,love\n",
            "kind: expected one of view, click, like, purchase, rating, dislike, hide,"
            " found 'love'",
        ),
        ("a.jsonl", "{}\n", "row 1: item_id: expected a text or a whole number, found None"),
        (
            "a.jsonl",
            '{"user_id": 1.5, "item_id": 1}\n',
            "row 1: user_id: expected a text or a whole number, found 1.5",
        ),
        ("a.jsonl", "[1]\n", "expected an object after this row, found '[1]'"),
        ("a.jsonl", '{"user_id": \n', "row 0: "),
        ("a.parquet", "PAR", "a.parquet: "),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_where_and_why(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(EventFileError, match=re.escape(message)):
        _read(_write(tmp_path / name, text))


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(EventFileError, match=r"nothing\.csv: No such file"):
        open_events(tmp_path / "nothing.csv")


def test_bytes_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"user_id,item_id\n1,\xff\n")
    with pytest.raises(EventFileError, match=r"a\.csv.*: 'utf-8' codec can't decode byte 0xff"):
        _read(path)


def _run(fake: FakeServer, *argv: str) -> int:
    return main(["--target", fake.target, "record", "--from", *argv])


def test_a_file_is_recorded_completely_and_summarised(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random.seed(1)
    rows = [(random.randrange(500), random.randrange(2000), 881250949 + i) for i in range(12_000)]
    text = "user_id,item_id,timestamp\n" + "".join(
        f"{user},{item},{at}\n" for user, item, at in rows
    )
    assert _run(fake, str(_write(tmp_path / "events.csv", text))) == 0
    sent = [
        (int(m.user_id), int(m.event.item_id), m.event.time.seconds)
        for request in fake.requests
        for m in request.interactions
    ]
    assert sorted(sent) == sorted(rows)
    for user in range(500):
        assert [row for row in sent if row[0] == user] == [row for row in rows if row[0] == user]
    out, err = capsys.readouterr()
    calls = len(fake.requests)
    assert f"{12_000 - calls:,} recorded, {calls} had been recorded before" in out
    assert re.search(rf"[\d.]+ s, [\d,]+ events/s, {calls} calls", out)
    assert err == ""


def test_the_summary_as_json_holds_counts_and_rate(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(fake, str(_write(tmp_path / "events.csv", FILES["events.csv"])), "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["sent_count"], summary["accepted_count"], summary["call_count"]) == (2, 1, 1)
    assert summary["events_per_second"] == pytest.approx(2 / summary["seconds"])


def test_a_bad_row_is_wrong_usage_and_a_refusal_says_how_many_events_were_recorded(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(fake, str(_write(tmp_path / "a.csv", "user_id,item_id\n1,2\n1,\n"))) == 2
    assert (
        "a.csv, row 2: item_id: expected a text or a whole number, found None"
        in capsys.readouterr().err
    )
    fake.faults = [fault(grpc.StatusCode.FAILED_PRECONDITION, "no store")]
    assert _run(fake, str(_write(tmp_path / "b.csv", "user_id,item_id\n1,2\n"))) == 1
    assert (
        capsys.readouterr().err == "trimtab: no store; 0 interactions were recorded before this\n"
    )


def test_the_client_side_builds_and_sends_over_20_000_events_a_second(
    fake: FakeServer, tmp_path: Path
) -> None:
    count = 60_000
    columns = {
        "user_id": [i % 943 for i in range(count)],
        "item_id": [i % 1682 for i in range(count)],
        "rating": [float(i % 5) for i in range(count)],
        "timestamp": [881250949 + i for i in range(count)],
    }
    parquet.write_table(arrow.table(columns), tmp_path / "events.parquet")
    # Processor time, so that a busy machine does not matter; it includes the server's part.
    start = time.process_time()
    assert _run(fake, str(tmp_path / "events.parquet")) == 0
    assert count / (time.process_time() - start) > 20_000
    assert sum(len(request.interactions) for request in fake.requests) == count


def test_real_ratings_are_recorded_completely(fake: FakeServer, data_sets: Path) -> None:
    path = data_sets / "ml-100k" / "interactions.parquet"
    assert _run(fake, str(path)) == 0
    assert sum(len(request.interactions) for request in fake.requests) == 100_000
    first = next(open_events(path).interactions)
    row = parquet.read_table(path).slice(0, 1).to_pylist()[0]
    assert first == interaction(
        row["user_id"], row["item_id"], value=row["rating"], time=row["timestamp"]
    )
    assert first.event.time.ToDatetime(UTC).year in (1997, 1998)
