"""The steering methods: from a concept's tags to what a unit of strength adds to the scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from training.arrays import Doubles, Floats
from training.concepts.mapping.tfidf import characterises, tag_activations, top_neurons
from training.studies.frontier.calibration import completed, probe_and_tag
from training.studies.frontier.filled_tags import choose_weight, filled
from training.studies.frontier.knowledge import Features, Knowledge
from training.studies.frontier.method_ids import Base, MethodId
from training.studies.tag_profiles import TagProfiles


class Gain(NamedTuple):
    """The values that a unit of strength adds: [n_items], or [users, n_items] if personal.

    Strengths go up to limit. base [users, n_items] replaces the recommender's scores where the
    method has a recommender of its own.
    """

    values: Floats
    limit: float = np.inf
    base: Floats | None = None


Gains = Callable[[int], Gain]
"""Returns the gain of the concept in a row of the tags."""


class Method(NamedTuple):
    """A steering method: its fit, and the bases that its gain is added to.

    With reorder, the chosen items come in the order of the base. oracle: it is shown the hidden
    tags too. on_hidden: it is measured on hidden tags as well.
    """

    fit: Callable[[Knowledge], Gains]
    bases: tuple[Base, ...] = (Base.SCORE, Base.RANK, Base.RELEVANCE)
    reorder: bool = False
    oracle: bool = False
    on_hidden: bool = True


def _columns(columns: Floats | Doubles) -> Gains:
    """Returns gains that are the rows of columns [n_concepts, n_items]."""
    return lambda row: Gain(np.ascontiguousarray(columns[row], dtype=np.float32))


def _flags(known: Knowledge) -> Floats:
    return known.tags.astype(np.float32)


def _direction(known: Knowledge, features: Features, weights: Floats) -> Gains:
    """Returns the change of scores by weights [n_concepts, n_neurons] as a move of z."""
    return _columns(weights @ features.W_dec @ known.models.item_matrix.T)


def _contrast(known: Knowledge, kind: str) -> Gains:
    features: Features = getattr(known.models, kind)
    return _direction(known, features, known.contrast(features))


def _completed(known: Knowledge, kind: str) -> Gains:
    return _columns(completed(known.ridge(kind), known.tags, known.models.fitted))


def _probe_and_tag(known: Knowledge, kind: str) -> Gains:
    return _columns(probe_and_tag(known.ridge(kind), known.tags))


def largest(weights: Floats, count: int) -> Floats:
    """Keeps the largest values of each row and sets the others to 0."""
    count = min(count, weights.shape[1])
    cut = np.partition(np.abs(weights), -count, axis=1)[:, -count][:, None]
    return np.where(np.abs(weights) >= cut, weights, 0)


def _top(count: int) -> Callable[[Knowledge], Gains]:
    def fit(known: Knowledge) -> Gains:
        features = known.models.neurons
        return _direction(known, features, largest(known.contrast(features), count))

    return fit


def _raw_dimensions(known: Knowledge) -> Gains:
    features = known.models.dense
    return _direction(known, features, largest(known.contrast(features), 10))


def _shuffled(known: Knowledge) -> Gains:
    """Assigns each of the contrast's weights to another neuron."""
    features = known.models.neurons
    order = known.rng.permutation(features.codes.shape[1])
    return _direction(known, features, known.contrast(features)[:, order])


def _blend(count: int) -> Callable[[Knowledge], Gains]:
    """Adds BLEND as a difference (RESIDUAL), s' = (1 - a) s + a sum(s) / |N| (arXiv 2601.11182).

    N are the concept's neurons by TF-IDF.
    """

    def fit(known: Knowledge) -> Gains:
        models = known.models
        features = known.models.neurons
        fitted = models.fitted
        A = tag_activations(
            csr_matrix(_flags(known)[:, fitted]), csr_matrix(features.codes[fitted])
        )
        neurons = top_neurons(characterises(A), count)
        decoded = models.user_codes @ features.W_dec
        total = models.user_codes.sum(axis=1, keepdims=True)

        def gain(row: int) -> Gain:
            mean = (
                features.W_dec[neurons[row]].mean(axis=0)
                if neurons[row]
                else np.zeros(models.item_matrix.shape[1])
            )
            return Gain(
                ((total * mean - decoded) @ models.item_matrix.T).astype(np.float32), limit=1.0
            )

        return gain

    return fit


def _own_neurons(known: Knowledge) -> Gains:
    """Scales the user's own neurons of the concept: s' = s + t w_+ s, personal."""
    models = known.models
    features = known.models.neurons
    weights = np.maximum(known.contrast(features), 0)
    return lambda row: Gain(
        (models.user_codes * weights[row]) @ features.W_dec @ models.item_matrix.T
    )


def _tag_profiles(known: Knowledge) -> Gains:
    """Scores by tags alone; steering mixes the user's profile with the concept's tag."""
    models = known.models
    profiles = TagProfiles.fit(_flags(known).T, models.histories)
    B = profiles.weights
    base = (profiles.of(models.users.seen.astype(np.float32)) @ B).astype(np.float32)
    masked = np.where(models.users.seen, -np.inf, base).astype(np.float32)
    return lambda row: Gain((B[row] - base).astype(np.float32), limit=1.0, base=masked)


def _imputed(known: Knowledge) -> Gains:
    return _columns(np.where(known.tags, 1.0, known.dense_probe))


def _filled(known: Knowledge) -> Gains:
    """Returns the tags, and as much of missing ones as costs validation users nothing."""
    return _columns(filled(known, choose_weight(known)))


def _orthogonal(known: Knowledge) -> Gains:
    """Removes from each contrast its part along the contrasts of the other concepts."""
    W = known.contrast(known.models.neurons).astype(np.float64)
    return _direction(known, known.models.neurons, _residuals(W).astype(np.float32))


def _residuals(rows: Doubles) -> Doubles:
    """Returns each row minus its ridge regression on the others, by their products' inverse."""
    G = rows @ rows.T
    P = np.linalg.inv(G + 1e-2 * max(float(np.trace(G)) / len(G), 1e-12) * np.eye(len(G)))
    residuals: Doubles = (P @ rows) / np.diag(P)[:, None]
    return residuals


_ONE = (Base.SCORE,)
_TWO = (Base.SCORE, Base.RANK)
_LAST = (Base.RANK, Base.RELEVANCE)
METHODS: dict[MethodId, Method] = {
    MethodId.ALL_TAGS: Method(lambda known: _columns(_flags(known)), oracle=True),
    MethodId.TAG_BOOST: Method(lambda known: _columns(_flags(known))),
    MethodId.BOOST: Method(lambda known: _columns(_flags(known)), (Base.PLACES,)),
    MethodId.BOOST_BY_GAINS: Method(lambda known: _columns(known.ridge("dense")), (Base.PLACES,)),
    MethodId.FILLED_TAGS: Method(_filled, (Base.RELEVANCE,)),
    MethodId.SELECT_THEN_REORDER: Method(
        lambda known: _columns(_flags(known)), _ONE, reorder=True, on_hidden=False
    ),
    MethodId.TAG_BOOST_ORTHOGONAL: Method(
        lambda known: _columns(_residuals(_flags(known).astype(np.float64))),
        (Base.RANK,),
        on_hidden=False,
    ),
    MethodId.IMPUTED_TAGS: Method(_imputed),
    MethodId.DENSE_PROBE: Method(lambda known: _columns(known.dense_probe)),
    MethodId.RIDGE_ON_Z: Method(lambda known: _columns(known.ridge("dense")), _LAST),
    MethodId.RIDGE_ON_CODES: Method(lambda known: _columns(known.ridge("more_neurons")), _LAST),
    MethodId.RIDGE_ON_UNTRAINED_CODES: Method(
        lambda known: _columns(known.ridge("more_untrained")), _LAST
    ),
    MethodId.COMPLETED_TAGS_Z: Method(lambda known: _completed(known, "dense"), _LAST),
    MethodId.COMPLETED_TAGS_CODES: Method(lambda known: _completed(known, "more_neurons"), _LAST),
    MethodId.PROBE_AND_TAG_Z: Method(lambda known: _probe_and_tag(known, "dense"), _LAST),
    MethodId.PROBE_AND_TAG_CODES: Method(
        lambda known: _probe_and_tag(known, "more_neurons"), _LAST
    ),
    MethodId.PROBE_AND_TAG_UNTRAINED_CODES: Method(
        lambda known: _probe_and_tag(known, "more_untrained"), _LAST
    ),
    MethodId.KERNEL_ON_CODES: Method(lambda known: _columns(known.kernel)),
    MethodId.DIFFERENCE_OF_MEANS: Method(lambda known: _contrast(known, "dense")),
    MethodId.DIFFERENCE_OF_MEANS_PLATT: Method(
        lambda known: _columns(known.platt(known.models.dense))
    ),
    MethodId.CONTRAST: Method(lambda known: _contrast(known, "neurons")),
    MethodId.CONTRAST_PLATT: Method(lambda known: _columns(known.platt(known.models.neurons))),
    MethodId.CONTRAST_ORTHOGONAL: Method(_orthogonal, _TWO, on_hidden=False),
    MethodId.CONTRAST_UNTRAINED_SAE: Method(lambda known: _contrast(known, "untrained")),
    MethodId.CONTRAST_UNTRAINED_SAE_PLATT: Method(
        lambda known: _columns(known.platt(known.models.untrained))
    ),
    MethodId.CONTRAST_TOP_1: Method(_top(1), _TWO, on_hidden=False),
    MethodId.CONTRAST_TOP_10: Method(_top(10), _TWO),
    MethodId.CONTRAST_TOP_50: Method(_top(50), _TWO, on_hidden=False),
    MethodId.RAW_DIMENSIONS_TOP_10: Method(_raw_dimensions, _TWO, on_hidden=False),
    MethodId.SHUFFLED_NEURONS: Method(_shuffled, _TWO, on_hidden=False),
    MethodId.OWN_NEURONS: Method(_own_neurons, _TWO, on_hidden=False),
    MethodId.BLEND_1_NEURON: Method(_blend(1), _ONE, on_hidden=False),
    MethodId.BLEND_5_NEURONS: Method(_blend(5), _ONE),
    MethodId.BLEND_10_NEURONS: Method(_blend(10), _ONE, on_hidden=False),
    MethodId.TAG_PROFILES: Method(_tag_profiles, _ONE),
}
"""By name. "all tags" is the oracle, shown hidden tags too; where none is hidden it is the tag
boost. "boost" is what requests get that say BOOST, "by gains" where the bundle has gains."""
