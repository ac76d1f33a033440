"""Explains an item's score as a sum of terms."""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np

from service.arrays import AnyArray, Floats
from service.bundle.bundle import Bundle
from service.ranking.order import Ranking
from service.steering.edits import RawEdit
from service.steering.state import UserState
from service.steering.steer import Steered


class TermKind(Enum):
    """The kind of a term; see ReasonKind in recommendation.proto."""

    EDIT = "edit"
    UNSTEERED = "unsteered"
    RECONSTRUCTION = "reconstruction"
    INTERACTION = "interaction"
    TARGET = "target"
    POPULARITY = "popularity"


class Term(NamedTuple):
    """One reason: its kind, its contribution to each listed item's score, [n], and its edit."""

    kind: TermKind
    contributions: Floats
    edit: RawEdit | None = None


def explain(
    bundle: Bundle,
    state: UserState,
    ranking: Ranking,
    unsteered_scores: Floats,
    steered: Steered,
    boosted: Sequence[tuple[RawEdit, AnyArray]] = (),
    lifts: Sequence[Floats] = (),
) -> tuple[Term, ...]:
    """Splits the listed items' scores into the unsteered score and one term for each part.

    With an identity head, scores are linear in z and the split is exact. With a nonlinear head, a
    part's term is its effect alone, and one interaction term holds the rest.

    Args:
        bundle: The bundle.
        state: The user's unsteered state.
        ranking: The steered list.
        unsteered_scores: Unsteered scores of its items, float32 [n].
        steered: The change of z and its parts.
        boosted: What each boost adds to the listed items' scores, [n], with its edit.
        lifts: What the lift of each target adds, float32 [n].
    """
    terms = [
        Term(TermKind.UNSTEERED, unsteered_scores),
        *(Term(TermKind.EDIT, part, edit) for edit, part in boosted),
        *(Term(TermKind.TARGET, lift) for lift in lifts),
    ]
    if steered.change is None:
        return tuple(terms)
    acting = [place for place, part in enumerate(steered.parts) if part.any()]
    changes = steered.parts[acting]
    kinds: list[tuple[TermKind, RawEdit | None]] = [
        (TermKind.EDIT, steered.edits[place].edit) for place in acting
    ]
    if steered.reconstruction is not None:
        changes = np.vstack([changes, steered.reconstruction])
        kinds.append((TermKind.RECONSTRUCTION, None))
    rows = bundle.items[ranking.items, :-1]
    if bundle.encoder.has_head:
        queries = bundle.encoder.head(
            state.z + np.vstack([np.zeros_like(state.z), changes]), state.context
        )
        changes = queries[1:] - queries[0]
    contributions = changes @ rows.T
    terms += [
        Term(kind, part, edit) for (kind, edit), part in zip(kinds, contributions, strict=True)
    ]
    if bundle.encoder.has_head:
        explained = np.sum([term.contributions for term in terms], axis=0)
        terms.append(Term(TermKind.INTERACTION, ranking.scores - explained))
    return tuple(terms)
