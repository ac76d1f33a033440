"""Splits a data set's users into those to train on and those to judge on.

Users are held out whole (strong generalisation), or each user's last two items are (leave-one-out),
as the literature on sequential models does. The two are never mixed in one table.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy.sparse import csr_matrix

from training.arrays import Bools, Ints
from training.errors import ConfigError, DataError, RunError
from training.histories import Histories, stacked
from training.options import CountOrZero, InnerShare, options


@options
class SplitConfig:
    """Configures how users or items are held out; the former as in arXiv 2601.11182."""

    title: ClassVar[str] = "split"

    kind: Literal["users", "leave-one-out"] = "users"
    """users holds users out whole; leave-one-out trains on all users, validates on each one's last
    item but one and tests on the last (the other settings then have no effect, but for the
    positives it takes).
    """
    validation_share: InnerShare = 0.1
    """Share of the eligible users on whom settings, strengths and units are chosen."""
    test_share: InnerShare = 0.1
    """Share of the eligible users on whom results are reported."""
    target_share: InnerShare = 0.2
    """Random share of a held-out user's positive items that are its targets; the rest is the
    history."""
    min_positives: Annotated[int, Field(ge=2)] = 5
    """Users with fewer positive items are trained on, never held out."""
    rotation: CountOrZero = 0
    """Number of test sets to move on by in the drawn order of users: with test_share 0.2, the
    rotations 0 to 4 of one seed test every eligible user once."""

    def __post_init__(self) -> None:
        if self.validation_share + self.test_share >= 1:
            raise ConfigError(
                "split: test_share: expected a share that leaves users to train on after "
                f"validation_share, {self.validation_share}, found {self.test_share}"
            )


@dataclass(frozen=True)
class Split:
    """The rows of a split: each has a history as input, and targets if it is held out.

    train, validation and test are sorted row numbers; user_ids names each row's user, who has one
    row where users are held out, up to three where items are. inputs holds each row's history,
    oldest first: all positive items of a training user, the history part of a held-out one.
    target_items holds the targets of the held-out rows and is empty for the others.
    """

    user_ids: tuple[str, ...]
    n_items: int
    train: Ints
    validation: Ints
    test: Ints
    inputs: Histories
    target_items: Histories

    def histories(self, users: Ints) -> Histories:
        """Returns the full histories of the given users, one row each, oldest first."""
        return self.inputs.rows(users)

    def input_matrix(self, users: Ints) -> csr_matrix:
        """Returns the same as float32 [len(users), n_items]."""
        return self.histories(users).matrix(self.n_items)

    def targets(self, users: Ints) -> csr_matrix:
        """Returns the held-out items of the given users, float32 [len(users), n_items]."""
        return self.target_items.rows(users).matrix(self.n_items)

    def popularity(self) -> Ints:
        """Counts the positive events of the training users, [n_items]."""
        return np.bincount(self.histories(self.train).items, minlength=self.n_items).astype(
            np.int64
        )

    def save(self, path: Path) -> None:
        """Writes split.npz."""
        np.savez(
            path,
            user_ids=np.array(self.user_ids, dtype=np.str_),
            n_items=np.int64(self.n_items),
            train=self.train,
            validation=self.validation,
            test=self.test,
            input_offsets=self.inputs.offsets,
            input_items=self.inputs.items.astype(np.int32),
            target_offsets=self.target_items.offsets,
            target_items=self.target_items.items.astype(np.int32),
        )

    @classmethod
    def load(cls, path: Path) -> Split:
        """Reads a split that save wrote.

        Raises:
            RunError: if the file is absent or holds something else.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays: dict[str, Any] = dict(file)
            return cls(
                user_ids=tuple(arrays["user_ids"].tolist()),
                n_items=int(arrays["n_items"]),
                train=arrays["train"],
                validation=arrays["validation"],
                test=arrays["test"],
                inputs=Histories(arrays["input_offsets"], arrays["input_items"].astype(np.int64)),
                target_items=Histories(
                    arrays["target_offsets"], arrays["target_items"].astype(np.int64)
                ),
            )
        except (OSError, ValueError, KeyError) as error:
            raise RunError(f"{path} is not a split written by trimtab-train: {error}") from error


def hold_out(
    positives: Histories, user_ids: tuple[str, ...], n_items: int, config: SplitConfig, seed: int
) -> Split:
    """Splits as the configuration says.

    The seed decides which users are held out, and their targets.

    Raises:
        DataError: if too few users have enough positive items to hold any out.
    """
    if config.kind == "leave-one-out":
        return _leave_one_out(positives, user_ids, n_items, config.min_positives)
    return _hold_out_users(positives, user_ids, n_items, config, seed)


def _leave_one_out(
    positives: Histories, user_ids: tuple[str, ...], n_items: int, min_positives: int
) -> Split:
    """Trains on every user; validates on the last item but one, tests on the last.

    A test history holds the validation target; a training history neither.
    """
    held_out = np.flatnonzero(positives.lengths >= max(min_positives, 3))
    if not len(held_out):
        raise DataError(
            f"none of {len(user_ids)} users has {max(min_positives, 3)} positive items: "
            "nothing to hold out"
        )
    from_end = np.repeat(positives.offsets[1:], positives.lengths) - np.arange(len(positives.items))
    is_held_out = np.zeros(len(user_ids), np.bool_)
    is_held_out[held_out] = True
    in_held_out = np.repeat(is_held_out, positives.lengths)
    parts = [
        positives.keep(~in_held_out | (from_end > 2)),
        positives.keep(from_end > 2).rows(held_out),
        positives.keep(from_end > 1).rows(held_out),
    ]
    nothing = Histories(np.zeros(len(user_ids) + 1, np.int64), np.empty(0, np.int64))
    targets = [
        nothing,
        positives.keep(from_end == 2).rows(held_out),
        positives.keep(from_end == 1).rows(held_out),
    ]
    first = len(user_ids)
    second = len(user_ids) + len(held_out)
    names = tuple(user_ids[user] for user in held_out)
    return Split(
        user_ids=(*user_ids, *names, *names),
        n_items=n_items,
        train=np.flatnonzero(parts[0].lengths > 0),
        validation=np.arange(first, second),
        test=np.arange(second, second + len(held_out)),
        inputs=stacked(parts),
        target_items=stacked(targets),
    )


def _hold_out_users(
    positives: Histories, user_ids: tuple[str, ...], n_items: int, config: SplitConfig, seed: int
) -> Split:
    rng = np.random.default_rng([seed, 0x5717])
    eligible = np.flatnonzero(positives.lengths >= config.min_positives)
    n_validation = round(len(eligible) * config.validation_share)
    n_test = round(len(eligible) * config.test_share)
    if min(n_validation, n_test) < 1 or n_validation + n_test >= len(user_ids):
        raise DataError(
            f"{len(eligible)} of {len(user_ids)} users have {config.min_positives} positive items "
            "or more: too few to hold out validation and test users and train on the rest"
        )
    drawn = np.roll(rng.permutation(eligible), -config.rotation * n_test)
    validation = np.sort(drawn[:n_validation])
    test = np.sort(drawn[n_validation : n_validation + n_test])
    held_out = np.zeros(len(user_ids), dtype=np.bool_)
    held_out[validation] = held_out[test] = True
    train = np.flatnonzero(~held_out & (positives.lengths > 0))
    is_target = _draw_targets(positives, held_out, config.target_share, rng)
    inputs = positives.keep(~is_target)
    targets = positives.keep(is_target)
    return Split(user_ids, n_items, train, validation, test, inputs, targets)


def _draw_targets(
    positives: Histories, held_out: Bools, share: float, rng: np.random.Generator
) -> Bools:
    """Flags round(share x count) random events of each held-out user, at least one, never all.

    [n_events].
    """
    lengths = positives.lengths
    draws = rng.random(len(positives.items))
    order = np.lexsort((draws, np.repeat(np.arange(positives.size), lengths)))
    place = np.empty_like(order)
    place[order] = np.arange(len(order)) - np.repeat(positives.offsets[:-1], lengths)
    count = np.where(held_out, np.clip(np.round(share * lengths), 1, np.maximum(lengths - 1, 1)), 0)
    flags: Bools = place < np.repeat(count, lengths)
    return flags
