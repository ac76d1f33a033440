"""The bundles that this server holds, by id and by label."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from service.bundle.bundle import Bundle
from service.bundle.label_set import LabelSet
from service.errors import UnknownBundle

DEFAULT_LABEL = "stable"


SHORTEST_PREFIX = 8
"""Digits of a bundle id that are enough to name it."""


class Held(NamedTuple):
    """A bundle with its labels and when it was loaded."""

    bundle: Bundle
    labels: list[str]
    load_time: datetime


class BundleRegistry:
    """Bundles by content id; a label, for instance "stable", points to one of them.

    A request takes its bundle once and keeps it: a label that moves meanwhile does not touch it.
    """

    def __init__(self) -> None:
        self._bundles: dict[str, tuple[Bundle, datetime]] = {}
        self._labels: dict[str, str] = {}

    def add(self, bundle: Bundle, *labels: str) -> None:
        """Holds an opened bundle, and points labels to it."""
        self._bundles[bundle.id] = (bundle, datetime.now(UTC))
        for label in labels:
            self._labels[label] = bundle.id

    def relabel(self, bundle_id: str, label_sets: Mapping[str, LabelSet], current: str) -> None:
        """Holds a bundle with other label sets; requests that took it before keep theirs."""
        bundle, when = self._bundles[bundle_id]
        self._bundles[bundle_id] = (bundle.with_label_sets(label_sets, current), when)

    def get(self, name: str = "") -> Bundle:
        """The bundle of an id, of a prefix of at least 8 digits, or of a label; "" is the default label.

        Raises:
            UnknownBundle: there is none, or the prefix fits several.
        """
        name = name or DEFAULT_LABEL
        bundle_id = self._labels.get(name, name)
        if bundle_id in self._bundles:
            return self._bundles[bundle_id][0]
        fitting = [
            known
            for known in self._bundles
            if len(name) >= SHORTEST_PREFIX and known.startswith(name)
        ]
        if len(fitting) == 1:
            return self._bundles[fitting[0]][0]
        raise UnknownBundle(name, [*self._labels, *(known[:12] for known in self._bundles)])

    def all(self) -> list[Held]:
        """Every bundle, in the order of loading."""
        return [
            Held(
                bundle,
                [label for label, target in self._labels.items() if target == bundle_id],
                when,
            )
            for bundle_id, (bundle, when) in self._bundles.items()
        ]
