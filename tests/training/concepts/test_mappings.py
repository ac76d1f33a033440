"""Mapping methods: naive formulas, planted truth, and evidence that tells nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.stats import pointbiserialr

from training.concepts import ConceptConfig, item_codes
from training.concepts.effect import Audience
from training.concepts.labels import labels_by
from training.concepts.mapping.association import (
    area_under_curve,
    correlation,
    neuron_aucs,
    weights_aucs,
)
from training.concepts.mapping.causal import causal, neuron_units
from training.concepts.mapping.evidence import Evidence
from training.concepts.mapping.methods import METHODS
from training.concepts.mapping.probes import PENALTY, dense_probe, k_sparse_probe
from training.concepts.membership import memberships
from training.errors import ConfigError
from training.measures.metrics import exposure_share
from training.run import Run


def evidence_of(members: np.ndarray, codes: np.ndarray) -> Evidence:
    return Evidence.whole(
        csr_matrix(members.astype(np.float32)), csr_matrix(codes.astype(np.float32))
    )


@pytest.fixture(scope="module")
def planted(planted_run: Run) -> Evidence:
    run = planted_run
    members = memberships(run.catalogue, run.config.concepts)
    codes = item_codes(run.recommender, run.sae, run.config.max_length)
    histories = run.split.histories(run.split.validation[:40])
    audience = Audience.of(run.recommender, run.sae, histories, run.config.max_length)
    return Evidence.whole(members.matrix, codes, audience)


@given(st.integers(0, 2**32), st.integers(1, 30), st.booleans())
def test_all_neurons_aucs_at_once_are_those_of_one_at_a_time(
    seed: int, items: int, signed: bool
) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(-3 if signed else 0, 3, (items, 4)) * (rng.random((items, 4)) < 0.6)
    members = rng.random((3, items)) < 0.5
    found = neuron_aucs(evidence_of(members, codes))
    for concept, flags in enumerate(members):
        for neuron in range(4):
            expected = area_under_curve(codes[:, neuron].astype(float), flags)
            assert found[concept, neuron] == pytest.approx(expected, nan_ok=True)


@given(st.integers(0, 2**32))
def test_correlation_is_the_point_biserial_one_and_0_where_nothing_varies(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = np.maximum(rng.normal(size=(12, 3)), 0)
    codes[:, 2] = 0.7
    members = rng.random((3, 12)) < 0.5
    members[2] = True
    found = correlation(evidence_of(members, codes))
    assert not found[2].any()
    assert not found[:, 2].any()
    for concept in range(2):
        for neuron in range(2):
            if 0 < members[concept].sum() < 12 and codes[:, neuron].any():
                expected = pointbiserialr(members[concept], codes[:, neuron]).statistic
                assert found[concept, neuron] == pytest.approx(expected, abs=1e-5)


def test_a_dense_probe_is_where_the_gradient_of_its_loss_is_zero(rng: np.random.Generator) -> None:
    codes = np.maximum(rng.normal(size=(60, 5)), 0)
    members = np.stack([codes[:, 0] + rng.normal(size=60) > 0.8, codes[:, 1] > codes[:, 2]])
    weights = dense_probe(evidence_of(members, codes)).astype(float)
    size = np.sqrt((codes**2).sum() / 60)
    X = codes / size
    w = weights * size
    for concept, flags in enumerate(members):
        low = -20.0
        high = 20.0
        for _ in range(60):  # the bias that the probe keeps to itself
            bias = (low + high) / 2
            p = 1 / (1 + np.exp(-(X @ w[concept] + bias)))
            low, high = (bias, high) if p.mean() < flags.mean() else (low, bias)
        gradient = X.T @ (p - flags) / 60 + PENALTY * w[concept]
        assert np.abs(gradient).max() < 1e-3


def test_a_sparse_probe_uses_no_more_neurons_than_it_may(planted: Evidence) -> None:
    weights = k_sparse_probe(planted, 2)
    assert ((weights != 0).sum(axis=1) <= 2).all()
    aucs = weights_aucs(weights, planted)
    assert (aucs > 0.95).all(), "two neurons tell planted concepts apart"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_planted_concepts(method: str, planted: Evidence) -> None:
    """A neuron that fires for one concept's items alone is that concept's more than any other's."""
    aucs = neuron_aucs(planted)
    best = aucs.argmax(axis=1)
    assert (aucs[np.arange(10), best] > 0.9).all()
    table = METHODS[method].map(planted)
    assert table.shape == aucs.shape
    assert (table[:, best].argmax(axis=0) == np.arange(10)).sum() >= 9


@pytest.mark.parametrize("method", METHODS)
def test_no_method_is_upset_by_concepts_of_all_items_or_of_none_or_one(
    method: str, planted: Evidence
) -> None:
    n_items = planted.members.shape[1]
    members = np.zeros((3, n_items))
    members[0] = 1
    members[2, 5] = 1
    table = METHODS[method].map(planted._replace(members=csr_matrix(members, dtype=np.float32)))
    assert np.isfinite(table).all()
    assert not table[1].any()


def test_causal_choice_is_the_change_of_the_share_that_raising_a_neuron_makes(
    planted: Evidence,
) -> None:
    audience = planted.audience
    assert audience is not None
    found = causal(planted)
    units = neuron_units(audience)
    neuron = int(found[3].argmax())
    edit = torch.zeros(audience.sae.n_neurons)
    edit[neuron] = float(units[neuron])
    flags = planted.members[3].toarray()[0] > 0
    before = exposure_share(audience.lists(), flags).mean()
    after = exposure_share(audience.lists(edit), flags).mean()
    assert found[3, neuron] == pytest.approx(after - before, abs=1e-6)
    assert not found[:, units == 0].any()


def test_evidence_of_some_items_keeps_their_places_in_the_catalogue(planted: Evidence) -> None:
    kept = np.zeros(planted.members.shape[1], dtype=bool)
    kept[[4, 9]] = True
    part = planted.of(kept)
    assert part.items.tolist() == [4, 9]
    assert part.of(np.array([False, True])).items.tolist() == [9]
    assert (part.codes != planted.codes[[4, 9]]).nnz == 0


def test_labels_are_chosen_on_some_items_and_scored_on_others(rng: np.random.Generator) -> None:
    """Chance finds a label for every neuron; on other items its AUC is about 1/2."""
    codes = rng.random((400, 60))
    members = rng.random((30, 400)) < 0.2
    evidence = evidence_of(members, codes)
    judged = np.arange(400) % 2 == 0
    names = [f"tag {row}" for row in range(30)]
    labels = labels_by("auc", names, evidence, judged, 1)
    chosen = neuron_aucs(evidence.of(~judged)).max(axis=0).mean()
    scores = [label.score for row in labels for label in row]
    assert len(scores) == 60
    assert chosen > 0.57
    assert abs(np.mean(scores) - 0.5) < 0.02
    assert "judged on 200 others" in labels[0][0].provenance


def test_labels_that_held_out_items_cannot_tell_of_are_left_out() -> None:
    codes = np.eye(8)
    members = np.zeros((1, 8), dtype=bool)
    members[0, :4] = True
    judged = np.array([True] + [False] * 7)
    assert labels_by("auc", ["x"], evidence_of(members, codes), judged, 3) == [[]] * 8


def test_labels_never_hold_concepts_that_speak_against_the_neuron(planted: Evidence) -> None:
    judged = np.arange(planted.codes.shape[0]) % 5 == 0
    for row in labels_by("correlation", [f"c{n}" for n in range(10)], planted, judged, 3):
        assert len(row) <= 3
    scores = labels_by("contrast", [f"c{n}" for n in range(10)], planted, judged, 10)
    assert all(label.score > 0 for row in scores for label in row)


@pytest.mark.parametrize("wrong", [{"method": "magic"}, {"labels": "tfidf,magic"}])
def test_unknown_methods_are_refused_by_name(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="magic"):
        ConceptConfig(**wrong)  # type: ignore[arg-type]
