"""The steering frontier: strengths against brute force, calibration, hidden tags, a small run."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from training.concepts.gains.platt import platt
from training.concepts.gains.ridge import Spectrum, ridge_probe
from training.errors import ConfigError
from training.evaluate import MEASURES, main
from training.measures.metrics import exposure_share, ndcg
from training.run import Run
from training.studies.frontier.audience import Audience, Users, exposure
from training.studies.frontier.calibration import completed, probe_and_tag
from training.studies.frontier.effects import COUNTS, reach_both
from training.studies.frontier.filled_tags import WEIGHTS, choose_weight, filled
from training.studies.frontier.knowledge import Knowledge, Models
from training.studies.frontier.linear_scores import (
    CandidatePool,
    LinearScores,
    best_first,
    best_items,
    solve,
    top_n,
)
from training.studies.frontier.measure import FrontierOptions, measure, paired
from training.studies.frontier.method_ids import MethodId
from training.studies.frontier.methods import METHODS
from training.studies.frontier.probes import logistic_probe
from training.studies.frontier.relevance import DEPTH, Relevance, worth
from training.studies.frontier.report import frontier_report
from training.studies.frontier.tags import concepts_of, hide, judged
from training.studies.frontier.target_shares import STRENGTHS, ShareRequests
from training.studies.frontier.verdicts import verdict_table


@pytest.fixture(scope="module")
def users(planted_run: Run) -> Users:
    return Users.of(planted_run, planted_run.split.test)


@pytest.fixture(scope="module")
def tuned(planted_run: Run) -> Audience:
    return Audience.tuned(Users.of(planted_run, planted_run.split.validation))


@pytest.fixture(scope="module")
def audience(users: Users, tuned: Audience) -> Audience:
    return Audience.of(users, tuned.relevance)


@pytest.fixture(scope="module")
def known(planted_run: Run, users: Users, tuned: Audience) -> Knowledge:
    return Knowledge(Models.of(planted_run, users, tuned), concepts_of(planted_run, 10).tags)


def linear_of(rng: np.random.Generator, personal: bool = False) -> LinearScores:
    base = rng.normal(size=(60, 900)).astype(np.float32)
    base[rng.random(base.shape) < 0.1] = -np.inf
    gain = rng.exponential(size=base.shape if personal else 900).astype(np.float32)
    return LinearScores(base, gain)


@pytest.mark.parametrize("personal", [False, True])
@pytest.mark.parametrize("reorder", [False, True])
def test_a_pool_gives_the_lists_of_the_whole_catalogue(
    rng: np.random.Generator, personal: bool, reorder: bool
) -> None:
    linear = linear_of(rng, personal)._replace(reorder=reorder)
    pool = CandidatePool(linear, top_n(linear.base, 40), end=3.0)
    for t in (0.0, 0.3, 1.0, 2.2, 3.0):
        order = np.argsort(-(linear.base + np.float32(t) * linear.gain), axis=1, kind="stable")[
            :, :20
        ]
        expected = best_first(order, linear.base) if reorder else order
        np.testing.assert_array_equal(pool.lists(t), expected)


def test_a_solved_strength_reaches_each_target(rng: np.random.Generator) -> None:
    linear = linear_of(rng)
    flags = rng.random(900) < 0.15
    linear = linear._replace(gain=flags.astype(np.float32))

    def share(lists: NDArray[np.int64]) -> float:
        return float(exposure(lists, flags).mean())

    for target, point in zip(
        (0.3, 0.7), solve(linear, share, [0.3, 0.7], best_items(linear.base)), strict=True
    ):
        assert point is not None
        assert share(linear.lists(point.t)) == pytest.approx(
            target, abs=5e-3
        )  # 60 users: places are coarse
        np.testing.assert_array_equal(linear.lists(point.t), point.lists)
    (less,) = solve(linear._replace(gain=-linear.gain), share, [0.05], best_items(linear.base))
    assert less is not None
    assert share(less.lists) == pytest.approx(0.05, abs=5e-3)


def test_a_share_beyond_the_limit_is_never_reached(rng: np.random.Generator) -> None:
    linear = linear_of(rng)
    flags = rng.random(900) < 0.05
    weak = linear._replace(gain=flags.astype(np.float32), limit=1e-3)
    assert solve(
        weak, lambda lists: float(exposure(lists, flags).mean()), [0.9], best_items(linear.base)
    ) == [None]


def test_every_base_gives_the_unsteered_list_at_strength_0(audience: Audience) -> None:
    for base in audience.bases.values():
        lists = LinearScores(base, np.zeros(base.shape[1], dtype=np.float32)).lists(0.0)
        np.testing.assert_array_equal(lists, audience.unsteered)


def test_figures_are_those_of_the_metrics(
    planted_run: Run, audience: Audience, known: Knowledge
) -> None:
    lists = audience.unsteered
    targets = planted_run.split.targets(planted_run.split.test)
    np.testing.assert_allclose(audience.ndcg(lists), ndcg(lists, targets))
    np.testing.assert_allclose(exposure(lists, known.tags[0]), exposure_share(lists, known.tags[0]))


def test_relevance_follows_how_often_ranks_are_wanted(rng: np.random.Generator) -> None:
    ranks = np.argsort(rng.random((400, 300)), axis=1).astype(np.int32) + 1
    lengths = rng.integers(5, 50, size=400)
    wanted = rng.random(ranks.shape) < 0.5 / ranks
    base = Relevance.fit(ranks, wanted, lengths).base(-ranks.astype(np.float32), lengths)
    by_rank = np.array([base[ranks == rank].mean() for rank in (1, 10, 100)])
    assert by_rank[0] / by_rank[1] == pytest.approx(10, rel=0.35)
    assert by_rank[1] / by_rank[2] == pytest.approx(10, rel=0.35)


def test_worth_keeps_the_order_of_scores_above_and_below_the_curve(
    rng: np.random.Generator,
) -> None:
    scores = rng.permutation(np.linspace(-3, 3, 4 * DEPTH)).astype(np.float32)
    scores[7] = -np.inf
    curve = 1 / np.arange(1, DEPTH + 1)
    worths = worth(scores, curve)
    order = np.argsort(-scores, kind="stable")
    np.testing.assert_array_equal(np.argsort(-worths, kind="stable"), order)
    np.testing.assert_allclose(worths[order[:DEPTH]], curve)
    assert (worths[order[:-1]] > 0).all()
    assert worths[7] == -np.inf


def test_filled_tags_infer_no_more_than_validation_users_allow(known: Knowledge) -> None:
    weight = choose_weight(known)
    gains = filled(known, weight)
    assert weight in WEIGHTS
    assert (gains[known.tags] == 1).all()
    assert (gains[~known.tags] <= weight).all()


def test_platt_finds_the_sigmoid_that_made_the_tags(rng: np.random.Generator) -> None:
    scores = rng.normal(size=(1, 20000)).astype(np.float32)
    p = expit(2 * scores.astype(np.float64) - 1)
    found = platt(scores, rng.random(p.shape) < p, np.ones(20000, dtype=np.bool_))
    assert np.abs(found - p).max() < 0.03


def test_leave_one_out_ridge_equals_fitting_without_the_item(rng: np.random.Generator) -> None:
    """A vector of its own tells nothing of an item that is left out: the probe may not use it."""
    tagged = rng.random((1, 80)) < 0.3
    everyone = np.ones(80, dtype=np.bool_)
    own = ridge_probe(Spectrum.of(np.eye(80, dtype=np.float32), everyone), tagged, everyone)[0]
    assert own[tagged[0]].mean() <= own[~tagged[0]].mean() + 1e-3
    helpful = np.where(tagged.T, 1.0, -1.0) + 0.1 * rng.normal(size=(80, 5))
    told = ridge_probe(Spectrum.of(helpful.astype(np.float32), everyone), tagged, everyone)[0]
    assert told[tagged[0]].min() > told[~tagged[0]].max()


def test_a_cross_fitted_probe_learns_nothing_from_noise(rng: np.random.Generator) -> None:
    tagged = rng.random((2, 300)) < 0.3
    noise = rng.normal(size=(300, 200)).astype(np.float32)
    p = logistic_probe(noise, tagged, np.ones(300, dtype=np.bool_), rng)
    assert abs(p[tagged].mean() - p[~tagged].mean()) < 0.08


def test_completed_tags_find_the_items_whose_tags_are_hidden(rng: np.random.Generator) -> None:
    carries = np.zeros((1, 2000), dtype=np.bool_)
    carries[0, :400] = True
    scores = (np.where(carries, 4.0, 0.0) + rng.normal(size=(1, 2000))).astype(np.float32)
    shown = carries & (rng.random(carries.shape) < 0.5)
    everyone = np.ones(2000, dtype=np.bool_)
    p = platt(scores, shown, everyone)
    for gains in (completed(p, shown, everyone), probe_and_tag(p, shown)):
        assert gains[carries & ~shown].mean() > 0.8
        assert gains[~carries].mean() < 0.1


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_hidden_tags_are_the_stated_share_at_every_popularity(
    rng: np.random.Generator, share: float
) -> None:
    tags = rng.random((3, 1000)) < 0.4
    popularity = rng.integers(0, 500, size=1000)
    hidden = hide(tags, popularity, share, rng)
    assert not (hidden & ~tags).any()
    for popular in (popularity > 250, popularity <= 250):
        assert (hidden & popular).sum() / (tags & popular).sum() == pytest.approx(share, abs=0.04)


def test_targets_lie_between_the_unsteered_share_and_what_can_be_reached(
    planted_run: Run, audience: Audience
) -> None:
    concepts = concepts_of(planted_run, 10)
    found = judged(concepts, audience)
    assert found
    for concept in found:
        ceiling = audience.ceiling(concepts.tags[concept.row])
        assert all(concept.share < target < ceiling for target in concept.targets.values())


def test_no_concept_is_on_more_than_half_of_the_items(planted_run: Run) -> None:
    assert (concepts_of(planted_run, 100).tags.mean(axis=1) <= 0.5).all()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_each_concept_a_finite_gain(
    known: Knowledge, users: Users, name: str
) -> None:
    gain = METHODS[MethodId(name)].fit(known)(0)
    n_items = known.tags.shape[1]
    assert gain.values.shape in ((n_items,), (len(users.z), n_items))
    assert gain.values.dtype == np.float32
    assert np.isfinite(gain.values).all()
    assert gain.limit > 0


def test_no_method_but_the_oracle_sees_hidden_tags(known: Knowledge) -> None:
    """What is hidden is all that Knowledge lacks; the tag boost gives it nothing."""
    hidden = hide(known.tags, np.arange(known.tags.shape[1]), 0.5, np.random.default_rng(0))
    left = Knowledge(known.models, known.tags & ~hidden)
    boost = METHODS[MethodId("tag boost")].fit(left)(0).values
    assert (boost[hidden[0]] == 0).all()
    completed_tags = METHODS[MethodId("completed tags, z")].fit(left)(0).values
    assert completed_tags[hidden[0]].mean() > 2 * completed_tags[~known.tags[0]].mean()


def test_a_direction_moves_scores_as_the_edit_of_the_code_does(
    planted_run: Run, users: Users, known: Knowledge
) -> None:
    import torch

    features = known.models.neurons
    w = torch.from_numpy(known.contrast(features)[0])
    gain = METHODS[MethodId("contrast")].fit(known)(0).values
    z = torch.from_numpy(users.z)
    sae = planted_run.sae
    recommender = planted_run.recommender
    steered = recommender.scores(z + sae.scale(z) * (0.7 * w @ sae.W_dec)) / sae.scale(z)
    expected = np.where(users.seen, -np.inf, steered.numpy())
    np.testing.assert_allclose(users.base + 0.7 * gain, expected, atol=1e-4)


def test_blending_moves_scores_as_the_papers_mix_does(
    planted_run: Run, users: Users, known: Knowledge
) -> None:
    """Leaves at a = 1 nothing of the old code except its sum."""
    import torch

    models = known.models
    gain = METHODS[MethodId("BLEND, 5 neurons")].fit(known)(0).values
    code = torch.from_numpy(models.user_codes)
    without = (
        users.base + gain
    )  # base is of z: what is left is z's part that the code does not hold
    rest = torch.from_numpy(users.z / users.scale) - code @ planted_run.sae.W_dec
    both = rest.numpy() @ models.item_matrix.T
    moved = np.where(users.seen, 0, without - both)
    per_sum = np.where(users.seen, np.nan, moved) / code.sum(dim=1, keepdim=True).numpy()
    assert np.nanmax(np.nanstd(per_sum, axis=0)) < 1e-3


def test_a_share_near_its_target_is_raised_though_a_few_users_have_more(
    rng: np.random.Generator,
) -> None:
    """The users that the first look is at, every fourth, have all that the others lack."""
    flags = np.arange(300) < 30
    base = rng.normal(size=(200, 300)).astype(np.float32)
    base[::4, flags] += 10.0
    linear = LinearScores(base, flags.astype(np.float32))

    def share(lists: NDArray[np.int64]) -> float:
        return float(flags[lists].mean())

    assert share(linear.lists(0.0)[::4]) == 1.0
    (point,) = solve(linear, share, [0.6], best_items(base))
    assert point is not None
    assert share(point.lists) == pytest.approx(0.6, abs=2e-3)


@pytest.mark.parametrize("way", STRENGTHS)
def test_a_request_gives_each_list_at_least_what_it_asks_for_and_leaves_lists_that_have_it(
    rng: np.random.Generator, way: MethodId
) -> None:
    base = rng.normal(size=(50, 400)).astype(np.float32)
    base[rng.random(base.shape) < 0.1] = -np.inf
    flags = rng.random(400) < 0.2
    direction = (0.5 * rng.normal(size=400) + flags).astype(np.float32)
    unsteered = LinearScores(base, direction).lists(0.0)
    requests = ShareRequests.of(base, direction, flags, 0.3 * STRENGTHS[way])
    for share in (0.1, 0.4, 0.73, 1.0):
        lists = requests.lists(share)
        asked = np.floor(share * 20 + requests.dither)
        assert (flags[lists].sum(axis=1) >= asked).all()
        enough = flags[unsteered].sum(axis=1) >= asked
        np.testing.assert_array_equal(lists[enough], unsteered[enough])
        assert all(len(set(row)) == 20 for row in lists.tolist())
        if way == "target share, lift alone":
            np.testing.assert_array_equal(flags[lists[~enough]].sum(axis=1), asked[~enough])


def test_a_lift_is_the_least_that_puts_enough_items_into_the_list(rng: np.random.Generator) -> None:
    base = rng.permutation(np.arange(100.0, dtype=np.float32))[None]
    flags = rng.random(100) < 0.2
    lists = ShareRequests.of(base, base[0], flags, np.zeros(1)).lists(0.5)
    for lift in np.arange(0.5, 100.0, 1.0):  # the first that gives ten of them
        raised = (base + lift * flags).astype(np.float32)
        expected = best_first(top_n(raised, 20), raised)
        if flags[expected].sum() >= 10:
            break
    np.testing.assert_array_equal(lists, expected)


def test_a_pair_of_shares_is_brought_to_its_targets_or_shown_to_be_out_of_reach(
    audience: Audience, known: Knowledge
) -> None:
    """Concepts without common items hold at most the whole list together."""
    flags = (known.tags[0] & ~known.tags[1], known.tags[1] & ~known.tags[0])
    scores = tuple(LinearScores(audience.bases["score"], own.astype(np.float32)) for own in flags)
    lists = reach_both(audience, (scores[0], scores[1]), flags, (0.5, 0.4), (0.0, 0.0))
    assert lists is not None
    found = [exposure(lists, own).mean() for own in flags]
    assert found == pytest.approx([0.5, 0.4], abs=3e-3)
    assert reach_both(audience, (scores[0], scores[1]), flags, (0.6, 0.5), (0.0, 0.0)) is None


def test_a_paired_difference_has_users_as_clusters() -> None:
    differences = [np.array([1.0, 2.0, 3.0]), np.array([3.0, 4.0, 5.0])]
    found = paired(differences)
    assert found == {"mean": 3.0, "error": pytest.approx(1 / np.sqrt(3)), "concepts": 2}
    assert paired([]) is None


def _cell(difference: float, error: float = 0.001, hidden: float = 0.0) -> dict[str, Any]:
    minus = {"mean": difference, "error": error, "concepts": 1}
    references = ("tag boost + rank", "dense probe + rank", "dense probe + relevance")
    concepts = {"Drama": [0.2 + difference, 0.5, hidden]}
    return {"minus": dict.fromkeys(references, minus), "hidden": hidden, "concepts": concepts}


def test_the_first_table_says_of_each_bar_whether_it_is_met() -> None:
    ways = {"target share + score": -0.003, "tag boost + relevance": -0.0013}
    seen = {
        "common": {"0.5": ["Drama"]},
        "methods": {way: {"0.5": _cell(mean)} for way, mean in ways.items()},
    }
    found = {
        "target share + score": _cell(-0.001, hidden=0.7),
        "ridge on z + relevance": _cell(-0.003, hidden=0.95),
        "completed tags, z + relevance": _cell(-0.01, hidden=0.95),
        "dense probe + rank": _cell(0.0),
        "dense probe + relevance": _cell(0.0),
    }
    hidden = {
        "common": {"0.5": ["Drama"]},
        "methods": {way: {"0.5": cell} for way, cell in found.items()},
    }
    neurons = {"Drama": {str(count): 0.96 if count >= 50 else 0.5 for count in COUNTS}}
    run: dict[str, Any] = {
        "data_set": "a",
        "seen": seen,
        "hidden 0.5": hidden,
        "effects": {"neurons": neurons},
    }
    run["seen"]["pairs"] = run["hidden 0.5"]["pairs"] = {}
    rows: dict[Any, Any] = dict(verdict_table([run, run]).rows)  # type: ignore[arg-type]  # rows of 2
    assert rows["seen: target share + score"] == "0.5: -0.0030 ± 0.0007: missed"
    assert rows["seen: tag boost + relevance"].endswith("met")  # 0 is within two standard errors
    assert rows["50% hidden: ridge on z + relevance"] == "-1.5% ± 0.4%, hidden part 0.95: met"
    assert rows["50% hidden: completed tags, z + relevance"].endswith("0.95: missed")
    assert rows["50% hidden: target share + score"].endswith("0.70: missed")
    assert rows["50% hidden: contrast + rank"] == "not reached"
    assert rows["neurons for 95% of the contrast's effect"] == "50"


def test_a_small_run_has_every_part(planted_run: Run, tmp_path: Path) -> None:
    figures = measure(planted_run, FrontierOptions(max_users=40, max_concepts=3, hidden="0.5"))
    boost = figures["seen"]["methods"]["tag boost + rank"]
    label = next(iter(boost))
    assert boost[label]["reached"] == boost[label]["asked"]
    assert boost[label]["minus"]["tag boost + rank"]["mean"] == 0
    assert figures["seen"]["methods"]["all tags + rank"][label]["ndcg"] == boost[label]["ndcg"]
    (at,) = figures["hidden 0.5"]["common"]
    assert figures["hidden 0.5"]["methods"]["all tags + rank"][at]["hidden"] == pytest.approx(1)
    effects = figures["effects"]
    assert effects["suppression"]["random filter + score"]["minus random"]["mean"] == 0
    assert effects["off_target"]["tag boost + rank"]["over boost"] == pytest.approx(1)
    assert all(kept["1"] <= kept["400"] + 0.05 for kept in effects["neurons"].values())
    report = frontier_report([figures, figures], "made by a test")
    report.write(tmp_path)
    assert "tag boost + relevance" in (tmp_path / "frontier.md").read_text()
    assert json.loads((tmp_path / "frontier.json").read_text())["figures"]["runs"][0]["users"] == 40


def test_a_recommender_with_a_head_is_refused(planted_run: Run) -> None:
    class Headed(type(planted_run.recommender)):  # type: ignore[misc]
        has_head = True

    headed = Headed(planted_run.split.n_items, planted_run.recommender.d)
    with pytest.raises(ConfigError, match="linear in the strength"):
        measure(dataclasses.replace(planted_run, recommender=headed), FrontierOptions())


@pytest.mark.parametrize("wrong", [{"max_users": 1}, {"hidden": "1.5"}, {"hidden": "half"}])
def test_options_without_meaning_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="frontier"):
        FrontierOptions(**wrong)  # type: ignore[arg-type]


def test_the_command_has_the_frontier(capsys: pytest.CaptureFixture[str]) -> None:
    assert "frontier" in MEASURES
    with pytest.raises(SystemExit):
        main(["frontier", "--help"])
    assert "--max-users" in capsys.readouterr().out
