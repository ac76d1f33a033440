"""The models that read histories in order: windows, hook points, losses, and what each learns."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

from training.checkpoint import Checkpoints
from training.errors import ConfigError
from training.histories import Histories
from training.measures.ranking import mean_ndcg
from training.measures.scorers import ModelScorer
from training.recommenders import RECOMMENDERS, FitContext
from training.recommenders.bert4rec import Bert4Rec
from training.recommenders.fitting.sequential_causal import CausalTask, GptOptions, SasRecOptions
from training.recommenders.fitting.sequential_interests import TimiRecOptions
from training.recommenders.fitting.sequential_losses import (
    binary_cross_entropy,
    full_cross_entropy,
    sampled_cross_entropy,
)
from training.recommenders.fitting.sequential_masked import Bert4RecOptions, MaskedTask
from training.recommenders.gpt import Gpt
from training.recommenders.sasrec import SasRec
from training.recommenders.timirec import TimiRec
from training.recommenders.transformer import Shape, TransformerRecommender, newest_last
from training.splits import Split, SplitConfig, hold_out

N_ITEMS = 40
MAX_LENGTH = 6
D = 16
TRANSFORMERS: list[type[Any]] = [SasRec, Gpt, Bert4Rec]
HOOK_POINTS = ["output", "block2", "block1"]
SMALL: dict[str, Any] = {"d": 32, "dropout": 0.1, "lr": 2e-2, "batch_size": 64, "validate_every": 5}
OPTIONS: dict[str, Any] = {
    "sasrec": SasRecOptions(epochs=10, **SMALL),
    "gpt": GptOptions(epochs=10, **SMALL),
    "bert4rec": Bert4RecOptions(epochs=40, blocks=1, **SMALL),
    "timirec": TimiRecOptions(epochs=15, warm_up=5, **SMALL),
}


def built(kind: type[Any], hook_point: str = "output") -> TransformerRecommender:
    torch.manual_seed(7)
    model = kind(N_ITEMS, MAX_LENGTH, Shape(D, 2, 2, 0.5, hook_point)).eval().requires_grad_(False)
    assert isinstance(model, TransformerRecommender)
    return model


def timirec() -> TimiRec:
    torch.manual_seed(7)
    return TimiRec(N_ITEMS, MAX_LENGTH, D, 3, 8, 0.5).eval().requires_grad_(False)


def histories(*rows: list[int]) -> tuple[Tensor, Tensor]:
    items = np.array([item for row in rows for item in row], dtype=np.int64)
    return Histories(np.cumsum([0, *(len(row) for row in rows)]), items).padded()


@pytest.fixture(scope="module")
def circle() -> Split:
    """Users walk round a circle of 20 items, one step at a time, from anywhere."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(5, 9, size=120)
    walks = [
        (start + np.arange(n)) % 20
        for start, n in zip(rng.integers(20, size=120), lengths, strict=True)
    ]
    positives = Histories(np.concatenate([[0], np.cumsum(lengths)]), np.concatenate(walks))
    names = tuple(str(user) for user in range(120))
    return hold_out(positives, names, 20, SplitConfig(kind="leave-one-out"), seed=1)


def around(split: Split, folder: Path) -> FitContext:
    def validate(model: Any) -> float:
        return mean_ndcg(ModelScorer(model, MAX_LENGTH), split, split.validation)

    return FitContext(split, MAX_LENGTH, 3, Checkpoints(folder), validate)


@given(
    rows=st.lists(st.lists(st.integers(0, 9), max_size=7), min_size=1, max_size=4),
    width=st.integers(1, 9),
    at_most=st.integers(1, 9),
)
def test_a_window_ends_with_the_newest_items(
    rows: list[list[int]], width: int, at_most: int
) -> None:
    window = newest_last(*histories(*rows), width, at_most)
    for row, tokens, filled in zip(
        rows, window.tokens.tolist(), window.filled.tolist(), strict=True
    ):
        expected = row[max(len(row) - min(width, at_most), 0) :]
        assert filled == [False] * (width - len(expected)) + [True] * len(expected)
        assert tokens == [0] * (width - len(expected)) + expected


@pytest.mark.parametrize("kind", TRANSFORMERS)
@pytest.mark.parametrize("hook_point", HOOK_POINTS)
def test_the_head_goes_on_where_the_hook_point_is(kind: type[Any], hook_point: str) -> None:
    model = built(kind, hook_point)
    plain = built(kind)
    for rows in (histories([], []), histories([3, 5], [7]), histories(list(range(9)), [])):
        z, context = model.activate(*rows)
        assert context.shape == (2, model.context_size)
        assert model.hook_point == hook_point
        assert (model.context_size > 0) == (hook_point == "block1")
        assert torch.equal(z, model.encode(*rows))
        torch.testing.assert_close(model.head(z, context), plain.head(*plain.activate(*rows)))


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_an_edit_within_the_model_is_what_a_whole_pass_makes_of_it(kind: type[Any]) -> None:
    model = built(kind, "block1")
    items, mask = histories([3, 5, 8, 1])
    window = model.window(items, mask, 5)
    allowed = model.allowed(window.filled)
    ages = torch.arange(4, -1, -1)
    tokens = model.token(window.tokens) * window.filled.unsqueeze(-1)
    x = model.blocks[0](model.embedded(tokens, model.position(ages)), allowed)
    edit = torch.linspace(-1, 1, D)
    x[:, -1] += edit
    expected = model.query(model.output(model.blocks[1](x, allowed)))[:, -1]
    z, context = model.activate(items, mask)
    torch.testing.assert_close(model.head(z + edit, context), expected)


@pytest.mark.parametrize("options", [SasRecOptions, GptOptions, Bert4RecOptions])
@pytest.mark.parametrize("hook_point", ["block0", "block3", "user_embedding"])
def test_a_hook_point_that_does_not_exist_is_answered_with_those_that_do(
    options: type[Any], hook_point: str
) -> None:
    with pytest.raises(ConfigError, match=f"block1, block2, output, found .*{hook_point}"):
        options(hook_point=hook_point)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (SasRecOptions, {"heads": 3}),
        (SasRecOptions, {"blocks": 0}),
        (SasRecOptions, {"loss": "bpr"}),
        (SasRecOptions, {"negatives": 0}),
        (GptOptions, {"dropout": 1.0}),
        (GptOptions, {"batch_size": 0}),
        (Bert4RecOptions, {"mask_share": 0.0}),
        (Bert4RecOptions, {"newest_share": 1.5}),
        (TimiRecOptions, {"interests": 0}),
        (TimiRecOptions, {"temperature": 0.0}),
        (TimiRecOptions, {"lr": 0.0}),
    ],
)
def test_settings_without_meaning_are_refused(options: type[Any], wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        options(**wrong)


@pytest.mark.parametrize("build", [*(partial(built, kind) for kind in TRANSFORMERS), timirec])
def test_only_the_newest_items_count_and_their_order_does(build: Callable[[], Any]) -> None:
    model = build()
    row = list(range(9))
    z = model.encode(*histories(row))
    torch.testing.assert_close(z, model.encode(*histories(row[-MAX_LENGTH:])))
    assert not torch.allclose(z, model.encode(*histories(row[::-1])), atol=1e-3)
    assert not torch.allclose(z, model.encode(*histories(row[-MAX_LENGTH + 1 :])), atol=1e-4)


@pytest.mark.parametrize("kind", [SasRec, Gpt])
def test_one_pass_gives_the_query_of_every_prefix_but_for_positions(kind: type[Any]) -> None:
    model = built(kind)
    model.position.weight.zero_()
    row = [4, 9, 2, 7]
    start = kind is Gpt
    along = model.queries_along(*histories(row, row[:2]))
    prefixes = [row[:n] for n in range(1 - start, 5)] + [row[:n] for n in range(1 - start, 3)]
    torch.testing.assert_close(
        along, torch.cat([model.encode(*histories(prefix)) for prefix in prefixes])
    )


def test_timirecs_interests_mix_what_the_history_holds() -> None:
    model = timirec()
    m, p = model.interests(*histories([4, 9, 2]))
    assert m.shape == (1, 4, 3, D)
    assert p.shape == (1, 4, 3)
    z = (p[0, 2].softmax(dim=0).unsqueeze(1) * m[0, 2]).sum(dim=0)
    torch.testing.assert_close(model.encode(*histories([4, 9, 2]))[0], z)
    assert model.encode(*histories([])).abs().max() == 0


@pytest.mark.parametrize("biases", [False, True])
def test_full_cross_entropy_and_its_gradients_are_those_of_the_formula(biases: bool) -> None:
    torch.manual_seed(0)
    parts = [torch.randn(300, 8), torch.randn(50, 8), *([torch.randn(50)] if biases else [])]
    targets = torch.randint(50, (300,))
    ours, plain = ([part.clone().requires_grad_() for part in parts] for _ in range(2))
    loss = full_cross_entropy(ours[0], ours[1], targets, *ours[2:])
    expected = cross_entropy(plain[0] @ plain[1].T + sum(plain[2:]), targets)
    torch.testing.assert_close(loss, expected)
    (3 * loss).backward()
    (3 * expected).backward()
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_sampled_losses_are_those_of_the_formula() -> None:
    torch.manual_seed(0)
    q = torch.randn(5, 8)
    V = torch.randn(20, 8)
    targets = torch.tensor([1, 2, 3, 4, 5])
    negatives = torch.tensor([9, 2, 11, 12, 3])
    terms = []
    for row, target in zip(q, targets.tolist(), strict=True):
        items = [target, *(item for item in negatives.tolist() if item != target)]
        terms.append(-(V[items] @ row).log_softmax(dim=0)[0])
    torch.testing.assert_close(
        sampled_cross_entropy(q, V, targets, negatives), torch.stack(terms).mean()
    )
    own = (q * V[targets]).sum(dim=1)
    other = (q * V[negatives]).sum(dim=1)
    expected = -(logsigmoid(own) + logsigmoid(-other)).mean()
    torch.testing.assert_close(binary_cross_entropy(q, V, targets, negatives), expected)


@pytest.mark.parametrize("first", [False, True])
def test_every_item_is_the_target_of_those_before_it(
    circle: Split, tmp_path: Path, first: bool
) -> None:
    kind, options = (Gpt, GptOptions()) if first else (SasRec, SasRecOptions())
    model = kind(20, MAX_LENGTH, options.shape())
    task = CausalTask(model, options, around(circle, tmp_path), first=first)
    pairs = 0
    starts = 0
    for batch in task.batches(np.random.default_rng(1)):
        for (items, mask), (following, there) in zip(batch.inputs, batch.targets, strict=True):
            shifted = following[:, 1:] if first else following
            read = (mask > 0)[:, : shifted.shape[1]]
            assert torch.equal((items[:, : read.shape[1]][read] + 1) % 20, shifted[read])
            pairs = pairs + int(read.sum())
            starts = starts + len(items)
            assert int(there.sum()) == int(mask.sum()) + len(items) * first
    lengths = circle.histories(circle.train).lengths
    assert (pairs, starts) == (lengths.sum() - len(lengths), len(lengths))


def test_the_cloze_hides_what_it_asks_for(circle: Split, tmp_path: Path) -> None:
    options = Bert4RecOptions(mask_share=0.5, newest_share=0.3)
    model = Bert4Rec(20, MAX_LENGTH, options.shape())
    task = MaskedTask(model, options, around(circle, tmp_path))
    hidden = alone = total = 0
    for batch in task.batches(np.random.default_rng(1)):
        assert sum(int(masked.sum()) for masked in batch.masked) == len(batch.targets)
        for (items, mask), masked in zip(batch.inputs, batch.masked, strict=True):
            assert torch.equal(items == 20, masked)
            count = masked.sum(dim=1)
            assert (count >= 1).all()
            assert (count < mask.sum(dim=1)).all()
            newest = masked.gather(1, mask.sum(dim=1, keepdim=True).long() - 1).squeeze(1)
            hidden = hidden + int(count.sum())
            total = total + len(items)
            alone += int((newest & (count == 1)).sum())
    assert hidden > 1.3 * total
    assert alone > 0.25 * total


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_it_learns_what_follows_what(name: str, circle: Split, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = RECOMMENDERS[name].build(OPTIONS[name], 20, MAX_LENGTH)
    RECOMMENDERS[name].fit(model, OPTIONS[name], around(circle, tmp_path))
    # The unseen neighbours of a walk are two: half is what a model that knows no order can get.
    assert mean_ndcg(ModelScorer(model, MAX_LENGTH), circle, circle.test, n=1) > 0.9


@pytest.mark.parametrize("loss", ["sampled", "binary"])
def test_sasrec_learns_it_with_sampled_losses_too(
    loss: Literal["sampled", "binary"], circle: Split, tmp_path: Path
) -> None:
    options = SasRecOptions(epochs=15, loss=loss, negatives=10, **SMALL)
    torch.manual_seed(3)
    model = RECOMMENDERS["sasrec"].build(options, 20, MAX_LENGTH)
    RECOMMENDERS["sasrec"].fit(model, options, around(circle, tmp_path))
    assert mean_ndcg(ModelScorer(model, MAX_LENGTH), circle, circle.test, n=1) > 0.9


def test_timirecs_warm_up_survives_a_restart(circle: Split, tmp_path: Path) -> None:
    kind = RECOMMENDERS["timirec"]
    states = []
    for number, stops in enumerate(([4], [2, 4])):
        for epochs in stops:
            options = TimiRecOptions(d=8, warm_up=3, epochs=epochs)
            torch.manual_seed(3)
            model = kind.build(options, 20, MAX_LENGTH)
            kind.fit(model, options, around(circle, tmp_path / str(number)))
        states.append(model.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
