"""Who is trained on and who is judged: users are held out whole (strong generalisation)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from training.errors import ConfigError, DataError, RunError
from training.histories import Histories, Ints


@dataclass(frozen=True)
class SplitConfig:
    """How users are held out; the protocol of arXiv 2601.11182."""

    validation_share: float = 0.1
    """Share of the eligible users on whom settings, strengths and units are chosen."""
    test_share: float = 0.1
    """Share of the eligible users on whom results are reported."""
    target_share: float = 0.2
    """Random share of a held-out user's positive items that are to be found; the rest is the history."""
    min_positives: int = 5
    """Users with fewer positive items are trained on, never held out."""

    def __post_init__(self) -> None:
        for name in ("validation_share", "test_share", "target_share"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"split: {name} is {getattr(self, name)}, expected a share between 0 and 1")
        if self.validation_share + self.test_share >= 1:
            raise ConfigError("split: validation_share and test_share leave no users to train on")
        if self.min_positives < 2:
            raise ConfigError(
                f"split: min_positives is {self.min_positives}, expected at least 2 (history and target)"
            )


@dataclass(frozen=True)
class Split:
    """Users by index, and what is known and asked of each.

    train, validation and test are sorted user indices. inputs holds one row a user, oldest first: all
    positive items of a training user, the history part of a held-out one. target_items holds the targets of
    the held-out users and is empty for the others.
    """

    user_ids: tuple[str, ...]
    n_items: int
    train: Ints
    validation: Ints
    test: Ints
    inputs: Histories
    target_items: Histories

    def histories(self, users: Ints) -> Histories:
        """What a model may read of the given users, one row each, oldest first, not yet cut to a length."""
        return self.inputs.rows(users)

    def input_matrix(self, users: Ints) -> csr_matrix:
        """The same as float32 [len(users), n_items]."""
        return self.histories(users).matrix(self.n_items)

    def targets(self, users: Ints) -> csr_matrix:
        """What the given users' lists should hold, float32 [len(users), n_items]."""
        return self.target_items.rows(users).matrix(self.n_items)

    def popularity(self) -> NDArray[np.int64]:
        """Positive events of the training users, [n_items]."""
        return np.bincount(self.histories(self.train).items, minlength=self.n_items).astype(np.int64)

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
        """Reads what save wrote.

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
                target_items=Histories(arrays["target_offsets"], arrays["target_items"].astype(np.int64)),
            )
        except (OSError, ValueError, KeyError) as error:
            raise RunError(f"{path} is not a split written by trimtab-train: {error}") from error


def hold_out(
    positives: Histories, user_ids: tuple[str, ...], n_items: int, config: SplitConfig, seed: int
) -> Split:
    """Draws validation and test users, and each one's targets.

    Raises:
        DataError: if too few users have enough positive items to hold any out.
    """
    rng = np.random.default_rng([seed, 0x5717])
    eligible = np.flatnonzero(positives.lengths >= config.min_positives)
    n_validation = round(len(eligible) * config.validation_share)
    n_test = round(len(eligible) * config.test_share)
    if min(n_validation, n_test) < 1 or n_validation + n_test >= len(user_ids):
        raise DataError(
            f"{len(eligible)} of {len(user_ids)} users have {config.min_positives} positive items or more: "
            "too few to hold out validation and test users and train on the rest"
        )
    drawn = rng.permutation(eligible)
    validation, test = np.sort(drawn[:n_validation]), np.sort(drawn[n_validation : n_validation + n_test])
    held_out = np.zeros(len(user_ids), dtype=np.bool_)
    held_out[validation] = held_out[test] = True
    train = np.flatnonzero(~held_out & (positives.lengths > 0))
    is_target = _draw_targets(positives, held_out, config.target_share, rng)
    inputs, targets = positives.keep(~is_target), positives.keep(is_target)
    return Split(user_ids, n_items, train, validation, test, inputs, targets)


def _draw_targets(
    positives: Histories, held_out: NDArray[np.bool_], share: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Flags round(share x count) random events of each held-out user, at least one, never all: [n_events]."""
    lengths = positives.lengths
    draws = rng.random(len(positives.items))
    order = np.lexsort((draws, np.repeat(np.arange(positives.size), lengths)))
    place = np.empty_like(order)
    place[order] = np.arange(len(order)) - np.repeat(positives.offsets[:-1], lengths)
    count = np.where(held_out, np.clip(np.round(share * lengths), 1, np.maximum(lengths - 1, 1)), 0)
    flags: NDArray[np.bool_] = place < np.repeat(count, lengths)
    return flags
