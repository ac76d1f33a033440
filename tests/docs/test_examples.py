"""Runs every fenced block of sh and python in the README and docs, in their order.

They run against the demo's bundle and users, in an empty directory, beside a folder of interactions
that the examples call path/to/folder. A server that an example starts must become healthy, and is
then stopped.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
from trimtab import Client

from tests.support.servers import FindPort, StartServer

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LISTEN = "127.0.0.1:50051"
OURS = ("trimtab", "trimtab-train", "trimtab-export", "trimtab-evaluate", "trimtab-serve")


class Example(NamedTuple):
    page: str
    line: int
    language: str
    text: str


def examples() -> list[Example]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Example(page.name, line, match[1], match[2]))
    return found


class Bench(NamedTuple):
    """The environment in which the examples run."""

    folder: Path
    target: str


@pytest.fixture(scope="module")
def bench(
    demo_dir: Path, start_server: StartServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("examples")
    _write_folder(folder / "path" / "to" / "folder")
    spec = find_spec("recbole")
    assert spec
    assert spec.origin
    ratings = Path(spec.origin).parent / "dataset_example" / "ml-100k" / "ml-100k.inter"
    with start_server(demo_dir / "bundle", tmp_path_factory.mktemp("data")) as served:
        with Client(served.target) as client:
            rows = (line.split("\t") for line in ratings.read_text().splitlines()[1:])
            client.record((user, item) for user, item, *_ in rows if user in ("42", "7"))
        yield Bench(folder, served.target)


def _write_folder(folder: Path) -> None:
    """Writes 300 users who each prefer one genre, in the layout that the README describes."""
    folder.mkdir(parents=True)
    genres = ["Drama", "Comedy", "Horror"]
    items = pl.DataFrame({"item_id": range(90)}).with_columns(
        title=pl.format("Title {}", "item_id"),
        genres=pl.col("item_id").map_elements(
            lambda i: [genres[i % 3]], return_dtype=pl.List(pl.String)
        ),
        year=(1950 + pl.col("item_id") % 50).cast(pl.Float64),
    )
    events = [
        (u, (u * 7 + 3 * i + u % 3) % 90, 5.0, 10 * u + i) for u in range(300) for i in range(12)
    ]
    schema = ["user_id", "item_id", "rating", "timestamp"]
    interactions = pl.DataFrame(events, schema=schema, orient="row")
    items.write_parquet(folder / "items.parquet")
    interactions.unique(["user_id", "item_id"]).write_parquet(folder / "interactions.parquet")


@pytest.mark.parametrize(
    "example", examples(), ids=lambda example: f"{example.page}:{example.line}"
)
def test_an_example_runs(example: Example, bench: Bench, free_port: FindPort) -> None:
    if example.language == "python":
        _succeed([sys.executable, "-c", example.text.replace(LISTEN, bench.target)], bench)
    elif example.language == "sh":
        for line in example.text.replace("\\\n", " ").splitlines():
            command = shlex.split(line, comments=True)
            if not command:
                continue
            assert command[0] in OURS, f"{example.page}:{example.line}: an example must call {OURS}"
            command[0] = str(Path(sys.executable).with_name(command[0]))
            if command[0].endswith("trimtab-serve"):
                _serve_and_stop(command, bench, free_port())
            else:
                _succeed(command, bench)
    else:
        pytest.skip(f"a block of {example.language}")


def _environment(target: str) -> dict[str, str]:
    return os.environ | {"TRIMTAB_TARGET": target, "PYTHONWARNINGS": "error"}


def _succeed(command: list[str], bench: Bench) -> None:
    environment = _environment(bench.target)
    done = subprocess.run(
        command, cwd=bench.folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.strip()


def _serve_and_stop(command: list[str], bench: Bench, port: int) -> None:
    target = f"127.0.0.1:{port}"
    process = subprocess.Popen(
        [*command, "--listen", target, "--metrics-port", "0"], cwd=bench.folder
    )
    try:
        with Client(target) as client:
            assert client.wait_until_serving(30), f"{shlex.join(command)} did not serve"
    finally:
        process.terminate()
        assert process.wait(30) == 0
