"""Tests trimtab concepts export, import, sets and use against a real server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from trimtab import AsyncClient, Client, FailedPrecondition
from trimtab.cli import main

from tests.support.servers import StartServer


@pytest.fixture
def target(start_server: StartServer, bundle_dir: Path, tmp_path: Path) -> Iterator[str]:
    with start_server(bundle_dir, tmp_path / "data") as served:
        yield served.target


def test_labels_are_exported_edited_and_imported(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> str:
        assert main(["--target", target, "concepts", *arguments]) == 0
        return capsys.readouterr().out

    file = tmp_path / "labels.jsonl"
    run("export", str(file))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert run("export") == file.read_text()
    for line in lines:
        if line.get("concept") == "Drama":
            line["concept"] = "Dramatic"
    own = json.loads(run("sets", "--json"))["label_sets"][0]["label_set"]

    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    made = run("import", str(file))
    assert f"{len(lines):,} records" in made
    assert "concepts of the previous set that it lacks: Drama" in made
    with Client(target) as client:
        assert client.recommend(history=["item-1"], steer={"Dramatic": 1}).items
        with pytest.raises(FailedPrecondition, match="nearest: Dramatic"):
            client.recommend(history=["item-1"], steer={"Drama": 1})

    run("use", own)
    listed = json.loads(run("sets", "--json"))["label_sets"]
    assert [(label_set["current"], label_set["of_bundle"]) for label_set in listed] == [
        (True, True),
        (False, False),
    ]
    version = listed[1]["label_set"]
    again = tmp_path / "again.jsonl"
    run("export", str(again), "--label-set", version)
    assert [json.loads(line) for line in again.read_text().splitlines()] == lines


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            '{"neuron": 5000, "label": {"text": "x"}}',
            "line 2: neuron: expected a neuron from 0 to 127, found 5000",
        ),
        ('{"neuron": 5', "line 2: expected a label record, found another text"),
        ('{"neuron": 5, "colour": 1}', "line 2: expected a label record, found another text"),
        (
            '{"concept": "Nowhere"}',
            "line 2: weights: expected weights, or a concept of the bundle,"
            " found neither: 'Nowhere'",
        ),
    ],
)
def test_an_invalid_line_is_named(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, text: str
) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text(f'{{"neuron": 3, "label": {{"text": "fine"}}}}\n{line}\n')
    assert main(["--target", target, "concepts", "import", str(file)]) == 2
    assert f"{file}, {text}" in capsys.readouterr().err


def test_a_missing_file_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["concepts", "import", str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl" in capsys.readouterr().err


async def test_the_asynchronous_client_exports_and_imports_too(target: str) -> None:
    async with AsyncClient(target) as client:
        records = [record async for record in client.export_labels()]
        own = (await client.list_label_sets()).label_sets[0].label_set
        reply = await client.import_labels(records[1:], pinned_only=True)
        assert list(reply.lost_concepts) == [records[0].concept]
        assert (await client.list_label_sets()).label_sets[0].current
        await client.use_label_set(reply.label_set)
        assert not (await client.list_label_sets()).label_sets[0].current
        await client.use_label_set(own)
