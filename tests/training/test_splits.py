"""Who is held out, and what of theirs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.errors import ConfigError, DataError, RunError
from training.histories import Histories
from training.splits import Split, SplitConfig, hold_out


def positives(lengths: list[int]) -> Histories:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = np.concatenate([np.arange(length) for length in lengths]).astype(np.int64)
    return Histories(offsets, items)


def split_of(lengths: list[int], seed: int = 0, config: SplitConfig | None = None) -> Split:
    ids = tuple(str(user) for user in range(len(lengths)))
    return hold_out(positives(lengths), ids, max(lengths), config or SplitConfig(), seed)


def test_users_are_held_out_whole_in_the_stated_shares() -> None:
    split = split_of([10] * 200)
    assert (len(split.train), len(split.validation), len(split.test)) == (160, 20, 20)
    everyone = np.concatenate([split.train, split.validation, split.test])
    assert sorted(everyone) == list(range(200))


def test_a_user_with_one_item_is_kept_out_of_the_held_out_sets() -> None:
    split = split_of([1, 4] * 20 + [5] * 60)
    held_out = np.concatenate([split.validation, split.test])
    assert (held_out >= 40).all()
    assert set(range(40)) <= set(split.train)


def test_users_without_positive_items_are_in_no_set() -> None:
    split = split_of([0] * 10 + [6] * 40)
    everyone = np.concatenate([split.train, split.validation, split.test])
    assert everyone.min() == 10


@pytest.mark.parametrize(("length", "targets"), [(5, 1), (10, 2), (12, 2), (13, 3), (100, 20)])
def test_a_fifth_of_a_held_out_users_items_are_targets(length: int, targets: int) -> None:
    split = split_of([length] * 50)
    for user in np.concatenate([split.validation, split.test]):
        one = np.array([user])
        inputs = split.input_matrix(one)
        wanted = split.targets(one)
        assert wanted.sum() == targets
        assert inputs.sum() + wanted.sum() == length
        assert inputs.multiply(wanted).sum() == 0


def test_training_users_have_all_their_items_and_no_targets() -> None:
    split = split_of([8] * 50)
    assert (split.histories(split.train).lengths == 8).all()
    assert split.targets(split.train).sum() == 0
    assert split.popularity().sum() == 8 * len(split.train)


def test_histories_keep_the_order_of_events() -> None:
    split = split_of([30] * 50)
    for row in split.histories(split.test).batches(1):
        assert (np.diff(row.items) > 0).all()


def test_the_seed_decides_the_split() -> None:
    assert np.array_equal(split_of([9] * 100, seed=4).test, split_of([9] * 100, seed=4).test)
    assert not np.array_equal(split_of([9] * 100, seed=4).test, split_of([9] * 100, seed=5).test)


def test_too_few_eligible_users_are_refused_with_their_number() -> None:
    with pytest.raises(DataError, match="2 of 12 users have 5 positive items or more"):
        split_of([1] * 10 + [5, 5])


@pytest.mark.parametrize(
    "wrong",
    [
        {"test_share": 0.0},
        {"target_share": 1.0},
        {"validation_share": 0.6, "test_share": 0.4},
        {"min_positives": 1},
    ],
)
def test_shares_that_leave_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        SplitConfig(**wrong)  # type: ignore[arg-type]


def test_a_split_survives_its_file(split: Split, tmp_path: Path) -> None:
    split.save(tmp_path / "split.npz")
    other = Split.load(tmp_path / "split.npz")
    assert other.user_ids == split.user_ids
    users = np.arange(len(split.user_ids))
    assert np.array_equal(other.histories(users).items, split.histories(users).items)
    assert (other.targets(users) != split.targets(users)).nnz == 0


def test_a_damaged_split_is_named(tmp_path: Path) -> None:
    (tmp_path / "split.npz").write_bytes(b"not a split")
    with pytest.raises(RunError, match=r"split\.npz"):
        Split.load(tmp_path / "split.npz")


def leave_one_out(lengths: list[int]) -> Split:
    return split_of(lengths, config=SplitConfig(kind="leave-one-out"))


def test_leave_one_out_validates_on_the_last_item_but_one_and_tests_on_the_last() -> None:
    split = leave_one_out([6, 9])
    assert [row.items.tolist() for row in split.histories(split.train).batches(1)] == [
        [0, 1, 2, 3],
        [0, 1, 2, 3, 4, 5, 6],
    ]
    assert [row.items.tolist() for row in split.histories(split.validation).batches(1)] == [
        [0, 1, 2, 3],
        [0, 1, 2, 3, 4, 5, 6],
    ]
    assert [row.items.tolist() for row in split.histories(split.test).batches(1)] == [
        [0, 1, 2, 3, 4],
        [0, 1, 2, 3, 4, 5, 6, 7],
    ]
    assert split.targets(split.validation).indices.tolist() == [4, 7]
    assert split.targets(split.test).indices.tolist() == [5, 8]
    assert [split.user_ids[row] for row in (*split.validation, *split.test)] == ["0", "1", "0", "1"]


def test_leave_one_out_trains_on_all_items_of_users_with_too_few() -> None:
    split = leave_one_out([3, 8, 0])
    assert [row.items.tolist() for row in split.histories(split.train).batches(1)] == [
        [0, 1, 2],
        [0, 1, 2, 3, 4, 5],
    ]
    assert (len(split.validation), len(split.test)) == (1, 1)
    assert split.targets(split.train).sum() == 0


def test_leave_one_out_survives_its_file(tmp_path: Path) -> None:
    split = leave_one_out([6, 9, 2])
    split.save(tmp_path / "split.npz")
    other = Split.load(tmp_path / "split.npz")
    assert other.user_ids == split.user_ids
    assert np.array_equal(other.targets(other.test).toarray(), split.targets(split.test).toarray())
    assert np.array_equal(other.inputs.items, split.inputs.items)


def test_leave_one_out_without_long_enough_histories_is_refused() -> None:
    with pytest.raises(DataError, match="none of 2 users has 5 positive items"):
        leave_one_out([4, 2])


def test_an_unknown_kind_of_split_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="split: kind: expected 'users' or 'leave-one-out', found 'time'"
    ):
        SplitConfig(kind="time")  # type: ignore[arg-type]


def test_rotations_test_every_eligible_user_once() -> None:
    config = SplitConfig(test_share=0.2)
    tests = [split_of([10] * 200, config=replace(config, rotation=turn)).test for turn in range(5)]
    assert sorted(np.concatenate(tests)) == list(range(200))
    with pytest.raises(ConfigError, match="rotation"):
        SplitConfig(rotation=-1)
