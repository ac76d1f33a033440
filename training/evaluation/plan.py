"""Reads a sweep's plan: a TOML file of trimtab-train's flags and lists of values for some.

[flags] and each [[grid]] hold flags without the dashes; a list is an axis, and a cell is one choice
on every axis. measure is "ranking", which trains recommenders only, or "fidelity", which trains
their SAEs too.
"""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.config import TrainConfig
from training.errors import ConfigError
from training.flags import RaisingParser, read_config

MEASURES = ("ranking", "fidelity")
"""The measures of a sweep."""
SEED = "seed"
Flags = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """A sweep's measure, the lists' length n, whether references are measured, and the cells."""

    measure: str
    n: int
    references: bool
    cells: tuple[Flags, ...]

    @property
    def varied(self) -> list[str]:
        """Returns the flags, without the seed, that differ between rows of the report."""
        names = dict.fromkeys(name for cell in self.cells for name in cell if name != SEED)
        kept = {name for name in names if len({str(cell.get(name)) for cell in self.cells}) > 1}
        if self.references:
            kept.add("recommender")
        return [name for name in names if name in kept]


def read_plan(path: Path) -> Plan:
    """Reads a plan and checks the flags of every cell.

    Raises:
        ConfigError: the file cannot be read, or a part of it is not valid.
    """
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not a readable TOML file: {error}") from error
    known = ("measure", "n", "references", "flags", "grid")
    if unknown := sorted(document.keys() - set(known)):
        raise ConfigError(f"{path}: expected only {', '.join(known)}, found {', '.join(unknown)}")
    measure = document.get("measure", MEASURES[0])
    if measure not in MEASURES:
        raise ConfigError(
            f"{path}: measure: expected one of {', '.join(MEASURES)}, found {measure!r}"
        )
    shared = document.get("flags", {})
    drawn = [cell for block in document.get("grid", [{}]) for cell in _product(shared | block)]
    cells = {json.dumps(cell, sort_keys=True): cell for cell in drawn}
    for cell in cells.values():
        config_of(cell)
    if not cells:
        raise ConfigError(f"{path}: expected a value on every axis, found an axis without")
    return Plan(
        measure, document.get("n", 20), document.get("references", False), tuple(cells.values())
    )


def config_of(flags: Flags) -> TrainConfig:
    """Returns the configuration that a cell's flags give.

    Raises:
        ConfigError: an unknown flag, or a value that is not valid.
    """
    arguments = []
    for name, value in flags.items():
        if isinstance(value, bool):
            arguments.append(f"--{name}" if value else f"--no-{name}")
        else:
            arguments += [f"--{name}", str(value)]
    return read_config(arguments, RaisingParser(allow_abbrev=False))[1]


def _product(flags: Flags) -> Iterator[Flags]:
    axes = [value if isinstance(value, list) else [value] for value in flags.values()]
    for values in itertools.product(*axes):
        yield dict(zip(flags, values, strict=True))
