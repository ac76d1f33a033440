"""Tests the command with tables and with JSON, against a real server."""

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from trimtab import parse_edit, parse_share
from trimtab.cli import main
from trimtab.v1 import bundle_pb2, concept_pb2, recommendation_pb2
from trimtab.v1.recommendation_pb2 import RecommendResponse
from trimtab.v1.steering_pb2 import MODE_RECONSTRUCT

from tests.support.fake_server import FakeServer, fault, invalid, message, steered_reply

Run = Callable[..., "Ran"]


class Ran:
    """Exit status and output of one run of the command."""

    def __init__(self, status: int | str | None, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err


@pytest.fixture
def run(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs the command in this process against the fake server."""
    monkeypatch.setenv("TRIMTAB_TARGET", fake.target)
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*argv: str) -> Ran:
        status: int | str | None
        try:
            status = main(argv)
        except SystemExit as stop:
            status = stop.code
        return Ran(status, *capsys.readouterr())

    return run


EVERY_COMMAND = [
    (
        "recommend",
        "--user",
        "42",
        "--explain",
        "--unsteered",
        "--report",
        "--steer",
        "Film-Noir=+1",
    ),
    ("similar", "50"),
    ("concepts", "list"),
    ("concepts", "search", "noir"),
    ("neuron", "7"),
    ("user", "42"),
    ("record", "--user", "42", "--item", "50"),
    ("forget", "42"),
    ("bundles", "list"),
    ("contrast", "1,2", "3"),
    ("status",),
]


def _lines(text: str) -> list[str]:
    """Returns the lines of a text, each with single spaces."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_every_option_of_recommend_reaches_the_server(run: Run, fake: FakeServer) -> None:
    ran = run(
        *(
            "recommend",
            "--user",
            "42",
            "--n",
            "3",
            "--steer",
            "Film-Noir=+1",
            "--steer",
            "#123=-0.5",
        ),
        *(
            "--filter",
            "genres=Comedy,Drama",
            "--filter",
            "year=1990..1999",
            "--not",
            "genres=Horror",
        ),
        *("--history", "1,2", "--exclude", "3,4", "--exclude", "5", "--mode", "reconstruct"),
        *("--bundle", "stable", "--explain", "--unsteered", "--report", "--budget", "0.05"),
        *("--share", "Film-Noir>=0.3", "--share", "Drama<=0.5"),
    )
    assert (ran.status, ran.err) == (0, "")
    (request,) = fake.requests
    assert (request.user_id, request.n, request.bundle) == ("42", 3, "stable")
    assert list(request.steering.edits) == [parse_edit("Film-Noir=+1"), parse_edit("#123=-0.5")]
    assert request.steering.mode == MODE_RECONSTRUCT
    assert request.steering.budget.max_relevance_loss == pytest.approx(0.05)
    assert list(request.steering.targets) == [
        parse_share("Film-Noir>=0.3"),
        parse_share("Drama<=0.5"),
    ]
    assert [condition.attribute for condition in request.filter.all_of] == ["genres", "year"]
    assert (request.filter.all_of[1].min, request.filter.all_of[1].max) == (1990, 1999)
    assert request.filter.none_of[0].values == ["Horror"]
    assert [event.item_id for event in request.history.events] == ["1", "2"]
    assert request.exclude_item_ids == ["3", "4", "5"]
    assert request.explain
    assert request.include_unsteered
    assert request.include_report


def test_both_lists_are_shown_side_by_side_with_moves_and_reasons(run: Run) -> None:
    lines = _lines(run(*EVERY_COMMAND[0]).out)
    assert "# unsteered steered moved score why" in lines
    assert "1 Heat Laura ▲2 0.75 unsteered +0.5 Film-Noir +0.25 #123 -0.125" in lines
    assert "2 Big Sleep, The Big Sleep, The = 0.5" in lines
    assert "3 Laura [REC] new 0.25" in lines


def test_the_report_says_what_steering_did_and_who_served(run: Run) -> None:
    out = " ".join(_lines(run(*EVERY_COMMAND[0]).out))
    assert (
        "50% of the steering applied; limited by the budget; relevance loss 3.2%; 67% of the items"
        in out
    )
    assert "Film-Noir add 0.3 0.1 0.4 50%" in out
    assert "#123 scale -0.5 0 0 no effect" in out
    assert "Film-Noir 0.0% 33.3% 10.0% 45.0% not met: 1 in 2..3, lift 0.25" in out
    assert "served by bundle abababababab, label set 0123456789ab, from the user's history" in out
    assert "1.50 ms in the server (store 0.30, search 0.90)" in out


def test_a_plain_list_has_rank_id_title_and_score(run: Run, fake: FakeServer) -> None:
    reply = steered_reply()
    del reply.unsteered[:]
    reply.ClearField("report")
    fake.answers["RecommendRequest"] = reply
    lines = _lines(run("recommend", "--user", "42").out)
    assert "# item title score" in lines
    assert "1 2 Laura 0.75" in lines
    assert not any("steering applied" in line for line in lines)


def test_an_empty_list_says_so(run: Run, fake: FakeServer) -> None:
    fake.answers["RecommendRequest"] = RecommendResponse()
    assert "no items left" in run("recommend", "--user", "42").out


def test_a_fallen_item_and_lists_of_unequal_length_are_shown(run: Run, fake: FakeServer) -> None:
    fake.answers["RecommendRequest"] = message(
        RecommendResponse,
        items=[{"item_id": "a", "rank": 1, "score": 1, "unsteered_rank": 1}],
        unsteered=[{"item_id": "a", "rank": 1}, {"item_id": "b", "rank": 2}],
    )
    lines = _lines(run("recommend", "--user", "42").out)
    assert "1 a a = 1" in lines
    assert "2 b" in lines
    reply = fake.answers["RecommendRequest"]
    reply.items[0].rank = 4
    assert "▼3" in run("recommend", "--user", "42").out


def test_a_neurons_card_shows_all_its_fields(run: Run, fake: FakeServer) -> None:
    ran = run("neuron", "#7", "--bundle", "b")
    out = " ".join(_lines(ran.out))
    assert (fake.requests[0].neuron, fake.requests[0].bundle) == (7, "b")
    for part in (
        "neuron 7: noir, crime",
        "noir, crime tfidf 0.81",
        "active in 3.10% of users; one unit of strength is 0.42",
        "median 0.1, 75% 0.2, 90% 0.3, 95% 0.4, 99% 0.5, largest 0.6",
        "0 |█▆▅▄ ▁| 0.6",
        "Usual Suspects, The 0.6 Big Sleep, The 0.9 Babe -0.7",
        "nearest by decoder row: #12 thriller (0.44)",
    ):
        assert part in out


def test_a_dead_neuron_without_labels_and_items_has_a_card(run: Run, fake: FakeServer) -> None:
    fake.answers["GetNeuronRequest"] = message(
        concept_pb2.GetNeuronResponse, card={"neuron": 9, "dead": True}
    )
    ran = run("neuron", "9")
    assert ran.status == 0
    assert "neuron 9: without a label (dead" in ran.out


def test_a_user_is_shown_by_history_neurons_and_levels(run: Run, fake: FakeServer) -> None:
    lines = _lines(run("user", "42", "--history", "50").out)
    assert fake.requests[0].history.events[0].item_id == "50"
    assert "50 Usual Suspects, The" in lines
    assert "#7 noir, crime 0.25 1.50 ██████████" in lines
    assert "Film-Noir 0.1 -0.50" in lines


def test_concepts_are_listed_from_all_pages_and_found_by_text(run: Run, fake: FakeServer) -> None:
    out = run("concepts", "list").out
    assert [f"concept {i}" in out for i in range(5)] == [True] * 5
    assert len(fake.requests) == 3
    lines = _lines(run("concepts", "search", "film", "noir", "--n", "3").out)
    assert (fake.requests[-1].query, fake.requests[-1].n) == ("film noir", 3)
    assert "100% Film-Noir concept of genres, 44 items" in lines
    assert "50% #7 neuron: noir, crime" in lines


def test_one_event_is_recorded_with_its_options(run: Run, fake: FakeServer) -> None:
    ran = run(
        *("record", "--user", "42", "--item", "50", "--kind", "rating", "--value", "4.5"),
        *("--time", "1998-01-01T00:00:00+00:00", "--event-id", "e"),
    )
    assert ran.status == 0
    (message,) = fake.requests[0].interactions
    assert (message.user_id, message.event.item_id, message.event.value) == ("42", "50", 4.5)
    assert message.event.kind == recommendation_pb2.EVENT_KIND_RATING
    assert message.event.time.seconds == 883612800
    assert message.event.event_id == "e"


def test_forgetting_says_whether_anything_was_stored(run: Run, fake: FakeServer) -> None:
    assert "everything stored about user 42 is removed" in run("forget", "42").out
    fake.answers["ForgetUserRequest"] = recommendation_pb2.ForgetUserResponse(found=False)
    assert "nothing was stored about user 42" in run("forget", "42").out


def test_status_shows_each_service_and_fails_only_if_the_server_does_not_serve(run: Run) -> None:
    ran = run("status")
    lines = _lines(ran.out)
    assert ran.status == 0
    assert "the server as a whole SERVING" in lines
    assert "trimtab.v1.BundleService NOT_SERVING" in lines
    assert any(
        line.startswith("abababababab stable ml-1m elsa, topk 3,706 2,048 32") for line in lines
    )


def test_status_waits_for_the_server_no_longer_than_the_stated_time(
    run: Run, fake: FakeServer
) -> None:
    fake.checks.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    ran = run("status", "--wait", "0.2")
    assert ran.status == 1
    assert "the server as a whole NOT_SERVING" in _lines(ran.out)
    timer = threading.Timer(0.3, fake.checks.set, ["", health_pb2.HealthCheckResponse.SERVING])
    timer.start()
    assert run("status", "--wait", "10").status == 0
    timer.join()


def test_the_exit_status_is_1_with_one_line_if_the_server_cannot_be_reached(run: Run) -> None:
    ran = run("--target", "127.0.0.1:1", "status")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("trimtab: 127.0.0.1:1 is unavailable")
    assert ran.err.count("\n") == 1


def test_a_contrast_shows_what_the_left_has_more_of(run: Run, fake: FakeServer) -> None:
    lines = _lines(run("contrast", "1,2", "3", "--n", "5").out)
    assert lines[:2] == [
        "2 users on the left, 1 on the right",
        "1 ignored: the bundle does not know them",
    ]
    assert "Film-Noir 0 0.5 -2.00 25%" in lines
    assert "#7 noir, crime 0.5 0 +2.00 75%" in lines
    (request,) = fake.requests
    assert (request.left.user_ids, request.right.user_ids, request.n) == (["1", "2"], ["3"], 5)
    assert "2 items on the left" in run("contrast", "1,2", "3", "--items").out


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (EVERY_COMMAND[0], recommendation_pb2.RecommendResponse),
        (EVERY_COMMAND[1], recommendation_pb2.SimilarItemsResponse),
        (EVERY_COMMAND[2], concept_pb2.ListConceptsResponse),
        (EVERY_COMMAND[3], concept_pb2.SearchConceptsResponse),
        (EVERY_COMMAND[4], concept_pb2.GetNeuronResponse),
        (EVERY_COMMAND[5], concept_pb2.InspectUserResponse),
        (EVERY_COMMAND[7], recommendation_pb2.ForgetUserResponse),
        (EVERY_COMMAND[8], bundle_pb2.ListBundlesResponse),
        (EVERY_COMMAND[9], concept_pb2.ContrastResponse),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_json_is_the_message_under_the_schemas_names(
    run: Run, command: tuple[str, ...], reply: type[Message]
) -> None:
    fields = json.loads(run(*command, "--json").out)
    assert set(fields) <= set(reply.DESCRIPTOR.fields_by_name)
    assert json_format.ParseDict(fields, reply()).ByteSize() > 0


def test_json_of_a_list_is_exactly_the_reply_and_names_unset_fields(run: Run) -> None:
    fields = json.loads(run("--json", "recommend", "--user", "42").out)
    assert json_format.ParseDict(fields, RecommendResponse()) == steered_reply()
    assert fields["next_page_token"] == ""
    assert fields["served_by"]["ignored_item_count"] == 0


def test_json_of_totals_and_status_holds_their_numbers(run: Run) -> None:
    totals = json.loads(run("record", "--user", "42", "--item", "50", "--json").out)
    assert totals == {
        "sent_count": 1,
        "accepted_count": 0,
        "duplicate_count": 1,
        "unknown_item_count": 0,
        "call_count": 1,
    }
    status = json.loads(run("status", "--json").out)
    assert status["serving"] is True
    assert status["services"]["trimtab.v1.BundleService"] == "NOT_SERVING"
    assert status["bundles"][0]["labels"] == ["stable"]


def test_a_refusal_of_the_server_is_one_line_on_stderr_and_status_1(
    run: Run, fake: FakeServer
) -> None:
    fake.faults = [
        invalid(
            ("steering.edits[0].concept", "found 'Noir', expected a concept;\nnearest: 'Film-Noir'")
        )
    ]
    ran = run("recommend", "--user", "42", "--steer", "Noir=+1", "--json")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == (
        "trimtab: steering.edits[0].concept: found 'Noir', expected a concept;"
        " nearest: 'Film-Noir'\n"
    )


@pytest.mark.parametrize(
    ("argv", "message_text"),
    [
        ((), "COMMAND"),
        (("dance",), "dance"),
        (("recommend",), "expected --user or --history"),
        (("user",), "expected USER or --history"),
        (("recommend", "--user", "1", "--steer", "Film-Noir"), "expected a strength such as"),
        (("recommend", "--user", "1", "--steer", "Film-Noir=much"), "expected a finite number"),
        (("recommend", "--user", "1", "--share", "Film-Noir"), "expected 'concept>=share'"),
        (
            ("recommend", "--user", "1", "--share", "Film-Noir>=30"),
            "expected a share from 0 to 1, found 30",
        ),
        (("recommend", "--user", "1", "--filter", "genres"), "expected 'attribute=value,value'"),
        (("recommend", "--user", "1", "--n", "-1"), "expected a whole number"),
        (("recommend", "--user", "1", "--mode", "sideways"), "sideways"),
        (("recommend", "--user", "1", "--timeout", "0"), "expected seconds above 0"),
        (("recommend", "--user", "1", "--exclude", "1,,2"), "found an empty id"),
        (("neuron", "4294967296"), "expected a whole number"),
        (("record", "--user", "1"), "expected --user and --item, or --from FILE"),
        (
            ("record", "--from", "x.csv", "--user", "1"),
            "expected either --from or --user, found both",
        ),
        (("record", "--user", "1", "--item", "2", "--time", "soon"), "expected seconds since 1970"),
        (("record", "--user", "1", "--item", "2", "--time", "1e15"), "expected seconds since 1970"),
        (("status", "--wait", "-1"), "expected seconds above 0"),
        (("status", "--ca", "/nowhere.pem"), "/nowhere.pem"),
        (("--target", "", "status"), "expected HOST:PORT"),
        (("recommend", "--user", "\udcff"), "not UTF-8"),
    ],
    ids=lambda value: (
        " ".join(value).encode("ascii", "replace").decode() if isinstance(value, tuple) else ""
    ),
)
def test_wrong_usage_is_status_2_and_sends_no_request(
    run: Run, fake: FakeServer, argv: tuple[str, ...], message_text: str
) -> None:
    ran = run(*argv)
    assert (ran.status, ran.out) == (2, "")
    assert message_text in ran.err
    assert fake.requests == []


def test_an_empty_history_is_a_cold_start(run: Run, fake: FakeServer) -> None:
    assert run("recommend", "--history", "").status == 0
    assert fake.requests[0].HasField("history")


def test_options_of_the_connection_may_come_before_or_after_the_command(
    run: Run, fake: FakeServer
) -> None:
    assert run("--timeout", "2", "--token", "a", "recommend", "--user", "1").status == 0
    assert run("recommend", "--user", "1", "--timeout", "3", "--token", "b").status == 0
    first, second = fake.remaining_s
    assert first < 2.1 < second < 3.1
    assert [metadata["authorization"] for metadata in fake.metadata] == ["Bearer a", "Bearer b"]


@pytest.mark.parametrize("columns", [30, 60, 80, 100])
@pytest.mark.parametrize("command", EVERY_COMMAND, ids=lambda command: " ".join(command[:2]))
def test_no_line_is_wider_than_the_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    ran = run(*command)
    assert ran.status == 0
    assert max(len(line) for line in ran.out.splitlines()) <= columns


def test_a_narrow_terminal_keeps_names_whole_and_drops_the_least_needed_columns(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = _lines(run("concepts", "list").out)
    assert "concept attribute items AUC share steered" in lines
    assert "concept 0 genres 3 0.90 0.0% 0.0%" in lines


def test_titles_can_neither_style_nor_control_the_terminal(run: Run, fake: FakeServer) -> None:
    title = "\x1b[31mRed\x1b[0m [bold]\x07\nHeat"
    items = [{"item_id": "1", "title": title, "rank": 1, "score": 1}]
    fake.answers["RecommendRequest"] = message(RecommendResponse, items=items)
    out = run("recommend", "--user", "42").out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[31mRed [0m [bold] Heat" in " ".join(_lines(out))
    assert json.loads(run("recommend", "--user", "42", "--json").out)["items"][0]["title"] == title


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=lambda command: " ".join(command[:2]))
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_characters_that_the_output_cannot_encode_are_replaced(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], encoding: str
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    assert main(["--target", fake.target, *command]) == 0
    sys.stdout.flush()
    assert written.getvalue().decode(encoding)


def test_json_on_an_output_of_another_encoding_is_still_json(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.answers["RecommendRequest"] = message(
        RecommendResponse, items=[{"item_id": "1", "title": "Amélie ☂"}]
    )
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert main(["--target", fake.target, "recommend", "--user", "1", "--json"]) == 0
    sys.stdout.flush()
    assert json.loads(written.getvalue())["items"][0]["title"] == "Amélie ☂"


def _command(*argv: str, target: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRIMTAB_TARGET": target}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "trimtab", *argv],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )


def test_the_command_runs_as_a_separate_process(fake: FakeServer) -> None:
    ran = _command("recommend", "--user", "42", target=fake.target)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Laura" in ran.stdout
    fake.faults = [fault(grpc.StatusCode.NOT_FOUND, "no bundle 'x'")]
    ran = _command("bundles", "list", target=fake.target)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", "trimtab: no bundle 'x'\n")


@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["table", "json"])
def test_the_command_ends_quietly_if_the_reader_closes_the_pipe(
    fake: FakeServer, flags: tuple[str, ...]
) -> None:
    # More than the buffer of a pipe, so that the command still writes after the reader closed it.
    items = [{"item_id": str(i), "title": "x" * 2000, "rank": i, "score": 1} for i in range(3000)]
    fake.answers["RecommendRequest"] = message(RecommendResponse, items=items)
    command = [
        sys.executable,
        "-m",
        "trimtab",
        "--target",
        fake.target,
        "recommend",
        "--user",
        "1",
        *flags,
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        message_texts = process.stderr.read()
    assert (process.returncode, message_texts) == (1, "")
