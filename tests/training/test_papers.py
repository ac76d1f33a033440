"""The papers' settings: the mix with a concept's neurons, the choice of the concept, a whole small P1."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from training.concepts.effect import Audience
from training.evaluation.cli import main
from training.evaluation.papers.knobs import blend, choose, measure
from training.evaluation.report import Estimate
from training.evaluation.steering import edited_lists
from training.run import Run

FLAGS = ["--data", "synthetic", "--data-n-users", "300", "--data-n-items", "80", "--data-n-concepts", "4"]
FLAGS += ["--recommender-d", "8", "--recommender-epochs", "3", "--sae-epochs", "3", "--sae-k", "4"]


def test_a_mix_keeps_the_sum_of_the_code_and_moves_it_to_the_concepts_neurons() -> None:
    code = torch.tensor([[4.0, 0.0, 2.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    mixed = blend(code, [[1, 3], []], 0.5)
    assert mixed.tolist() == [[2.0, 1.5, 1.0, 1.5], [1.0, 1.0, 0.0, 0.0]]


def test_the_chosen_concept_is_the_one_that_a_user_has_more_of_than_others_have() -> None:
    members = csr_matrix(np.array([[1, 1, 1, 1, 0], [0, 0, 1, 1, 0]], dtype=np.float32))
    items = csr_matrix(np.array([[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]], dtype=np.float32))
    chosen = choose(items, members)
    assert chosen.users.tolist() == [0, 1], "the third user's item carries no concept"
    assert chosen.concepts.tolist() == [0, 1], "the rarer concept weighs more"


def test_an_unedited_code_gives_the_recommenders_lists_or_the_reconstructions(planted_run: Run) -> None:
    split, length = planted_run.split, planted_run.config.max_length
    histories = split.histories(split.test)
    audience = Audience.of(planted_run.recommender, planted_run.sae, histories, length)
    np.testing.assert_array_equal(edited_lists(audience, audience.code), audience.lists())
    rebuilt = audience._replace(z=planted_run.sae.reconstruct(audience.z))
    np.testing.assert_array_equal(edited_lists(audience, audience.code, reconstruct=True), rebuilt.lists())


def test_planted_concepts_neurons_raise_their_segment_and_random_ones_do_not(planted_run: Run) -> None:
    ways = measure(planted_run, planted_run.split.test)["fair"]["ways"]
    rise = {
        way: found["0.3"]["segment"].mean - found["0"]["segment"].mean
        for way, found in ways.items()
        if "0.3" in found
    }
    assert rise["1 neuron, RESIDUAL"] > 0.1
    assert rise["10 random neurons, RESIDUAL"] < rise["1 neuron, RESIDUAL"] / 4
    unsteered = {way: found["0"]["personal"].mean for way, found in ways.items() if "RESIDUAL" in way}
    assert len(set(unsteered.values())) == 1, "all begin at the recommender's own lists"


def test_a_paper_is_trained_measured_and_reported_beside_its_own_figures(tmp_path: Path) -> None:
    command = ["paper", "P1", *FLAGS, "--seeds", "1", "2", "--users", "20"]
    command += ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]
    assert main(command) == 0
    text = (tmp_path / "paper-p1.md").read_text()
    assert "0.341 / 0.202" in text
    assert "What differs from the paper" in text
    assert (tmp_path / "paper-p1.png").stat().st_size > 5_000
    figures = json.loads((tmp_path / "paper-p1.json").read_text())["figures"]
    assert [(one["setting"], one["seed"], one["users"]) for one in figures] == [
        ("paper-like SAE", 1, 20), ("paper-like SAE", 2, 20), ("default SAE", 1, 20), ("default SAE", 2, 20),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["P9", "--data", "synthetic"], "there is no paper 'P9', expected one of P1"),
        (["P1", "--data", "nowhere"], "no data set 'nowhere'"),
        (["P1", *FLAGS, "--seeds", "1", "--users", "1"], "--users is 1, expected at least 2"),
        (["P1", *FLAGS, "--seeds", "1", "--users", "900"], "30 test users found, --users asks for 900"),
        (
            ["P1", *FLAGS, "--seeds", "1", "--concepts-min-items", "70"],
            "no attribute value is on enough items",
        ),
        (["P1", *FLAGS, "--neurons", "3"], "unrecognized arguments: --neurons 3"),
    ],
)
def test_what_cannot_be_reproduced_is_refused(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["paper", *flags, "--runs", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err


def test_an_estimate_joins_runs_and_keeps_a_single_runs_own_error() -> None:
    one, other = Estimate.over_users(np.array([1.0, 3.0, np.nan])), Estimate(4.0, 0.1)
    assert (one.mean, one.error) == (2.0, 1.0)
    assert Estimate.joined([one]) == one
    assert Estimate.joined([one, other]) == Estimate(3.0, 1.0)
    assert f"{one:.1f}" == "2.0 ± 1.0"
