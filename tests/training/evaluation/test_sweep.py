"""Grids of settings: they are read, trained, resumed and reported."""

import json
from pathlib import Path

import pytest

from training.errors import ConfigError
from training.evaluate import main
from training.evaluation.plan import config_of, read_plan
from training.evaluation.report import Curve, Estimate, Plot, Report, Table

BASE = """
[flags]
data = "synthetic"
data-n-users = 200
data-n-items = 80
data-n-concepts = 4
"""
RANKING = f"""
references = true
n = 10
{BASE}
seed = [1, 2]
recommender = "puresvd"
[[grid]]
recommender-d = [8, 12]
"""
FIDELITY = f"""
measure = "fidelity"
{BASE}
recommender = "puresvd"
recommender-d = 8
sae-epochs = 5
sae-expansion = 4
[[grid]]
sae-k = [2, 4]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text)
    return path


def test_a_plan_is_the_product_of_its_axes_and_the_union_of_its_grids(tmp_path: Path) -> None:
    text = RANKING + '[[grid]]\nrecommender = "elsa"\nrecommender-lr = [0.1, 0.2, 0.3]\n'
    plan = read_plan(write(tmp_path, text))
    assert len(plan.cells) == 2 * 2 + 2 * 3
    assert plan.varied == ["recommender", "recommender-d", "recommender-lr"]
    config = config_of(plan.cells[-1])
    assert (config.recommender, config.seed, config.recommender_options.lr) == ("elsa", 2, 0.3)


def test_a_sweep_reports_means_over_seeds_beside_the_references(
    tmp_path: Path,
) -> None:
    out = tmp_path / "sweep"
    assert main(["sweep", str(write(tmp_path, RANKING)), "--out", str(out), "--threads", "1"]) == 0
    figures = json.loads((out / "plan.json").read_text())["figures"]
    assert len(figures) == 4 + 2 * 3
    at_8 = [cell["figures"]["nDCG"] for cell in figures if cell["flags"].get("recommender-d") == 8]
    text = (out / "plan.md").read_text()
    assert str(Estimate.of(at_8)) in text
    assert "| EASE |" in text
    assert "lists of 10".upper() in text.upper()
    assert (out / "plan.png").stat().st_size > 1_000


def test_a_sweep_goes_on_where_it_stopped(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    plan = write(tmp_path, FIDELITY)
    arguments = ["sweep", str(plan), "--out", str(out), "--threads", "1"]
    assert main(arguments) == 0
    before = {path: path.read_bytes() for path in (out / "cells").iterdir()}
    assert len(before) == 2
    # A finished cell is not measured again: its file, changed here, is what the report tells.
    first = sorted(before)[0]
    first.write_bytes(before[first].replace(b'"overlap": 0.', b'"overlap": 7.'))
    sorted(before)[1].unlink()
    assert main(arguments) == 0
    assert sorted(before)[1].read_bytes() == before[sorted(before)[1]]
    assert "7." in (out / "plan.md").read_text()
    models = [path for path in (out / "models").iterdir() if (path / "recommender.json").is_file()]
    assert len(models) == 1, "cells that differ in the SAE share their recommender"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("measure = 'speed'", "measure: expected one of ranking, fidelity, found 'speed'"),
        ("[flag]\nseed = 1", "expected only measure, n, references, flags, grid, found flag"),
        ("[flags]\nrecommender = 'gru'", "--recommender: expected one of als, bert4rec"),
        ("[flags]\nno-such-flag = 1", "unrecognized arguments: --no-such-flag 1"),
        ("[flags]\nsae-expansion = 0", "expansion"),
        ("[flags]\nseed = []", "expected a value on every axis"),
        ("measure = ", "is not a readable TOML file"),
    ],
)
def test_a_plan_without_meaning_is_refused_before_anything_is_trained(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        read_plan(write(tmp_path, text))


def test_a_sweep_without_a_place_to_keep_its_cells_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", str(write(tmp_path, RANKING))]) == 1
    assert "--out: expected a folder" in capsys.readouterr().err


def test_estimates_over_runs_have_the_standard_error_of_the_mean() -> None:
    estimate = Estimate.of([1.0, 2.0, 3.0])
    assert estimate.mean == 2.0
    assert estimate.error == pytest.approx(1 / 3**0.5)
    assert Estimate.of([0.5], 0.1) == Estimate(0.5, 0.1)
    assert str(Estimate.of([0.5])) == "0.5000"


def test_a_report_holds_its_command_and_its_figures_without_nan(tmp_path: Path) -> None:
    curve = Curve("a", [1.0, 2.0], [Estimate(0.1, None), Estimate(0.2, 0.05)])
    table = Table("t", ("name", "value"), [("x", Estimate(0.25, 0.125)), ("y", None)])
    report = Report(
        "r",
        "Title",
        "trimtab-evaluate x",
        ("Text.",),
        (table,),
        Plot("k", "cost", [curve]),
        [float("nan"), curve],
    )
    report.lasting(61.4).write(tmp_path)
    text = (tmp_path / "r.md").read_text()
    for part in (
        "# Title",
        "    trimtab-evaluate x",
        "Text.",
        "| x | 0.2500 ± 0.1250 |",
        "| y | - |",
        "in 61 s",
    ):
        assert part in text
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["figures"][0] is None
    assert document["figures"][1]["y"][1] == {"mean": 0.2, "error": 0.05}
