"""Reports a sweep's cells: means over seeds, the best setting by the validation users, a plot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from training.evaluation.plan import SEED, Flags, Plan
from training.evaluation.report import Curve, Estimate, Plot, Report, Table
from training.evaluation.sweep import Cell

_GOALS = {"ranking": ("nDCG", max), "fidelity": ("nDCG cost", min)}
_ORDER = (
    "validation nDCG",
    "nDCG",
    "recall",
    "coverage",
    "epochs",
    "validation nDCG cost",
    "nDCG cost",
    "overlap",
    "cosine",
    "l0",
    "fvu",
    "dead",
)
"""Order of the figures in a row; JSON keeps none."""


class _Setting(NamedTuple):
    """The cells that differ in the seed alone."""

    flags: Flags
    figures: dict[str, Estimate]


def sweep_report(plan: Plan, cells: Sequence[Cell], name: str, command: str) -> Report:
    """Reports means and standard errors over seeds."""
    settings = _settings(cells)
    return Report(
        name=name,
        title=f"Sweep: {name}",
        command=command,
        paragraphs=(_shared(plan, cells), _best(plan, settings)),
        tables=(_table(plan, settings, f"{len(cells)} cells"),),
        plot=_plot(plan, settings),
        figures=[cell._asdict() for cell in cells],
    )


def _settings(cells: Sequence[Cell]) -> list[_Setting]:
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        flags = _without_seed(cell.flags)
        groups.setdefault(_shown(flags, flags), []).append(cell)
    return [_joined(group) for group in groups.values()]


def _joined(group: Sequence[Cell]) -> _Setting:
    names = group[0].figures
    figures = {name: Estimate.of([cell.figures[name] for cell in group]) for name in names}
    return _Setting(_without_seed(group[0].flags), figures)


def _without_seed(flags: Flags) -> Flags:
    return {name: value for name, value in flags.items() if name != SEED}


def _shared(plan: Plan, cells: Sequence[Cell]) -> str:
    """Formats what holds for all cells."""
    varied = (*plan.varied, SEED)
    shared = {flag: value for flag, value in plan.cells[0].items() if flag not in varied}
    seeds = dict.fromkeys(str(cell.flags[SEED]) for cell in cells if SEED in cell.flags)
    return (
        f"In all cells: {_shown(shared, shared)}. Seeds: {', '.join(seeds) or 'the default'}. "
        f"Lists of {plan.n}; ± is the standard error over seeds."
    )


def _best(plan: Plan, settings: Sequence[_Setting]) -> str:
    """Formats the best setting of each recommender."""
    goal, best_of = _GOALS[plan.measure]
    chosen = []
    for kind in dict.fromkeys(cell.get("recommender") for cell in plan.cells):
        own = [setting for setting in settings if setting.flags.get("recommender") == kind]
        chosen.append(best_of(own, key=lambda setting: setting.figures[f"validation {goal}"].mean))
    shown = "; ".join(_shown(setting.flags, plan.varied) for setting in chosen)
    return f"Best by the validation users: {shown}."


def _table(plan: Plan, settings: Sequence[_Setting], title: str) -> Table:
    measured = {figure for setting in settings for figure in setting.figures}
    figures = [name for name in _ORDER if name in measured]
    rows = []
    for setting in settings:
        flags = [setting.flags.get(flag) for flag in plan.varied]
        rows.append((*flags, *(setting.figures.get(name) for name in figures)))
    return Table(title, (*plan.varied, *figures), rows)


def _plot(plan: Plan, settings: Sequence[_Setting]) -> Plot:
    """Plots curves over the last flag that is a number everywhere, or else a point per setting."""
    goal, _ = _GOALS[plan.measure]
    axis = next((flag for flag in reversed(plan.varied) if _is_number(flag, settings)), None)
    if axis is None:
        names = [_shown(setting.flags, plan.varied) for setting in settings]
        return Plot("", goal, [Curve("", names, [setting.figures[goal] for setting in settings])])
    others = [flag for flag in plan.varied if flag != axis]
    points: dict[str, list[_Setting]] = {}
    for setting in settings:
        points.setdefault(_shown(setting.flags, others), []).append(setting)
    curves = []
    for name, own in points.items():
        ordered = sorted(own, key=lambda setting: setting.flags[axis])
        x = [setting.flags[axis] for setting in ordered]
        curves.append(Curve(name, x, [setting.figures[goal] for setting in ordered]))
    return Plot(axis, goal, curves)


def _is_number(flag: str, settings: Sequence[_Setting]) -> bool:
    return all(isinstance(setting.flags.get(flag), int | float) for setting in settings)


def _shown(flags: Flags, names: Iterable[str]) -> str:
    return ", ".join(f"{name} {flags[name]}" for name in names if name in flags)
