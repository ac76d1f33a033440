"""Concepts: membership, contrast, TF-IDF, units and effects, against naive formulas and truth."""

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from training.concepts import ConceptConfig, fit_concepts, item_codes
from training.concepts.effect import Audience, typical_unit
from training.concepts.mapping.contrast import contrast_weights
from training.concepts.mapping.tfidf import characterises, most_unique, tag_activations, top_neurons
from training.concepts.membership import memberships
from training.errors import ConfigError
from training.evaluation.neurons import best_neuron, best_neurons
from training.evaluation.steering import neuron_unit
from training.histories import Histories
from training.interactions import Catalogue
from training.measures.metrics import exposure_share
from training.run import Run


def catalogue(**attributes: Sequence[object]) -> Catalogue:
    count = len(next(iter(attributes.values())))
    ids = [str(item) for item in range(count)]
    return Catalogue(
        pl.DataFrame({"item_id": ids, "title": ids, "popularity": [9] * count} | attributes)
    )


def test_values_on_enough_items_are_concepts_and_those_on_all_are_not() -> None:
    tags = [["all", "some"], ["all", "some", "some"], ["all", "one"], ["all"]]
    found = memberships(catalogue(tags=tags), ConceptConfig(min_items=2))
    assert found.names == ("some",)
    assert found.matrix.toarray().tolist() == [[1, 1, 0, 0]]
    assert found.item_counts.tolist() == [2]


def test_text_values_are_concepts_and_numbers_are_not() -> None:
    found = memberships(
        catalogue(brand=["x", "x", None, ""], year=[1.0, 1.0, 2.0, 2.0]), ConceptConfig(min_items=2)
    )
    assert (found.names, found.attributes) == (("x",), ("brand",))


def test_a_value_that_two_attributes_share_is_named_with_its_attribute() -> None:
    found = memberships(
        catalogue(genre=[["war"], ["war"], ["love"], ["love"]], topic=["war", "war", None, None]),
        ConceptConfig(min_items=2),
    )
    assert set(found.names) == {"genre=war", "topic=war", "love"}


def test_only_the_most_frequent_values_stay_when_there_are_too_many() -> None:
    tags = [["a", "b"], ["a", "b"], ["a"], ["c", "c"], ["c"]]
    assert memberships(catalogue(tags=tags), ConceptConfig(min_items=1, max_values=1)).names == (
        "a",
    )


@pytest.mark.parametrize(
    "wrong", [{"min_items": 0}, {"held_out_share": 1.0}, {"max_users": 0}, {"min_popularity": -1}]
)
def test_settings_without_meaning_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        ConceptConfig(**wrong)  # type: ignore[arg-type]


@given(st.integers(0, 2**32), st.integers(2, 12), st.integers(1, 6), st.integers(1, 4))
def test_contrast_is_the_mean_with_minus_the_mean_without(
    seed: int, items: int, neurons: int, concepts: int
) -> None:
    rng = np.random.default_rng(seed)
    codes = np.maximum(rng.normal(size=(items, neurons)), 0).astype(np.float32)
    members = rng.random((concepts, items)) < 0.5
    found = contrast_weights(csr_matrix(members.astype(np.float32)), csr_matrix(codes))
    for concept, flags in enumerate(members):
        if flags.all() or not flags.any():
            assert not found[concept].any()
        else:
            expected = codes[flags].mean(axis=0) - codes[~flags].mean(axis=0)
            np.testing.assert_allclose(found[concept], expected, atol=1e-5)


@given(st.integers(0, 2**32), st.integers(2, 8), st.integers(1, 5), st.integers(1, 4))
def test_tf_idf_is_the_papers_formula_in_both_directions(
    seed: int, items: int, neurons: int, tags: int
) -> None:
    rng = np.random.default_rng(seed)
    codes = np.maximum(rng.normal(size=(items, neurons)), 0)
    members = (rng.random((tags, items)) < 0.6).astype(np.float64)
    A = tag_activations(csr_matrix(members), csr_matrix(codes))
    first = characterises(A)
    second = most_unique(A)
    for t in range(tags):
        for n in range(neurons):
            carried = [item for item in range(items) if members[t, item]]
            expected = sum(codes[item, n] for item in carried) / max(len(carried), 1)
            assert math.isclose(A[t, n], expected, abs_tol=1e-9)
            with_neuron = sum(A[other, n] > 0 for other in range(tags))
            idf = math.log((tags + 1) / (with_neuron + 1)) + 1
            total = A[t].sum()
            assert math.isclose(first[t, n], A[t, n] / total * idf if total else 0, abs_tol=1e-9)
            with_tag = sum(A[t, other] > 0 for other in range(neurons))
            idf = math.log((neurons + 1) / (with_tag + 1)) + 1
            total = A[:, n].sum()
            assert math.isclose(second[t, n], A[t, n] / total * idf if total else 0, abs_tol=1e-9)


def test_blend_neurons_are_the_best_of_the_table_and_never_zeros() -> None:
    table = np.array([[0.5, 0.0, 0.2], [0.1, 0.0, 0.9]])
    assert top_neurons(table, 2) == [[0, 2], [2, 0]]


def test_a_unit_is_the_top_tenths_mean_level_above_the_mean_of_all() -> None:
    levels = np.random.default_rng(0).permutation(20).astype(np.float64)
    assert typical_unit(levels) == 18.5 - 9.5


def test_a_unit_is_positive_even_where_all_users_are_alike() -> None:
    assert typical_unit(np.full(20, 0.3)) == 1.0


def test_a_neurons_unit_is_its_95th_percentile_where_active() -> None:
    assert neuron_unit(np.array([0.0, 0, 1, 2, 3])) == pytest.approx(np.quantile([1, 2, 3], 0.95))
    assert neuron_unit(np.zeros(4)) == 0.0


def test_an_edit_moves_the_embedding_by_scale_times_edit_times_decoder(planted_run: Run) -> None:
    run = planted_run
    histories = run.split.histories(run.split.test[:5])
    audience = Audience.of(run.recommender, run.sae, histories, run.config.max_length)
    edit = torch.zeros(run.sae.n_neurons)
    edit[3] = 2.0
    edit[7] = -1.0
    V, b = run.recommender.item_matrix()
    lists = audience.lists(edit, n=10)
    for user, z in enumerate(audience.z):
        steered = z + run.sae.scale(z[None])[0] * (2.0 * run.sae.W_dec[3] - run.sae.W_dec[7])
        scores = V @ steered + b
        scores[audience.seen[user].indices.tolist()] = -torch.inf
        assert lists[user].tolist() == torch.topk(scores, 10).indices.tolist()


def test_fitted_concepts_say_what_they_measured(planted_run: Run) -> None:
    run = planted_run
    assert sorted(concept.name for concept in run.concepts) == [
        f"concept-{number:02d}" for number in range(10)
    ]
    users = run.split.validation
    audience = Audience.of(
        run.recommender, run.sae, run.split.histories(users), run.config.max_length
    )
    for concept in run.concepts:
        tags = run.catalogue.items["concepts"].to_list()
        flags = np.array([concept.name in carried for carried in tags])
        assert concept.item_count == flags.sum()
        assert concept.method == "contrast"
        assert concept.auc is not None
        assert concept.auc > 0.95
        assert len(concept.blend_neurons) == 10
        before = exposure_share(audience.lists(), flags).mean()
        after = exposure_share(
            audience.lists(torch.from_numpy(concept.unit * concept.weights)), flags
        ).mean()
        assert concept.unsteered_share == pytest.approx(before, abs=1e-6)
        assert concept.steered_share == pytest.approx(after, abs=1e-6)
        assert after > 2 * before


def test_items_without_any_attribute_give_no_concepts_and_a_note(planted_run: Run) -> None:
    run = planted_run
    bare = Catalogue(
        run.catalogue.items.with_columns(pl.lit(None, pl.List(pl.String)).alias("concepts"))
    )
    for items in (bare, Catalogue(run.catalogue.items.drop("concepts"))):
        fitted = fit_concepts(
            run.recommender,
            run.sae,
            items,
            run.split,
            run.config.max_length,
            run.config.concepts,
            seed=1,
        )
        assert fitted.concepts == []
        assert fitted.labels == [[]] * run.sae.n_neurons
        assert "there are no concepts" in fitted.notes[0]


def test_a_concept_of_items_that_nobody_has_is_left_out_with_a_note(planted_run: Run) -> None:
    run = planted_run
    unseen = np.array(
        ["concept-03" in carried for carried in run.catalogue.items["concepts"].to_list()]
    )
    items = run.catalogue.with_popularity(np.where(unseen, 0, run.catalogue.popularity))
    fitted = fit_concepts(
        run.recommender,
        run.sae,
        items,
        run.split,
        run.config.max_length,
        run.config.concepts,
        seed=1,
    )
    assert "concept-03" not in [concept.name for concept in fitted.concepts]
    assert "concept-03" in fitted.notes[0]


@pytest.mark.parametrize(
    "method", ["contrast", "dense-probe", "sparse-probe", "tfidf", "correlation"]
)
def test_concepts_can_be_fitted_by_other_methods_and_steer(planted_run: Run, method: str) -> None:
    run = planted_run
    config = ConceptConfig(method=method, labels="")
    fitted = fit_concepts(
        run.recommender, run.sae, run.catalogue, run.split, run.config.max_length, config, seed=1
    )
    assert {concept.method for concept in fitted.concepts} == {method}
    assert all(concept.steered_share > 2 * concept.unsteered_share for concept in fitted.concepts)
    assert fitted.labels == [[]] * run.sae.n_neurons


@pytest.mark.parametrize("method", ["contrast", "dense-probe", "tfidf-unique"])
def test_a_tag_on_one_item_is_a_concept_without_auc_and_a_tag_on_all_items_is_none(
    planted_run: Run, method: str
) -> None:
    run = planted_run
    tags = [
        [*(["alone"] if row == 7 else []), "everywhere"] for row in range(run.catalogue.n_items)
    ]
    items = Catalogue(run.catalogue.items.with_columns(pl.Series("concepts", tags)))
    config = ConceptConfig(method=method, min_items=1)
    fitted = fit_concepts(
        run.recommender, run.sae, items, run.split, run.config.max_length, config, seed=1
    )
    (alone,) = fitted.concepts
    assert (alone.name, alone.item_count, alone.auc) == ("alone", 1, None)
    assert np.isfinite(alone.weights).all()
    assert {label.text for row in fitted.labels for label in row} == {"alone"}


def test_planted_concepts_have_a_neuron_that_moves_them_and_not_the_others(
    planted_run: Run,
) -> None:
    """Neurons are chosen on 4 of 5 items, judged on the fifth, then steered by a TYPICAL unit."""
    figures = best_neurons(planted_run)
    assert len(figures) == 10
    found = sum(row.auc >= 0.95 for row in figures)
    clean = sum(row.shift > 0.1 and row.off_target < row.shift / 3 for row in figures)
    assert found >= 9, (
        f"{found} of 10 planted concepts have a neuron with AUC >= .95 on held-out items"
    )
    assert clean >= 9, f"steering moves {clean} of 10 planted concepts and not the others"


def test_the_best_neuron_is_the_one_of_largest_auc_and_then_of_most_activation() -> None:
    flags = np.array([True, True, True, False, False, False])
    codes = np.array(
        [[1, 1, 3], [1, 1, 3], [0, 1, 3], [0, 0, 0], [0, 0, 0], [1, 0, 0]], dtype=np.float32
    )
    assert best_neuron(codes, flags) == 2
    assert best_neuron(codes[:, :2], flags) == 1
    assert best_neuron(codes[:2], flags[:2]) == 2


def test_item_codes_are_those_of_one_item_histories(planted_run: Run) -> None:
    run = planted_run
    codes = item_codes(run.recommender, run.sae, run.config.max_length, batch_size=64)
    one = Histories(np.array([0, 1]), np.array([5]))
    code = run.sae.encode(run.recommender.embed(one, run.config.max_length))
    np.testing.assert_allclose(codes[5].toarray(), code.numpy(), atol=1e-6)
    assert codes.shape == (run.catalogue.n_items, run.sae.n_neurons)
