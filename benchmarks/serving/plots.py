"""Plots latency against load, and the parts of a call."""

from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt


def plot(load: dict[str, Any] | None, shares: dict[str, float] | None, path: Path) -> None:
    """Draws what there is, side by side.

    Args:
        load: The part `load`.
        shares: Microseconds of each part of a call.
        path: A .png file.
    """
    drawn = [partial(draw, given) for draw, given in ((_latency, load), (_parts, shares)) if given]
    size = 6 * len(drawn), 3.5
    figure, axes = plt.subplots(1, len(drawn), figsize=size, layout="constrained", squeeze=False)
    for draw, panel in zip(drawn, axes[0], strict=True):
        draw(panel)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _latency(load: dict[str, Any], axes: Any) -> None:
    rates = [point["rate"] for point in load["points"]]
    for quantile, label in (("p50", "p50"), ("p99", "p99"), ("p999", "p99.9")):
        axes.plot(
            rates,
            [point["latency_ms"][quantile] for point in load["points"]],
            marker="o",
            label=label,
        )
    axes.set(xlabel="arrivals a second", ylabel="milliseconds", yscale="log")
    axes.set_title("two edits, one worker, open loop")
    axes.legend()


def _parts(shares: dict[str, float], axes: Any) -> None:
    names = list(shares)[::-1]
    bars = axes.barh(names, [shares[name] for name in names])
    axes.bar_label(bars, fmt="%.0f")
    axes.set(xlabel="microseconds of CPU a call")
    axes.set_title("what a call is made of")
    axes.margins(x=0.12)
