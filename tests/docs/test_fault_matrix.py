"""Tests that the table of faults names existing tests."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_that_the_fault_matrix_names_exists() -> None:
    table = (ROOT / "docs" / "results" / "fault-matrix.md").read_text()
    named = re.findall(r"`(?:[\w/]+\.py: )?([a-z_0-9]{16,})(?:\.\.\.)?`", table)
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 20
    assert [name for name in named if f"def test_{name}" not in tests] == []


def test_every_file_that_the_fault_matrix_names_exists() -> None:
    table = (ROOT / "docs" / "results" / "fault-matrix.md").read_text()
    files = re.findall(r"`([\w/]+\.py)", table)
    assert files
    assert [name for name in files if not (ROOT / "tests" / name).is_file()] == []
