"""Gains: how likely each item carries a concept, its own tag left out."""

import dataclasses

import numpy as np
import polars as pl
from scipy.stats import rankdata

from training.concepts.gains.item_gains import gains_of, item_vectors, tagged
from training.concepts.membership import memberships
from training.interactions import Catalogue
from training.run import Run


def test_an_item_without_its_tag_is_found_by_its_vector(planted_run: Run) -> None:
    gains = gains_of(planted_run, "ridge")
    tags = tagged(planted_run.catalogue, planted_run.concepts)
    assert ((gains >= 0) & (gains <= 1)).all()
    for row, carries in enumerate(tags):
        ranks = rankdata(gains[row])
        auc = (ranks[carries].mean() - (carries.sum() + 1) / 2) / (~carries).sum()
        assert auc > 0.9


def test_the_largest_gain_is_1_and_where_vectors_tell_nothing_the_tag_is_all(
    planted_run: Run,
) -> None:
    gains = gains_of(planted_run, "ridge")
    np.testing.assert_allclose(gains.max(axis=1), 1.0)
    items = planted_run.catalogue.items
    concept = planted_run.concepts[0]
    told = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        chance = [[concept.value] if rng.random() < 0.1 else None for _ in range(len(items))]
        column = pl.Series(concept.attribute, chance, dtype=items.schema[concept.attribute])
        run = dataclasses.replace(planted_run, catalogue=Catalogue(items.with_columns(column)))
        found = gains_of(run, "ridge")[0]
        tags = tagged(run.catalogue, [concept])[0]
        assert found.max() == 1.0
        assert np.ptp(found) > 0
        told.append(not np.array_equal(found, tags))
    assert not all(told)


def test_an_items_own_tag_does_not_raise_its_gain(planted_run: Run) -> None:
    items = planted_run.catalogue.items
    concept = planted_run.concepts[0]
    carries = tagged(planted_run.catalogue, [concept])[0]
    item = int(np.flatnonzero(carries)[0])
    column = items[concept.attribute].to_list()
    column[item] = None
    without = dataclasses.replace(
        planted_run, catalogue=Catalogue(items.with_columns(pl.Series(concept.attribute, column)))
    )
    before, after = (gains_of(run, "ridge")[0, item] for run in (planted_run, without))
    assert abs(before - after) < 0.1


def test_tags_are_those_of_the_memberships(planted_run: Run) -> None:
    members = memberships(planted_run.catalogue, planted_run.config.concepts)
    rows = [members.names.index(concept.name) for concept in planted_run.concepts]
    np.testing.assert_array_equal(
        tagged(planted_run.catalogue, planted_run.concepts), members.matrix[rows].toarray() > 0
    )


def test_vectors_do_not_depend_on_how_items_are_batched(planted_run: Run) -> None:
    model = planted_run.recommender
    sae = planted_run.sae
    np.testing.assert_allclose(
        item_vectors(model, sae, 50), item_vectors(model, sae, 50, batch_size=7), atol=1e-6
    )


def test_a_run_without_concepts_has_no_gains(planted_run: Run) -> None:
    bare = dataclasses.replace(planted_run, concepts=[])
    assert gains_of(bare, "ridge").shape == (0, planted_run.catalogue.n_items)
