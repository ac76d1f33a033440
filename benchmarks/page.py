"""Writes a page of docs/results: Markdown for people, and its figures beside it as JSON."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("grpcio", "faiss-cpu", "onnxruntime", "redis", "numpy", "protobuf", "uvloop")
"""Libraries whose versions a page names: those that the time of a call depends on."""


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], texts: int = 1) -> str:
    """Makes a Markdown table; the first columns (`texts`) are aligned left, the others right."""
    rules = ["---"] * texts + ["---:"] * (len(columns) - texts)
    lines = [columns, rules, *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def section(title: str, *blocks: str) -> str:
    """Makes a section: heading and blocks, without those that are empty."""
    return join(f"## {title}", *blocks)


def join(*blocks: str) -> str:
    """Puts blocks below each other, without those that are empty."""
    return "\n\n".join(block for block in blocks if block)


def page(title: str, command: str, *blocks: str) -> str:
    """Makes a page: title, the command that makes it, and blocks."""
    return join(f"# {title}: measured", f"    {command}", *blocks) + "\n"


def write_page(path: Path, text: str, figures: Any = None) -> None:
    """Writes a page, and its figures (if there are any) beside it as .json."""
    path.write_text(text)
    if figures is not None:
        path.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")


def read_cells(folder: Path, pattern: str = "*.json") -> dict[str, Any]:
    """Reads the figures that the parts of a program left: file name -> content."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob(pattern))}


def machine() -> str:
    """Names the machine, Python, the libraries' versions and the commit, in one sentence."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    ).stdout.strip()
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    python = platform.python_version()
    return f"{os.cpu_count()} cores of {model}, Python {python}, {libraries}; commit {commit}."
