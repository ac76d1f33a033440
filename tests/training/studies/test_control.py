"""The control study: operations against the naive formula, shares, pairs, side effects."""

import numpy as np
import pytest
import torch

from training.concepts.effect import Audience
from training.concepts.membership import memberships
from training.errors import ConfigError
from training.run import Run
from training.studies.control import methods, pairs, side_effects
from training.studies.control.halving import FALLS, halve
from training.studies.control.hidden_tags import halve_hidden
from training.studies.control.measure import ControlOptions, measure
from training.studies.control.method_ids import ControlMethod
from training.studies.control.operations import NEURONS, OPERATIONS, OperationId, operate
from training.studies.control.report import control_report
from training.studies.control.setting import Setting
from training.studies.frontier.audience import exposure


@pytest.fixture(scope="module")
def setting(planted_run: Run) -> Setting:
    return Setting.of(planted_run, planted_run.split.test[:60], 10)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_brings_every_level_where_it_says(planted_run: Run, name: OperationId) -> None:
    concept = planted_run.concepts[0]
    w = concept.weights.astype(np.float64)
    code = np.random.default_rng(1).random((5, len(w)), dtype=np.float32)
    edited = OPERATIONS[name](torch.from_numpy(code), concept, 0.5).numpy()
    before = code @ w / (w @ w)
    after = edited @ w / (w @ w)
    wanted = {
        OperationId.ADD_UP: before + 0.5 * concept.unit,
        OperationId.ADD_DOWN: before - 0.5 * concept.unit,
        OperationId.ABLATE: np.zeros(5),
        OperationId.CAP: np.minimum(before, 0.0),
    }
    if name in wanted:
        np.testing.assert_allclose(after, wanted[name], atol=1e-5)
        beside = edited - code - np.outer(after - before, w)
        np.testing.assert_allclose(beside, 0.0, atol=1e-5)
    else:
        largest = np.sort(w)[-NEURONS]
        assert (edited[:, w >= largest] == 0).all()
        assert (edited[:, w < largest] == code[:, w < largest]).all()


def test_adding_raises_each_planted_concept_and_subtracting_lowers_it(planted_run: Run) -> None:
    run = planted_run
    histories = run.split.histories(run.split.test)
    targets = run.split.targets(run.split.test)
    audience = Audience.of(run.recommender, run.sae, histories, run.config.max_length)
    members = memberships(run.catalogue, run.config.concepts)
    for row, concept in enumerate(run.concepts):
        flags = members.matrix[row].toarray()[0] > 0
        found = dict(operate(audience, concept, flags, targets, 1.0))
        assert found[OperationId.ADD_UP].change.mean() > found[OperationId.ADD_UP].share.mean()
        assert (
            found[OperationId.ADD_DOWN].change.mean() < found[OperationId.ABLATE].change.mean() < 0
        )
        assert found[OperationId.ADD_UP].ndcg_change.mean() < 0


@pytest.mark.parametrize("target", [0.5, 2.0])
@pytest.mark.parametrize("way", [methods.added, methods.boosted, methods.lifted])
def test_a_share_is_brought_to_its_target(
    setting: Setting, way: methods.Method, target: float
) -> None:
    for concept in setting.judged[:3]:
        lists = way(setting, concept.row, target * concept.share)
        assert lists is not None
        share = exposure(lists, setting.concepts.tags[concept.row]).mean()
        assert share == pytest.approx(target * concept.share, abs=2e-3)


def test_a_cap_halves_a_share_without_giving_anyone_more(setting: Setting) -> None:
    concept = setting.judged[0]
    flags = setting.concepts.tags[concept.row]
    lists = methods.capped(setting, concept.row, concept.share / 2)
    assert lists is not None
    assert exposure(lists, flags).mean() == pytest.approx(concept.share / 2, abs=5e-3)
    assert (exposure(lists, flags) <= exposure(setting.audience.unsteered, flags) + 1e-9).all()


@pytest.mark.parametrize("way", [methods.bounded, methods.lowered_to])
def test_no_list_holds_more_than_its_largest_share(setting: Setting, way: methods.Method) -> None:
    for concept in setting.judged:
        flags = setting.concepts.tags[concept.row]
        before = flags[setting.audience.unsteered].sum(axis=1)
        lists = way(setting, concept.row, 0.5)
        assert lists is not None
        after = flags[lists].sum(axis=1)
        assert (after <= before // 2).all()
        untouched = before == 0
        assert (lists[untouched] == setting.audience.unsteered[untouched]).all()
        assert all(len(set(row)) == len(row) for row in lists.tolist())


def test_lowering_keeps_both_kinds_in_their_order_and_takes_as_few_as_it_can() -> None:
    scores = np.linspace(1, 0, 60, dtype=np.float32)[None]
    flags = np.zeros(60, dtype=bool)
    flags[:30:2] = True  # 10 of the first 20
    (found,) = methods.lowered(scores, flags, np.array([4])).tolist()
    assert sorted(item for item in found if flags[item]) == [0, 2, 4, 6]
    assert [item for item in found if not flags[item]] == [*range(1, 31, 2), 30]


def test_leaving_out_at_random_leaves_out_that_many_and_adds_none(setting: Setting) -> None:
    concept = setting.judged[0]
    rng = np.random.default_rng(3)
    unsteered = setting.audience.ndcg(setting.audience.unsteered)
    nothing = np.zeros(len(unsteered), dtype=np.int64)
    np.testing.assert_allclose(
        methods.randomly_removed(setting, concept.row, nothing, rng, 1), unsteered
    )
    every = nothing + 20
    flags = setting.concepts.tags[concept.row]
    filtered = methods.lowered(setting.audience.bases["score"], flags, nothing)
    without = setting.audience.ndcg(filtered)
    np.testing.assert_allclose(
        methods.randomly_removed(setting, concept.row, every, rng, 2), without
    )


def test_halving_reports_every_way_and_leaves_half(setting: Setting) -> None:
    found = halve(setting, 1)
    assert list(found) == list(FALLS)
    shares = {concept.name: concept.share for concept in setting.judged}
    for name, one in found[ControlMethod.ADD_DOWN].items():
        assert one.share == pytest.approx(shares[name] / 2, abs=2e-3)
        assert one.ndcg.shape == one.random.shape == one.unsteered.shape == (60,)


def test_where_tags_are_hidden_a_direction_halves_what_a_lift_cannot_see(setting: Setting) -> None:
    found = halve_hidden(setting, np.random.default_rng(2))
    reached = {way: sum(loss is not None for loss in ones.values()) for way, ones in found.items()}
    assert (
        reached[ControlMethod.ADD_DOWN]
        == len(found[ControlMethod.ADD_DOWN])
        > reached[ControlMethod.LIFT_DOWN]
    )


def test_both_shares_of_a_pair_are_reached(setting: Setting) -> None:
    for name, found in pairs.halved_together(setting).items():
        reached = [pair for pair in found if pair is not None]
        assert len(reached) >= len(found) / 2, name
        assert all(pair.short < 0.003 for pair in reached)


def test_a_drift_is_the_mean_distance_of_the_other_concepts() -> None:
    moves = np.array([[0.1, -0.2], [0.3, -0.4]])
    one = side_effects.Drift(("a", "b"), moves)
    assert one.distance.mean() == pytest.approx((0.2 + 0.3) / 2)
    name, distance = one.furthest
    assert name == "b"
    assert distance == pytest.approx(-0.3)


def test_runs_are_joined_in_one_report(planted_run: Run) -> None:
    figures = measure(planted_run, ControlOptions(max_concepts=3, max_users=40))
    report = control_report([figures, figures], "command")
    titles = " ".join(table.title for table in report.tables)
    assert all(
        part in titles
        for part in ("operation", "levels", "halved", "do not know", "two concepts", "|move|")
    )
    assert all(len(row) == len(table.columns) for table in report.tables for row in table.rows)
    assert report.plot is not None


def test_options_without_meaning_are_refused() -> None:
    with pytest.raises(ConfigError, match="found 1, 20, 1"):
        ControlOptions(max_users=1)
