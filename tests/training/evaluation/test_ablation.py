"""Ablation: planted concepts lose their share, random neurons do not take it; refusals."""

import json
from pathlib import Path

import numpy as np
import pytest

from training.evaluate import main
from training.evaluation.ablation import ablate
from training.run import Run


def test_silencing_a_concept_takes_its_share_away_and_random_neurons_do_not(
    planted_run: Run,
) -> None:
    found = ablate(planted_run, count=10, neurons=5)
    change = {
        way: np.mean([one.share_change.mean for one in found if one.way == way])
        for way in ("ABLATE", "its neurons", "random neurons")
    }
    assert change["ABLATE"] < -0.02
    assert change["its neurons"] < -0.02
    assert abs(change["random neurons"]) < abs(change["its neurons"]) / 3


def test_those_who_like_a_concept_lose_more_than_the_others(planted_run: Run) -> None:
    own = [one for one in ablate(planted_run, count=10, neurons=5) if one.way == "its neurons"]
    likers = np.mean([one.likers_change.mean for one in own])
    assert likers < np.mean([one.others_change.mean for one in own])
    assert likers < 0


def test_ablation_is_reported(planted_run: Run, tmp_path: Path) -> None:
    run = str(planted_run.path)
    assert main(["ablation", "--run", run, "--concepts", "2", "--out", str(tmp_path)]) == 0
    figures = json.loads((tmp_path / "ablation.json").read_text())["figures"]
    assert [one["way"] for one in figures] == 2 * ["ABLATE", "its neurons", "random neurons"]
    assert (tmp_path / "ablation.png").is_file()


@pytest.mark.parametrize("flags", [["--concepts", "0"], ["--neurons", "0"], ["--neurons", "9999"]])
def test_counts_without_meaning_are_refused(
    planted_run: Run, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablation", "--run", str(planted_run.path), *flags]) == 1
    assert "expected at least 1 concept and 1 to 128 neurons" in capsys.readouterr().err
