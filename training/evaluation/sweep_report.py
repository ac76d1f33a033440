"""A sweep's cells as a report: means over seeds, the best by the validation users, a plot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from training.evaluation.plan import SEED, Flags, Plan
from training.evaluation.report import Curve, Estimate, Plot, Report, Table
from training.evaluation.sweep import Cell

_GOALS = {"ranking": ("nDCG", max), "fidelity": ("nDCG cost", min)}
_ORDER = (
    "validation nDCG", "nDCG", "recall", "coverage", "epochs",
    "validation nDCG cost", "nDCG cost", "overlap", "cosine", "l0", "fvu", "dead",
)  # fmt: skip
"""How a row reads; JSON keeps no order."""


class _Setting(NamedTuple):
    """The cells that differ in the seed alone."""

    flags: Flags
    figures: dict[str, Estimate]


def sweep_report(plan: Plan, cells: Sequence[Cell], name: str, command: str) -> Report:
    """Means and standard errors over seeds."""
    goal, best_of = _GOALS[plan.measure]
    settings = _settings(cells)
    found = {figure for setting in settings for figure in setting.figures}
    figures = [name for name in _ORDER if name in found]
    rows = [
        (
            *(setting.flags.get(flag) for flag in plan.varied),
            *(setting.figures.get(name) for name in figures),
        )
        for setting in settings
    ]
    chosen = []
    for kind in dict.fromkeys(cell.get("recommender") for cell in plan.cells):
        own = [setting for setting in settings if setting.flags.get("recommender") == kind]
        chosen.append(best_of(own, key=lambda setting: setting.figures[f"validation {goal}"].mean))
    shared = {
        flag: value for flag, value in plan.cells[0].items() if flag not in (*plan.varied, SEED)
    }
    seeds = dict.fromkeys(str(cell.flags[SEED]) for cell in cells if SEED in cell.flags)
    paragraphs = (
        f"In all cells: {_shown(shared, shared)}. Seeds: {', '.join(seeds) or 'the default'}. "
        f"Lists of {plan.n}; ± is the standard error over seeds.",
        "Best by the validation users: "
        + "; ".join(_shown(one.flags, plan.varied) for one in chosen)
        + ".",
    )
    return Report(
        name,
        f"Sweep: {name}",
        command,
        paragraphs,
        (Table(f"{len(cells)} cells", (*plan.varied, *figures), rows),),
        _plot(plan, settings, goal),
        [cell._asdict() for cell in cells],
    )


def _settings(cells: Sequence[Cell]) -> list[_Setting]:
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        flags = {name: value for name, value in cell.flags.items() if name != SEED}
        groups.setdefault(_shown(flags, flags), []).append(cell)
    return [
        _Setting(
            {name: value for name, value in group[0].flags.items() if name != SEED},
            {
                name: Estimate.of([cell.figures[name] for cell in group])
                for name in group[0].figures
            },
        )
        for group in groups.values()
    ]


def _plot(plan: Plan, settings: Sequence[_Setting], goal: str) -> Plot:
    """Curves over the last flag that is a number in every setting; else one point a setting."""
    numeric = [
        flag
        for flag in plan.varied
        if all(isinstance(setting.flags.get(flag), int | float) for setting in settings)
    ]
    if not numeric:
        names = [_shown(setting.flags, plan.varied) for setting in settings]
        return Plot("", goal, [Curve("", names, [setting.figures[goal] for setting in settings])])
    axis = numeric[-1]
    others = [flag for flag in plan.varied if flag != axis]
    points: dict[str, list[_Setting]] = {}
    for setting in settings:
        points.setdefault(_shown(setting.flags, others), []).append(setting)
    curves = []
    for name, found in points.items():
        ordered = sorted(found, key=lambda setting: setting.flags[axis])
        curves.append(
            Curve(
                name, [one.flags[axis] for one in ordered], [one.figures[goal] for one in ordered]
            )
        )
    return Plot(axis, goal, curves)


def _shown(flags: Flags, names: Iterable[str]) -> str:
    return ", ".join(f"{name} {flags[name]}" for name in names if name in flags)
