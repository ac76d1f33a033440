"""Concept cards against the plain formulas, neuron by neuron."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from exporters import cards as cards_module
from exporters.cards import (
    Population,
    bounded_batches,
    encode_population,
    find_top_items,
    measure_activity,
)
from tests.support.bundle_factory import make_contents, make_world

VARIANTS: dict[str, dict[str, Any]] = {
    "identity head": {},
    "tanh head": {"with_head": True},
    "context, neurons without a fixed number": {
        "with_context": True,
        "k": 128,
        "padded": True,
        "scale_rule": "standard",
        "scale_factor": 2.5,
    },
}


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> dict[str, Any]:
    return VARIANTS[request.param]


@pytest.fixture(scope="module")
def world(variant: dict[str, Any]) -> Any:
    return make_world(**variant)


@pytest.fixture(scope="module")
def made(variant: dict[str, Any]) -> Any:
    return make_contents(**variant)


def _codes(world: Any, z: torch.Tensor) -> NDArray[np.float32]:
    code = world.sae.encode_sparse(z)
    dense: NDArray[np.float32] = (
        torch.zeros(len(z), world.sae.n_neurons)
        .scatter_add(1, code.neurons, code.activations)
        .detach()
        .numpy()
    )
    return dense


@pytest.fixture(scope="module")
def user_codes(world: Any) -> NDArray[np.float32]:
    return _codes(world, world.recommender.activate(*world.train.padded()).z)


def test_density_quantiles_and_units_are_those_of_the_users_in_whom_a_neuron_is_active(
    world: Any, made: Any, user_codes: NDArray[np.float32]
) -> None:
    activity = made.cards.activity
    units = []
    for neuron, column in enumerate(user_codes.T):
        active = column[column > 0]
        assert activity.density[neuron] == pytest.approx(len(active) / len(column))
        assert activity.dead[neuron] == (len(active) == 0)
        if len(active):
            expected = np.quantile(active, [0.5, 0.75, 0.9, 0.95, 0.99, 1.0])
            np.testing.assert_allclose(activity.quantiles[neuron], expected, rtol=1e-4)
            counts, _ = np.histogram(active, bins=20, range=(0.0, activity.quantiles[neuron, -1]))
            # A value on a bin's edge may fall to either side.
            assert np.abs(counts - activity.histogram[neuron]).sum() <= 2
            assert activity.histogram[neuron].sum() == len(active)
            assert activity.unit[neuron] == activity.quantiles[neuron, 3]
            units.append(activity.unit[neuron])
    assert activity.dead.any() or world.sae.k == world.sae.n_neurons
    np.testing.assert_array_equal(activity.unit[activity.dead], np.float32(np.median(units)))
    assert not activity.quantiles[activity.dead].any()
    assert not activity.histogram[activity.dead].any()


def test_top_items_are_the_one_item_histories_that_activate_a_neuron_most(
    world: Any, made: Any
) -> None:
    n_items = len(world.genres)
    ones = torch.ones(n_items, 1)
    codes = _codes(world, world.recommender.activate(torch.arange(n_items)[:, None], ones).z)
    for neuron, column in enumerate(codes.T):
        expected = -np.sort(-column[column > 0])[:20]
        listed = made.cards.top_items.indices[neuron]
        assert (listed >= 0).sum() == len(expected)
        np.testing.assert_allclose(
            made.cards.top_items.values[neuron, : len(expected)], expected, rtol=1e-4
        )
        np.testing.assert_allclose(column[listed[: len(expected)]], expected, rtol=1e-4)


def test_top_items_do_not_depend_on_how_the_catalogue_is_cut(
    world: Any, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards_module, "_ITEMS_PER_CHUNK", 7)
    cut = find_top_items(world.recommender, world.sae, len(world.genres))
    np.testing.assert_allclose(cut.values, made.cards.top_items.values, rtol=1e-4)


def test_users_with_many_active_neurons_are_sampled_so_that_their_codes_fit(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards_module, "_MAX_ENTRIES", 50 * world.sae.k)
    monkeypatch.setattr(cards_module, "_CHUNK_ELEMENTS", 7 * world.sae.n_neurons)
    population = encode_population(world.recommender, world.sae, world.train)
    assert population.n_users == 50
    assert len(population.neurons) <= 50 * world.sae.k
    assert (population.activations > 0).all()


def test_raised_and_lowered_items_are_what_a_small_edit_does_to_the_mean_users_scores(
    world: Any, made: Any
) -> None:
    user = torch.from_numpy(made.mean_user)[None].double()
    recommender = world.recommender.double()
    sae = world.sae.double()
    context = recommender.activate(torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0)).context
    try:
        for neuron in range(0, 128, 9):
            step = (
                1e-4 * sae.scale(user) * float(made.cards.activity.unit[neuron]) * sae.W_dec[neuron]
            )
            up = recommender.head(user + step, context)
            down = recommender.head(user - step, context)
            effect = ((up - down) @ recommender.V.T)[0].detach().numpy() / 2e-4
            raised = made.cards.raised_items
            lowered = made.cards.lowered_items
            np.testing.assert_allclose(raised.values[neuron], -np.sort(-effect)[:20], rtol=1e-3)
            np.testing.assert_allclose(lowered.values[neuron], np.sort(effect)[:20], rtol=1e-3)
            np.testing.assert_allclose(
                effect[raised.indices[neuron]], raised.values[neuron], rtol=1e-3
            )
            np.testing.assert_allclose(
                effect[lowered.indices[neuron]], lowered.values[neuron], rtol=1e-3
            )
    finally:
        world.recommender.float()
        world.sae.float()


def test_nearest_neurons_are_by_cosine_and_never_the_neuron_itself(world: Any, made: Any) -> None:
    W_dec = world.sae.W_dec.detach().numpy()
    cosines = W_dec @ W_dec.T
    np.fill_diagonal(cosines, -2.0)
    nearest = made.cards.nearest
    np.testing.assert_allclose(
        nearest.values, -np.sort(-cosines, axis=1)[:, :8], rtol=1e-4, atol=1e-6
    )
    assert (nearest.indices != np.arange(128)[:, None]).all()


def test_a_neuron_that_no_one_has_leaves_a_population_of_dead_neurons_with_unit_1() -> None:
    nobody = Population(np.zeros(0, np.int64), np.zeros(0, np.float32), 3, np.zeros(2, np.float32))
    activity = measure_activity(nobody, 4)
    assert activity.dead.all()
    np.testing.assert_array_equal(activity.unit, np.ones(4, np.float32))


def test_batches_are_bounded_and_hold_every_history_once(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards_module, "_POSITIONS_PER_BATCH", 100)
    total = 0
    items = []
    for batch in bounded_batches(world.train, most_rows=9):
        assert batch.items.numel() <= 100
        assert len(batch.items) <= 9
        total += len(batch.items)
        items.append(batch.items[batch.mask > 0])
    assert total == len(world.train.lengths)
    np.testing.assert_array_equal(np.sort(torch.cat(items)), np.sort(world.train.items))
