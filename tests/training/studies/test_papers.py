"""The papers' settings on planted concepts and genders, and small reports of each."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from scipy.sparse import csr_matrix

from training.concepts.effect import Audience
from training.concepts.membership import Membership, memberships
from training.errors import DataError
from training.evaluate import main
from training.evaluation.interpretability import representations
from training.evaluation.report import Estimate
from training.evaluation.steering import edited_lists
from training.flags import RaisingParser, read_config
from training.measures import metrics
from training.pipeline import train
from training.run import Run
from training.studies.papers import gender, inner_block, knobs, recsae
from training.studies.papers.knobs import blend, choose
from training.studies.papers.paper import Findings, joined
from training.studies.papers.tuning import (
    BOOST,
    Knobs,
    Lessons,
    silence_effects,
    tune,
    tuning_gains,
)

FLAGS = [
    "--data",
    "synthetic",
    "--data-n-users",
    "300",
    "--data-n-items",
    "80",
    "--data-n-concepts",
    "4",
]
FLAGS += ["--recommender-d", "8", "--recommender-epochs", "3", "--sae-epochs", "3", "--sae-k", "4"]


def test_a_mix_keeps_the_sum_of_the_code_and_moves_it_to_the_concepts_neurons() -> None:
    code = torch.tensor([[4.0, 0.0, 2.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    mixed = blend(code, [[1, 3], []], 0.5)
    assert mixed.tolist() == [[2.0, 1.5, 1.0, 1.5], [1.0, 1.0, 0.0, 0.0]]


def test_the_chosen_concept_is_the_one_that_a_user_has_more_of_than_others_have() -> None:
    members = csr_matrix(np.array([[1, 1, 1, 1, 0], [0, 0, 1, 1, 0]], dtype=np.float32))
    items = csr_matrix(
        np.array([[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]], dtype=np.float32)
    )
    chosen = choose(items, members)
    assert chosen.users.tolist() == [0, 1], "the third user's item carries no concept"
    assert chosen.concepts.tolist() == [0, 1], "the rarer concept weighs more"


def test_an_unedited_code_gives_the_recommenders_lists_or_the_reconstructions(
    planted_run: Run,
) -> None:
    split = planted_run.split
    length = planted_run.config.max_length
    histories = split.histories(split.test)
    audience = Audience.of(planted_run.recommender, planted_run.sae, histories, length)
    np.testing.assert_array_equal(edited_lists(audience, audience.code), audience.lists())
    rebuilt = audience._replace(z=planted_run.sae.reconstruct(audience.z))
    np.testing.assert_array_equal(
        edited_lists(audience, audience.code, reconstruct=True), rebuilt.lists()
    )


def test_planted_concepts_neurons_raise_their_segment_and_random_ones_do_not(
    planted_run: Run,
) -> None:
    ways = knobs.measure(planted_run, planted_run.split.test)["fair"]["ways"]
    rise = {
        way: found["0.3"]["segment"].mean - found["0"]["segment"].mean
        for way, found in ways.items()
        if "0.3" in found
    }
    assert rise["1 neuron, RESIDUAL"] > 0.1
    assert rise["10 random neurons, RESIDUAL"] < rise["1 neuron, RESIDUAL"] / 4
    unsteered = {
        way: found["0"]["personal"].mean for way, found in ways.items() if "RESIDUAL" in way
    }
    assert len(set(unsteered.values())) == 1, "all begin at the recommender's own lists"


def test_the_effect_of_silence_is_what_the_surprise_gains_without_a_neuron(
    planted_run: Run,
) -> None:
    lessons = Lessons.of(planted_run, np.random.default_rng(0))
    members = memberships(planted_run.catalogue, planted_run.config.concepts).matrix
    effects = silence_effects(lessons, members)
    code = lessons.audience.code
    W_dec = planted_run.sae.W_dec
    fires = (code > 0).sum(dim=0)
    neuron = int(fires.argmax())
    silenced = code.clone()
    silenced[:, neuron] = 0
    before = lessons.surprise(torch.zeros(len(code), planted_run.sae.d))
    gained = lessons.surprise((silenced - code) @ W_dec) - before
    carried = members[:, lessons.wanted.indices]
    np.testing.assert_allclose(effects[neuron], carried @ gained.numpy(), atol=1e-3)
    assert not effects[(fires == 0).numpy()].any()


def test_surprise_is_least_at_the_lessons_own_sharpness(planted_run: Run) -> None:
    lessons = Lessons.of(planted_run, np.random.default_rng(0))
    unmoved = torch.zeros(len(lessons.seen), planted_run.sae.d)
    least = lessons.surprise(unmoved).mean()
    for factor in (0.8, 1.25):
        other = lessons._replace(sharpness=factor * lessons.sharpness)
        assert other.surprise(unmoved).mean() > least


def test_tuned_neurons_find_more_of_a_planted_concept_for_users_who_taught_nothing(
    planted_run: Run,
) -> None:
    lessons = Lessons.of(planted_run, np.random.default_rng(0))
    members = memberships(planted_run.catalogue, planted_run.config.concepts).matrix
    own = members[0].toarray()[0]
    strongest = np.argsort(-np.abs(silence_effects(lessons, members[:1])[:, 0]))[:10]
    knobs = tune(lessons, strongest.copy(), own, weight=1.0)
    split = planted_run.split
    length = planted_run.config.max_length
    test = Audience.of(
        planted_run.recommender, planted_run.sae, split.histories(split.test), length
    )
    shares = [
        metrics.exposure_share(edited_lists(test, code), own > 0).mean()
        for code in (test.code, knobs.applied(test.code))
    ]
    assert shares[1] > shares[0] + 0.02
    untouched = Knobs(torch.from_numpy(strongest.copy()), torch.ones(10), torch.zeros(10))
    assert torch.equal(untouched.applied(test.code), test.code)


def test_what_tuning_gains_on_a_concept_is_told_from_what_it_costs_on_all(planted_run: Run) -> None:
    split = planted_run.split
    length = planted_run.config.max_length
    test = Audience.of(
        planted_run.recommender, planted_run.sae, split.histories(split.test), length
    )
    names, attributes, matrix = memberships(planted_run.catalogue, planted_run.config.concepts)
    members = Membership(names[:1], attributes[:1], matrix[:1])
    ways = tuning_gains(planted_run, test, members, split.targets(split.test))["ways"]
    assert ways[BOOST]["0"]["target"].mean == 0
    for edit in (ways[BOOST]["0.8"], ways["25 strongest neurons, weight"]["1"]):
        assert edit["target"].mean > max(0.05, edit["overall"].mean + 0.05)


def test_a_silenced_neuron_takes_what_its_description_says_and_another_does_not(
    planted_run: Run,
) -> None:
    members = memberships(planted_run.catalogue, planted_run.config.concepts)
    items = np.arange(planted_run.catalogue.n_items)
    split = planted_run.split
    described = recsae.describe(representations(planted_run)[0], members, items, seed=0)
    length = planted_run.config.max_length
    audience = Audience.of(
        planted_run.recommender, planted_run.sae, split.histories(split.test), length
    )
    found = recsae.silenced(
        audience, described, split.targets(split.test), np.random.default_rng(0)
    )
    assert found["neurons"].mean > 5
    assert found["change"].mean < -0.05
    assert abs(found["another_neuron"].mean) < abs(found["change"].mean) / 3


def test_an_attributes_column_is_chosen_on_other_users_than_it_is_judged_on(
    planted_run: Run,
) -> None:
    members = memberships(planted_run.catalogue, planted_run.config.concepts)
    states = inner_block.hidden_states(planted_run, members, np.random.default_rng(0))
    users = planted_run.split.train
    assert len(states.z) == inner_block.DRAWS * len(users)
    folds = states.fold.reshape(inner_block.DRAWS, -1)
    assert (folds == folds[0]).all(), "a user's places are in one fold"
    truth = csr_matrix(states.members.T)
    best = inner_block.best_columns(truth, states)
    assert best.columns.tolist() == list(range(len(members.names)))
    assert (best.aucs == 1).all()
    noise = csr_matrix(np.random.default_rng(0).random(truth.shape).astype(np.float32))
    assert np.abs(inner_block.best_columns(noise, states).aucs.mean() - 0.5) < 0.05


@pytest.fixture(scope="module")
def gendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes 400 users: women mostly like items up to 39, men those after."""
    folder = tmp_path_factory.mktemp("gendered")
    rng = np.random.default_rng(0)
    is_woman = rng.random(400) < 0.4
    own = rng.random((400, 20)) < 0.75
    items = rng.integers(0, 40, (400, 20)) + np.where(own == is_woman[:, None], 0, 40)
    users = np.repeat(np.arange(400), 20)
    events = pl.DataFrame({"user_id": users, "item_id": items.ravel()}).unique(maintain_order=True)
    events.write_parquet(folder / "interactions.parquet")
    pl.DataFrame({"item_id": np.arange(80)}).write_parquet(folder / "items.parquet")
    codes = np.where(is_woman, "F", "M").tolist()
    codes[0] = None
    pl.DataFrame({"user_id": np.arange(400), "gender": codes}).write_parquet(
        folder / "users.parquet"
    )
    return folder


@pytest.fixture(scope="module")
def gendered_run(gendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    flags = [
        *gender.GENDER.settings["tied"],
        "--data",
        str(gendered),
        "--implicit",
        "--max-length",
        "50",
    ]
    flags += [
        "--recommender-d",
        "10",
        "--recommender-epochs",
        "20",
        "--sae-epochs",
        "60",
        "--sae-k",
        "6",
    ]
    config = read_config(flags, RaisingParser(allow_abbrev=False))[1]
    return train(config, tmp_path_factory.mktemp("runs") / "gendered")


def test_a_genders_neurons_move_lists_and_the_paper_s_comparison_counts_the_reconstruction(
    gendered_run: Run,
) -> None:
    assert np.isnan(gender.women(gendered_run)[0])
    figures = gender.measure(gendered_run, gendered_run.split.test)
    assert figures["leaning"] == pytest.approx(40, abs=4)
    assert min(auc.mean for auc in figures["auc"].values()) > 0.8
    ways = figures["ways"]
    own = ways[f"{gender.WOMEN}, RECONSTRUCT"]
    assert own["4"]["change"].mean > 0.02 > -0.02 > own["0"]["change"].mean
    assert ways[f"{gender.MEN}, RESIDUAL"]["4"]["change"].mean < -0.02
    for way, found in ways.items():
        unedited = found["0"] if way.startswith(gender.ADD) else found["1"]
        assert unedited["change"].mean == 0
        if "RESIDUAL" in way:
            assert unedited["naive"].mean == 0


def test_leaning_counts_shares_of_women_and_men_and_not_their_numbers() -> None:
    X = csr_matrix(np.array([[1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 1, 1]], dtype=np.float32))
    is_woman = np.array([1.0, 0.0, 0.0, np.nan])
    assert gender.leaning(X, is_woman, least=1).tolist() == [False, True, False]
    assert not gender.leaning(X, is_woman, least=3)[1]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (None, "users.parquet: expected a file with user_id and gender"),
        ({"user_id": [1], "age": [30]}, "expected also the columns ['gender']"),
        (
            {"user_id": [1, 2], "gender": ["F", "M"]},
            "expected at least 10 users of each gender, found {'F': 1, 'M': 1}",
        ),
    ],
)
def test_users_without_a_gender_are_refused(
    gendered_run: Run, tmp_path: Path, frame: dict[str, list[object]] | None, message: str
) -> None:
    if frame is not None:
        pl.DataFrame(frame).write_parquet(tmp_path / "users.parquet")
    config = dataclasses.replace(gendered_run.config, data=str(tmp_path))
    with pytest.raises(DataError, match=re.escape(message)):
        gender.women(dataclasses.replace(gendered_run, config=config))


@pytest.mark.parametrize(
    ("paper", "flags", "expected"),
    [
        ("P2", ["--sae-k", "4"], ("difference of the mean states", "AUC of the best column")),
        (
            "P4",
            ["--data-n-concepts", "2", "--sae-expansion", "8"],
            ("398", "+48 % at -1 %"),
        ),
    ],
)
def test_the_other_papers_are_reported_too(
    paper: str, flags: list[str], expected: tuple[str, ...], tmp_path: Path
) -> None:
    command = [
        "paper",
        paper,
        *FLAGS,
        *flags,
        "--seeds",
        "1",
        "--users",
        "20",
        "--max-length",
        "10",
    ]
    assert main([*command, "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]) == 0
    text = (tmp_path / f"paper-{paper.lower()}.md").read_text()
    assert all(figure in text for figure in expected)
    assert "nan" not in text
    assert (tmp_path / f"paper-{paper.lower()}.png").stat().st_size > 5_000


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
        ("paper-like SAE", 1, 20),
        ("paper-like SAE", 2, 20),
        ("default SAE", 1, 20),
        ("default SAE", 2, 20),
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["P9", "--data", "synthetic"], "paper: expected one of P1, P2, P3, P4, found 'P9'"),
        (["P1", "--data", "nowhere"], "found 'nowhere'"),
        (["P1", *FLAGS, "--seeds", "1", "--users", "1"], "--users: expected at least 2, found 1"),
        (
            ["P1", *FLAGS, "--seeds", "1", "--users", "900"],
            "expected 900 test users (--users), found 30",
        ),
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


def test_an_error_is_never_smaller_than_that_over_the_users_of_all_seeds() -> None:
    def findings(*estimates: Estimate) -> list[Findings]:
        return [
            Findings("data", "setting", seed, 10, {"x": one}) for seed, one in enumerate(estimates)
        ]

    alike = joined(findings(Estimate(1.0, 0.3), Estimate(1.0, 0.4)), "x")
    assert (alike.mean, alike.error) == (1.0, 0.25)
    assert joined(findings(Estimate(1.0, 0.3), Estimate(5.0, 0.4)), "x") == Estimate(3.0, 2.0)
    assert joined(findings(Estimate(1.0, 0.3)), "x") == Estimate(1.0, 0.3)
    assert joined(findings(Estimate(1.0, None)), "x") == Estimate(1.0, None)


def test_an_estimate_joins_runs_and_keeps_a_single_runs_own_error() -> None:
    one = Estimate.over_users(np.array([1.0, 3.0, np.nan]))
    other = Estimate(4.0, 0.1)
    assert (one.mean, one.error) == (2.0, 1.0)
    assert Estimate.joined([one]) == one
    assert Estimate.joined([one, other]) == Estimate(3.0, 1.0)
    assert f"{one:.1f}" == "2.0 ± 1.0"
