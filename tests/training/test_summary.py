"""Cores, and the summary of a data set before training."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from training.cli import train
from training.config import TrainConfig
from training.errors import ConfigError, DataError
from training.interactions import RawData, core, prepare
from training.summary import summarise


def events(*pairs: tuple[str, str]) -> RawData:
    frame = pl.DataFrame({"user_id": [u for u, _ in pairs], "item_id": [i for _, i in pairs]})
    frame = frame.with_columns(value=pl.lit(None, pl.Float64), time=pl.lit(None, pl.Int64))
    items = pl.DataFrame({"item_id": ["a"], "title": ["A"]})
    return RawData("made up", frame, items, None)


def test_cores_are_taken_in_turn_until_both_hold() -> None:
    # Without c, whom only "lone" has, v has one item left; without v, b has one user left.
    raw = events(("u", "a"), ("u", "b"), ("w", "a"), ("w", "d"), ("u", "d"), ("v", "b"), ("v", "c"))
    kept = core(raw, user_core=2, item_core=2)
    assert sorted(kept.events.select("user_id", "item_id").rows()) == [
        ("u", "a"), ("u", "d"), ("w", "a"), ("w", "d"),
    ]  # fmt: skip
    assert (
        "of 7 pairs the core of 2 items a user removed 1, that of 2 users an item 2"
        in kept.notes[0]
    )
    assert "2 of 3 users stay and 2 of 4 items stay" in kept.notes[0]
    assert core(kept, 2, 2) is kept
    with pytest.raises(DataError, match="no user has 5 items"):
        core(raw, user_core=5, item_core=1)


def test_a_core_below_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="user_core: expected at least 0, found -1"):
        TrainConfig(user_core=-1)


def test_the_summary_counts_what_is_there() -> None:
    raw = events(("u", "a"), ("u", "b"), ("w", "a"))
    seconds = pl.Series("time", [978_300_760, 978_387_160, 978_300_000])
    items = pl.DataFrame(
        {"item_id": ["a", "b"], "title": ["A", "B"], "tags": [["x"], []], "year": [1.0, None]}
    )
    raw = raw._replace(events=raw.events.with_columns(seconds), items=items)
    prepared = prepare(raw)
    summary = summarise(raw, prepared, prepared.interactions.positives(None))
    assert (summary.users, summary.items, summary.interactions, summary.positives) == (2, 2, 3, 3)
    assert summary.attributes == {"title": 1.0, "tags": 0.5, "year": 0.5}
    assert (summary.duplicates, summary.without_metadata) == (0, 0)
    assert summary.span == ("2000-12-31", "2001-01-01")
    assert summary.head_share == pytest.approx(2 / 3)
    assert summary.history_lengths[0] == 1
    assert summary.history_lengths[-1] == 2


def test_repeated_pairs_bare_items_and_what_a_threshold_leaves_out_are_counted() -> None:
    raw = events(("u", "a"), ("u", "a"), ("u", "b"), ("w", "c"))
    raw = raw._replace(events=raw.events.with_columns(value=pl.Series([1.0, 5.0, 4.0, 2.0])))
    prepared = prepare(raw)
    summary = summarise(raw, prepared, prepared.interactions.positives(4.0))
    shown = dict(summary.rows())
    assert shown["interactions, positive"] == "3, 2"
    assert (shown["not positive"], shown["repeated pairs, dropped"]) == ("1", "1")
    assert shown["items without metadata"] == "2"
    assert shown["items with title"] == "33%"


@pytest.mark.parametrize("factor", [1, 1_000, 1_000_000, 1_000_000_000])
def test_times_are_dates_whatever_part_of_a_second_they_count(factor: int) -> None:
    raw = events(("u", "a"), ("u", "b"))
    times = pl.Series("time", [978_300_760 * factor, 1_717_200_000 * factor])
    prepared = prepare(raw._replace(events=raw.events.with_columns(times)))
    assert summarise(raw, prepared, prepared.interactions.positives(None)).span == (
        "2000-12-31",
        "2024-06-01",
    )


def test_summary_only_leaves_a_picture_and_figures_and_training_may_follow(tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = [
        "--data",
        "synthetic",
        "--data-n-users",
        "120",
        "--data-n-items",
        "60",
        "--data-n-concepts",
        "3",
    ]
    flags += [
        "--recommender-d",
        "8",
        "--recommender-epochs",
        "2",
        "--sae-epochs",
        "2",
        "--sae-k",
        "2",
    ]
    flags += ["--out", str(out), "--threads", "1"]
    assert train([*flags, "--summary-only"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["data.json", "data.png"]
    assert json.loads((out / "data.json").read_text())["users"] == 120
    assert (out / "data.png").read_bytes().startswith(b"\x89PNG")
    assert train(flags) == 0
    assert (out / "run.json").is_file()
