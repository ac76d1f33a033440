"""Tests the algebra of edits against the naive formula on dense vectors."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.steering.edits import EditEffect, Operation, RawEdit, apply_edits, decode
from service.steering.state import SparseCode
from service.steering.targets import Target

N_NEURONS = 40
D = 12
RNG = np.random.default_rng(7)
DECODER = RNG.normal(size=(N_NEURONS, D)).astype(np.float32)
DECODER /= np.linalg.norm(DECODER, axis=1, keepdims=True)


def neuron(index: int) -> Target:
    return Target(
        f"#{index}",
        np.array([index]),
        np.ones(1, np.float32),
        DECODER[index],
        0.7,
        np.array([index]),
    )


def concept(seed: int) -> Target:
    weights = np.random.default_rng(seed).normal(size=N_NEURONS).astype(np.float32)
    best = np.argsort(-weights)[:5]
    return Target(f"concept {seed}", None, weights, weights @ DECODER, 0.4, best)


def code_of(seed: int, k: int = 8) -> SparseCode:
    rng = np.random.default_rng(seed)
    return SparseCode(
        rng.choice(N_NEURONS, k, replace=False),
        np.abs(rng.normal(size=k)).astype(np.float32) + 0.05,
    )


def dense(code: SparseCode) -> np.ndarray[Any, Any]:
    s = np.zeros(N_NEURONS)
    s[code.neurons] = code.activations
    return s


def effects_of(code: SparseCode, edits: list[RawEdit]) -> tuple[EditEffect, ...]:
    effects = apply_edits(code, edits, DECODER).effects
    assert effects is not None
    return effects


def naive(code: SparseCode, edits: list[RawEdit]) -> np.ndarray[Any, Any]:
    """Computes s' by the formula of docs/formulas.md, in double precision on dense vectors."""
    s = dense(code)
    for edit in edits:
        w = np.zeros(N_NEURONS)
        w[slice(None) if edit.target.neurons is None else edit.target.neurons] = edit.target.weights
        c = s @ w / (w @ w)
        x = edit.strength
        if edit.operation is Operation.BLEND:
            group = np.zeros(N_NEURONS)
            group[edit.target.blend_neurons] = 1 / len(edit.target.blend_neurons)
            s = (1 - x) * s + x * s.sum() * group
        else:
            new: Any = {
                Operation.ADD: c + x,
                Operation.SET: x,
                Operation.SCALE: x * c,
                Operation.CAP: min(c, x),
                Operation.ABLATE: 0.0,
                Operation.BOOST: c,
            }[edit.operation]
            s = s + (new - c) * w
    return s


targets = st.one_of(st.integers(0, N_NEURONS - 1).map(neuron), st.integers(0, 20).map(concept))
shifts = st.builds(
    RawEdit,
    targets,
    st.sampled_from([op for op in Operation if op is not Operation.BLEND]),
    st.floats(-3, 3, width=32),
)
blends = st.builds(RawEdit, targets, st.just(Operation.BLEND), st.floats(0, 1, width=32))


@given(seed=st.integers(0, 1_000), edits=st.lists(st.one_of(shifts, blends), max_size=8))
def test_edits_in_any_order_equal_the_formula_on_dense_vectors(
    seed: int, edits: list[RawEdit]
) -> None:
    code = code_of(seed)
    change = apply_edits(code, edits, DECODER).changes.sum(axis=0)
    expected = (naive(code, edits) - dense(code)) @ DECODER
    assert np.abs(change - expected).max() <= 1e-5 * max(1.0, float(np.abs(expected).max()))


@given(seed=st.integers(0, 1_000), edits=st.lists(st.one_of(shifts, blends), max_size=8))
def test_edits_change_the_same_with_and_without_effects(seed: int, edits: list[RawEdit]) -> None:
    asked, plain = (
        apply_edits(code_of(seed), edits, DECODER, with_effects=asked) for asked in (True, False)
    )
    assert np.array_equal(asked.changes, plain.changes)


@given(seed=st.integers(0, 1_000), target=targets)
def test_edits_that_change_nothing_have_no_effect(seed: int, target: Target) -> None:
    edits = [
        RawEdit(target, Operation.ADD, 0.0),
        RawEdit(target, Operation.SCALE, 1.0),
        RawEdit(target, Operation.BLEND, 0.0),
    ]
    assert all(edit.is_identity for edit in edits)
    assert not apply_edits(code_of(seed), edits, DECODER).changes.any()


@pytest.mark.parametrize("operation", [Operation.SCALE, Operation.CAP, Operation.ABLATE])
def test_scale_cap_and_ablate_of_a_silent_neuron_have_no_effect(operation: Operation) -> None:
    code = code_of(3)
    silent = next(index for index in range(N_NEURONS) if index not in code.neurons)
    edits = [RawEdit(neuron(silent), operation, 0.5)]
    assert not apply_edits(code, edits, DECODER).changes.any()
    (effect,) = effects_of(code, edits)
    assert effect.amount == 0.0
    assert effect.level_before == effect.level_after == 0.0


def test_suppressing_a_silent_neuron_still_pushes_away_from_it() -> None:
    code = code_of(3)
    silent = next(index for index in range(N_NEURONS) if index not in code.neurons)
    edits = [RawEdit(neuron(silent), Operation.ADD, -0.5)]
    (change,) = apply_edits(code, edits, DECODER).changes
    np.testing.assert_allclose(change, -0.5 * DECODER[silent], rtol=1e-6)
    assert effects_of(code, edits)[0].level_after == -0.5


def test_a_later_edit_sees_what_an_earlier_one_left() -> None:
    edits = [RawEdit(neuron(2), Operation.SET, 2.0), RawEdit(neuron(2), Operation.SCALE, 0.5)]
    first, second = effects_of(code_of(1), edits)
    assert first.level_after == second.level_before == 2.0
    assert second.level_after == pytest.approx(1.0)
    reversed_order = effects_of(code_of(1), edits[::-1])
    assert reversed_order[-1].level_after == 2.0


def test_a_concept_is_moved_to_the_level_that_set_asks_for() -> None:
    target = concept(4)
    (effect,) = effects_of(code_of(9), [RawEdit(target, Operation.SET, 1.5)])
    moved = naive(code_of(9), [RawEdit(target, Operation.SET, 1.5)])
    assert effect.level_after == 1.5
    assert moved @ target.weights / (target.weights @ target.weights) == pytest.approx(
        1.5, rel=1e-5
    )


def test_an_empty_code_can_be_edited() -> None:
    empty = SparseCode(np.empty(0, np.int64), np.empty(0, np.float32))
    (change,), _ = apply_edits(empty, [RawEdit(neuron(5), Operation.ADD, 1.0)], DECODER)
    np.testing.assert_allclose(change, DECODER[5])
    (blend,), _ = apply_edits(empty, [RawEdit(neuron(5), Operation.BLEND, 0.5)], DECODER)
    assert not blend.any()


@given(seed=st.integers(0, 100))
def test_decoding_a_sparse_code_equals_the_dense_product(seed: int) -> None:
    code = code_of(seed)
    np.testing.assert_allclose(decode(code, DECODER), dense(code) @ DECODER, atol=1e-5)
