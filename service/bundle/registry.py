"""The bundles that this server has loaded, by content id and by label."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from service.bundle.bundle import Bundle
from service.bundle.label_set import LabelSet
from service.errors import UnknownBundle

DEFAULT_LABEL = "stable"
"""The label of requests that name no bundle."""


SHORTEST_PREFIX = 8
"""Digits of a bundle id that suffice to name it."""


class LoadedBundle(NamedTuple):
    """A bundle, the labels that point to it, and when it was loaded."""

    bundle: Bundle
    labels: list[str]
    load_time: datetime


class BundleRegistry:
    """Bundles by content id, and labels, for instance "stable", that point to them.

    A request looks its bundle up once: a label that moves later does not affect it.
    """

    def __init__(self) -> None:
        self._bundles: dict[str, tuple[Bundle, datetime]] = {}
        self._labels: dict[str, str] = {}

    def add(self, bundle: Bundle, *labels: str) -> None:
        """Adds an opened bundle and points labels to it."""
        self._bundles[bundle.id] = (bundle, datetime.now(UTC))
        for label in labels:
            self._labels[label] = bundle.id

    def relabel(self, bundle_id: str, label_sets: Mapping[str, LabelSet], current: str) -> None:
        """Replaces a bundle's label sets, and the one that names are read in.

        Requests that looked the bundle up before keep the former ones.
        """
        bundle, load_time = self._bundles[bundle_id]
        self._bundles[bundle_id] = (bundle.with_label_sets(label_sets, current), load_time)

    def get(self, name: str = "") -> Bundle:
        """Finds a bundle by its id, a prefix of 8 digits or more, or a label.

        Args:
            name: "" is the default label.

        Raises:
            UnknownBundle: no bundle has this name, or the prefix fits several.
        """
        name = name or DEFAULT_LABEL
        bundle_id = self._labels.get(name, name)
        if bundle_id in self._bundles:
            return self._bundles[bundle_id][0]
        if len(name) >= SHORTEST_PREFIX:
            matches = [known for known in self._bundles if known.startswith(name)]
            if len(matches) == 1:
                return self._bundles[matches[0]][0]
        raise UnknownBundle(name, [*self._labels, *(known[:12] for known in self._bundles)])

    def all(self) -> list[LoadedBundle]:
        """Lists the bundles in the order of loading."""
        return [
            LoadedBundle(bundle, self._labels_of(bundle_id), load_time)
            for bundle_id, (bundle, load_time) in self._bundles.items()
        ]

    def _labels_of(self, bundle_id: str) -> list[str]:
        return [label for label, target in self._labels.items() if target == bundle_id]
