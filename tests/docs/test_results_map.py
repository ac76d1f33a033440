"""Tests that benchmarks/README.md names an existing command for every page of docs/results."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(page.stem for page in (ROOT / "docs" / "results").glob("*.md"))
ROW = re.compile(r"^\| \[([\w-]+)\]\(\.\./docs/results/\1\.md\) \| (.+) \| .+ \|$", re.MULTILINE)
MODULE = re.compile(r"python -m (benchmarks[\w.]*)")


def commands() -> dict[str, str]:
    """Reads the table of benchmarks/README.md: page -> command."""
    return dict(ROW.findall((ROOT / "benchmarks" / "README.md").read_text()))


def is_program(module: str) -> bool:
    """Returns true if `python -m module` can run."""
    spec = find_spec(module)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = find_spec(f"{module}.__main__")
    return spec is not None


def test_every_page_of_results_is_in_the_map_and_nothing_else() -> None:
    assert sorted(commands()) == PAGES


@pytest.mark.parametrize("page", PAGES)
def test_a_page_that_names_its_module_names_that_of_the_map(page: str) -> None:
    text = (ROOT / "docs" / "results" / f"{page}.md").read_text()
    for module in MODULE.findall(text):
        assert f"python -m {module}" in commands()[page]


def test_every_module_that_the_docs_mention_is_a_program() -> None:
    pages = [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "benchmarks").rglob("*.md"),
    ]
    modules = {module for page in pages for module in MODULE.findall(page.read_text())}
    assert len(modules) > 10
    assert [module for module in sorted(modules) if not is_program(module)] == []
