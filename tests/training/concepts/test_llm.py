"""Describing by a language model, against a local chat server that has faults."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_matrix

from training.concepts.describing.chat import Chat, ChatOptions
from training.concepts.describing.dictionary import (
    DescriberError,
    Dictionary,
    DictionaryOptions,
    make_dictionary,
)
from training.concepts.describing.llm import LlmDescriber, item_texts
from training.errors import ConfigError
from training.evaluate import main
from training.interactions import Catalogue
from training.run import Run

OPTIONS = DictionaryOptions(on_samples=5, off_samples=5)
N_ITEMS = 60
Reply = tuple[int, dict[str, str], bytes]


def completion(content: str) -> Reply:
    return 200, {}, json.dumps({"choices": [{"message": {"content": content}}]}).encode()


def clever(question: str) -> Reply:
    """Says "horror" of everything, and knows which of the listed items that is."""
    if question.startswith("Active:"):
        return completion('Sure! ```json\n{"description": "horror"}\n```')
    lines = [line for line in question.splitlines() if "." in line]
    numbers = [int(line.split(".")[0]) for line in lines if "horror" in line]
    return completion(json.dumps({"active": numbers}))


class Model:
    """The server: replies come from a queue of faults, then from the clever model."""

    def __init__(self) -> None:
        self.faults: list[Reply | Callable[[], Reply]] = []
        self.answer: Callable[[str], Reply] = clever
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.url = ""


@pytest.fixture
def model() -> Iterator[Model]:
    model = Model()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            model.requests.append(body)
            model.keys.append(self.headers["Authorization"])
            reply = (
                model.faults.pop(0)
                if model.faults
                else model.answer(body["messages"][1]["content"])
            )
            status, headers, data = reply() if callable(reply) else reply
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    model.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield model
    server.shutdown()
    server.server_close()
    thread.join()


class Clock:
    """Sleeps are noted, not slept."""

    def __init__(self) -> None:
        self.slept: list[float] = []


def chat(model: Model, folder: Path, clock: Clock | None = None, **options: Any) -> Chat:
    settings = ChatOptions(url=model.url, model="tiny", **{"timeout_s": 5.0} | options)
    return Chat(
        settings, folder, key="secret", sleep=(clock or Clock()).slept.append, clock=lambda: 1e9
    )


@pytest.fixture
def catalogue() -> Catalogue:
    genres = [["horror"] if item % 3 == 0 else ["comedy"] for item in range(N_ITEMS)]
    ids = [f"i{item}" for item in range(N_ITEMS)]
    titles = [f"Film {item}" if item else None for item in range(N_ITEMS)]
    return Catalogue(
        pl.DataFrame(
            {"item_id": ids, "title": titles, "popularity": [9] * N_ITEMS, "genres": genres}
        )
    )


def dictionary(asked: Chat, catalogue: Catalogue, neurons: int = 1) -> Dictionary:
    """Makes codes of neurons that all fire for the horror films."""
    codes = np.tile((np.arange(N_ITEMS) % 3 == 0).astype(np.float32)[:, None], (1, neurons))
    describer = LlmDescriber(asked, catalogue)
    return make_dictionary(
        csr_matrix(codes), np.arange(N_ITEMS), describer, OPTIONS, np.random.default_rng(0)
    )


def test_a_neuron_is_described_and_the_description_tested(
    model: Model, tmp_path: Path, catalogue: Catalogue
) -> None:
    (entry,) = dictionary(chat(model, tmp_path), catalogue).entries
    assert (entry.text, entry.confidence) == ("horror", 1.0)
    describing, predicting = model.requests
    assert describing["model"] == "tiny"
    told, asked = (request["messages"][1]["content"] for request in (describing, predicting))
    assert set(titles(told)).isdisjoint(titles(asked)), "tested on items that it was not made from"
    assert model.keys == ["Bearer secret"] * 2
    assert "secret" not in "".join(path.read_text() for path in tmp_path.iterdir())


def titles(question: str) -> list[str]:
    listed = [line.split(" (")[0] for line in question.splitlines() if "(" in line]
    return [line.split(". ")[-1].split(": ")[-1] for line in listed]


def test_items_are_told_by_title_or_id_and_attributes(catalogue: Catalogue) -> None:
    assert item_texts(catalogue)[:2] == ["i0 (genres: horror)", "Film 1 (genres: comedy)"]


def test_a_run_that_stopped_asks_only_the_rest(
    model: Model, tmp_path: Path, catalogue: Catalogue
) -> None:
    refuse: Reply = (401, {}, b"")
    first = chat(model, tmp_path, give_up_after=1)
    model.answer = lambda question: clever(question) if len(model.requests) <= 3 else refuse
    partial = dictionary(first, catalogue, neurons=4)
    assert [entry.neuron for entry in partial.entries] == [0]
    assert partial.undescribed == 3
    assert len(model.requests) == 4, "after the refusal nobody is asked any more"
    assert "401" in partial.faults[0]
    assert "given up after 1 failures" in partial.faults[1]

    model.answer = clever
    whole = dictionary(chat(model, tmp_path), catalogue, neurons=4)
    assert len(whole.entries) == 4
    assert len(model.requests) == 4 + 5, "3 of 8 questions had been answered"
    again = dictionary(chat(model, tmp_path), catalogue, neurons=4)
    assert again == whole
    assert len(model.requests) == 9


def test_a_full_server_is_asked_again_when_it_says(
    model: Model, tmp_path: Path, catalogue: Catalogue
) -> None:
    clock = Clock()
    date = "Sun, 09 Sep 2001 01:47:10 GMT"  # 30 s after the clock's
    model.faults = [
        (429, {"Retry-After": "7"}, b""),
        (429, {"Retry-After": date}, b""),
        (503, {}, b""),
    ]
    assert dictionary(chat(model, tmp_path, clock), catalogue).entries
    assert clock.slept == [7.0, 30.0, 4.0]


def test_a_server_that_asks_for_an_hour_is_not_waited_for_so_long(
    model: Model, tmp_path: Path, catalogue: Catalogue
) -> None:
    clock = Clock()
    model.faults = [(429, {"Retry-After": "3600"}, b""), (429, {"Retry-After": "soon"}, b"")]
    assert dictionary(chat(model, tmp_path, clock, longest_wait_s=20.0), catalogue).entries
    assert clock.slept == [20.0, 2.0]


@pytest.mark.parametrize(
    "nonsense",
    [
        completion("I cannot help with that."),
        completion('{"description": 5}'),
        completion('{"description": "  "}'),
        completion('{"description": NaN}'),
        (200, {}, b"<html>"),
        (200, {}, b'{"choices": []}'),
        (200, {}, b'{"choices": [{"message": {"content": null}}]}'),
    ],
)
def test_nonsense_is_asked_again_and_never_kept(
    model: Model, tmp_path: Path, catalogue: Catalogue, nonsense: Reply
) -> None:
    model.faults = [nonsense] * 2
    made = dictionary(chat(model, tmp_path, attempts=2), catalogue)
    assert made.entries == []
    assert "expected a" in made.faults[0]
    assert not list(tmp_path.iterdir())
    model.faults = [nonsense]
    assert dictionary(chat(model, tmp_path, attempts=2), catalogue).entries


@pytest.mark.parametrize("numbers", ["[0]", "[99]", '["one"]', '"all"'])
def test_predictions_of_items_that_were_not_listed_are_nonsense(
    model: Model, tmp_path: Path, catalogue: Catalogue, numbers: str
) -> None:
    model.answer = lambda question: (
        clever(question)
        if question.startswith("Active:")
        else completion(f'{{"active": {numbers}}}')
    )
    made = dictionary(chat(model, tmp_path, attempts=1), catalogue)
    assert made.entries == []
    assert "expected 1 to" in made.faults[0] or "expected a list" in made.faults[0]


def test_a_server_that_is_silent_or_gone_leaves_the_rest_undescribed(
    model: Model, tmp_path: Path, catalogue: Catalogue
) -> None:
    silence = threading.Event()

    def wait() -> Reply:
        silence.wait(5)
        return 200, {}, b""

    model.faults = [wait]
    slow = chat(model, tmp_path, timeout_s=0.2, attempts=1, give_up_after=1)
    made = dictionary(slow, catalogue, neurons=3)
    silence.set()
    assert made.undescribed == 3
    assert "timed out" in made.faults[0]
    gone = Chat(ChatOptions(url="http://127.0.0.1:1/v1", model="tiny", attempts=1), tmp_path)
    with pytest.raises(DescriberError, match="refused"):
        gone.ask("", "", lambda answer: answer)


def test_a_broken_kept_answer_is_asked_for_again(
    model: Model, tmp_path: Path, catalogue: Catalogue
) -> None:
    whole = dictionary(chat(model, tmp_path), catalogue)
    for path in tmp_path.iterdir():
        path.write_text('{"answer": ')
    assert dictionary(chat(model, tmp_path), catalogue) == whole
    assert len(model.requests) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "127.0.0.1:8000"},
        {"model": ""},
        {"timeout_s": 0.0},
        {"attempts": 0},
        {"longest_wait_s": -1.0},
    ],
)
def test_an_endpoint_without_meaning_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="llm"):
        ChatOptions(**{"url": "http://127.0.0.1/v1", "model": "tiny"} | wrong)


def test_the_command_describes_a_run_by_a_model_and_writes_labels(
    model: Model, planted_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.answer = lambda _: completion('{"description": "films", "active": [1]}')
    monkeypatch.setenv("TRIMTAB_LLM_KEY", "secret")
    labels = tmp_path / "labels.jsonl"
    out = tmp_path / "report"
    flags = ["--describer", "llm", "--llm-url", model.url, "--llm-model", "tiny", "--neurons", "5"]
    folder = ["--llm-answers", str(tmp_path / "answers")]
    command = ["dictionary", "--run", str(planted_run.path), *flags, *folder]
    assert main([*command, "--labels", str(labels), "--out", str(out)]) == 0
    assert model.keys[0] == "Bearer secret"
    lines = [json.loads(line) for line in labels.read_text().splitlines()]
    named = [line["concept"] for line in lines if "concept" in line]
    assert named == [concept.name for concept in planted_run.concepts]
    made = [line for line in lines if line.get("label", {}).get("method") == "llm"]
    assert len(made) == 5
    assert "described and told apart by tiny; tested on 10 items" in made[0]["label"]["provenance"]
    assert "described and told apart by tiny" in (out / "dictionary.md").read_text()
    figures = json.loads((out / "dictionary.json").read_text())["figures"]
    assert len(figures["entries"]) == 5


def test_the_command_goes_on_with_what_it_has_when_the_model_is_gone(
    planted_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = ["--llm-url", "http://127.0.0.1:1/v1", "--llm-model", "tiny", "--llm-attempts", "1"]
    labels = tmp_path / "labels.jsonl"
    command = ["dictionary", "--run", str(planted_run.path), "--describer", "llm", *gone]
    command += [
        "--llm-answers",
        str(tmp_path / "answers"),
        "--labels",
        str(labels),
        "--out",
        str(tmp_path),
    ]
    assert main(command) == 0
    assert "Not described: " in (tmp_path / "dictionary.md").read_text()
    lines = [json.loads(line) for line in labels.read_text().splitlines()]
    assert {line["label"]["method"] for line in lines if "label" in line} >= {"tfidf", "auc"}
    assert main(["dictionary", "--run", str(planted_run.path), "--describer", "llm"]) == 1
    assert "found '' and ''" in capsys.readouterr().err


def test_the_command_describes_by_metadata_and_refuses_what_means_nothing(
    planted_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(planted_run.path)
    assert main(["dictionary", "--run", run, "--out", str(tmp_path)]) == 0
    assert "attribute values enriched" in (tmp_path / "dictionary.md").read_text()
    assert main(["dictionary", "--run", run, run]) == 1
    assert main(["dictionary", "--run", run, "--neurons", "0"]) == 1
    assert main(["dictionary", "--run", run, "--labels", str(tmp_path / "no" / "x.jsonl")]) == 1
    assert "cannot write" in capsys.readouterr().err
