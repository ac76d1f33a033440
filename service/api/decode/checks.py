"""Checks that several kinds of requests share: ids, counts, and names of bundles and neurons."""

import math
from collections.abc import Sized

from service.bundle.bundle import Bundle
from service.bundle.label_set import Concept, LabelSet
from service.bundle.registry import BundleRegistry
from service.errors import (
    InvalidRequest,
    PreconditionFailed,
    UnknownBundle,
    quoted,
    unexpected,
)

MAX_ID_BYTES = 256
"""Bytes of a user, item or event id in UTF-8; ids are keys in Redis."""

MAX_COMPARED_NAME = 256
"""Characters of an unknown concept's name that are compared with the known names."""


def read_bundle(name: str, bundles: BundleRegistry) -> Bundle:
    """Returns the bundle of an id or label; "" names the default label.

    Raises:
        InvalidRequest: no loaded bundle has this name.
    """
    try:
        return bundles.get(name)
    except UnknownBundle as error:
        raise InvalidRequest("bundle", str(error)) from None


def read_user_id(user_id: str, field: str = "user_id") -> str:
    """Returns a user id that can be a key of the store."""
    size = len(user_id.encode())
    if not 1 <= size <= MAX_ID_BYTES:
        raise unexpected(field, f"1 to {MAX_ID_BYTES} bytes", f"{size} bytes")
    return user_id


def check_count(values: Sized, limit: int, noun: str, field: str) -> None:
    """Checks that a list of the request is not too long.

    Raises:
        InvalidRequest: it has more values than the limit; the noun says of what.
    """
    if len(values) > limit:
        raise unexpected(field, f"at most {limit} {noun}", len(values))


def read_share(value: float, field: str) -> float:
    """Returns a share, which is a number from 0 to 1."""
    if not 0.0 <= value <= 1.0:
        raise unexpected(field, "0 to 1", f"{value:g}")
    return value


def read_finite(value: float, field: str) -> float:
    """Returns a number that is neither infinite nor NaN."""
    if not math.isfinite(value):
        raise unexpected(field, "a finite number", value)
    return value


def check_neuron(neuron: int, labels: LabelSet, field: str) -> None:
    """Checks that the SAE has a neuron of this number.

    Raises:
        InvalidRequest: it has not.
    """
    if neuron >= labels.n_neurons:
        raise unexpected(field, f"0 to {labels.n_neurons - 1}", neuron)


def find_concept(name: str, labels: LabelSet, field: str) -> Concept:
    """Returns the concept of exactly this name.

    Raises:
        PreconditionFailed: another label set of the bundle has the name, and the current one has
            not: a name is never read with another meaning.
        InvalidRequest: no label set of the bundle has the name.
    """
    concept = labels.concept(name)
    if concept is not None:
        return concept
    refusal = unexpected(
        field,
        f"a concept of label set {labels.version}",
        f"{quoted(name)}; {_hint(name, labels)}",
    )
    if name in labels.former:
        raise PreconditionFailed(str(refusal))
    raise refusal


def _hint(name: str, labels: LabelSet) -> str:
    nearest = labels.nearest_names(name[:MAX_COMPARED_NAME])
    return f"nearest: {', '.join(nearest)}" if nearest else "see ConceptService.ListConcepts"
