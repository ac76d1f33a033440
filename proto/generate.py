"""Generates code: python proto/generate.py [--check].

From the .proto files: the modules in proto/trimtab/v1. grpcio-tools is pinned to the release whose
grpcio and protobuf are our lower bounds, so that the generated code runs with every release that
the package allows. From the asynchronous client: the synchronous one. --check fails if committed
code is stale.
"""

import argparse
import filecmp
import re
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
SCRIPTS = Path(sys.executable).parent
"""The folder into which pip installs programs; PATH may not contain it."""

ASYNC_CLIENT = Path("trimtab/async_client.py")
CLIENT = Path("trimtab/client.py")
GENERATED = (
    "# Generated from async_client.py by proto/generate.py: change that file, then run it.\n"
)
TEXTS = {
    "The asynchronous client, from which proto/generate.py generates client.py.": (
        "The synchronous client."
    ),
    "Calls a Trimtab server from asyncio.": "Calls a Trimtab server.",
    "The connections belong to the event loop of the first call.": "Threads may share a client.",
}
"""Sentences of the asynchronous client, and what the synchronous client has instead."""
NAMES = {
    "AsyncClient": "Client",
    "AsyncIterator": "Iterator",
    "AsyncTransport": "Transport",
    "async_transport": "transport",
    "aclosing": "closing",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
}
"""Names of the asynchronous client, and those of the synchronous client."""


def generate(out: Path) -> list[Path]:
    """Writes all generated modules to a directory and returns their paths."""
    client = out / CLIENT
    modules = protobuf_modules(out)
    client.write_text(synchronous((ROOT / ASYNC_CLIENT).read_text("utf-8")), "utf-8")
    return [*modules, client]


def synchronous(source: str) -> str:
    """Returns the source of the synchronous client, made from that of the asynchronous one.

    Replaces sentences and names, removes `async` and `await`, and formats the result.

    Raises:
        ValueError: a sentence or a name to replace does not occur.
    """
    for old, new in TEXTS.items():
        if old not in source:
            raise ValueError(f"{ASYNC_CLIENT}: expected the sentence {old!r}, found no such text")
        source = source.replace(old, new)
    for old, new in NAMES.items():
        source, count = re.subn(rf"\b{old}\b", new, source)
        if count == 0:
            raise ValueError(f"{ASYNC_CLIENT}: expected the name {old}, found no such name")
    source = GENERATED + re.sub(r"\b(?:async|await) ", "", source)
    # The import order changes with the names; a loop that yields becomes `yield from` (UP028).
    fix = ["check", "--fix-only", "--unsafe-fixes", "--select", "I,UP028", "--quiet"]
    for command in (fix, ["format"]):
        formatted = subprocess.run(
            [SCRIPTS / "ruff", *command, "--stdin-filename", ROOT / CLIENT, "-"],
            input=source,
            capture_output=True,
            text=True,
            check=True,
        )
        source = formatted.stdout
    return source


def protobuf_modules(out: Path) -> list[Path]:
    """Writes the modules of every .proto file to a directory and returns their paths."""
    sources = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("trimtab/**/*.proto"))
    includes = [f"-I{ROOT}", f"-I{files('grpc_tools') / '_proto'}"]
    plugins = [f"--{name}_out={out}" for name in ("python", "grpc_python")]
    for name in ("mypy", "mypy_grpc"):
        program = f"protoc-gen-{name}"
        plugins += [f"--plugin={program}={SCRIPTS / program}", f"--{name}_out=quiet:{out}"]
    if protoc.main(["protoc", *includes, *plugins, *sources]) != 0:
        raise SystemExit("protoc failed")
    return sorted(
        path for path in out.glob("trimtab/v1/*_pb2*.py*") if path.suffix in (".py", ".pyi")
    )


def main() -> None:
    """Writes the generated code, or compares it with the committed code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="compare with the committed code, write nothing"
    )
    if not parser.parse_args().check:
        generate(ROOT)
        return
    with tempfile.TemporaryDirectory() as scratch:
        fresh = generate(Path(scratch))
        stale = [
            path.name
            for path in fresh
            if not (committed := ROOT / path.relative_to(scratch)).exists()
            or not filecmp.cmp(path, committed, shallow=False)
        ]
    if stale:
        sys.exit(f"stale generated code, run `make proto`: {', '.join(stale)}")


if __name__ == "__main__":
    main()
