"""Opening a bundle: one that is incomplete, altered, of an unknown format, or unlike torch is not served."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from trimtab.v1.bundle_pb2 import (
    SCALE_RULE_NONE,
    SCALE_RULE_STANDARD,
    BundleManifest,
)

from service.arrays import AnyArray, Floats
from service.bundle.catalogue import Catalogue
from service.bundle.encoder import Encoder
from service.bundle.history import HistoryRule
from service.bundle.label_set import Concept, LabelSet
from service.errors import StartError
from service.retrieval.protocol import Index
from service.steering.state import UserState


class BundleError(StartError):
    """A bundle that must not be served; the message names the fault."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """Everything that one request reads, opened and checked. Never changed once made.

    Attributes:
        labels: What names are read in.
        items: [V | b], float32 [n_items, p + 1], memory-mapped.
        mean_user: Whom an unknown user is taken for when steering is asked: the mean user
            embedding, in the context of the empty history.
        cache_key: Short name of encoder and SAE, within which cached embeddings are valid.
        gains: By attribute and value, how much of it each item carries, float16 [n_items],
            memory-mapped; empty where BOOST goes by who has the tag.
        label_sets: By version, its own first, then those that were imported beside it.
    """

    manifest: BundleManifest
    catalogue: Catalogue
    labels: LabelSet
    encoder: Encoder
    index: Index
    items: Floats
    mean_user: UserState
    gains: Mapping[tuple[str, str], AnyArray] = field(default_factory=dict)
    label_sets: Mapping[str, LabelSet] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.label_sets:
            object.__setattr__(self, "label_sets", {self.labels.version: self.labels})

    def labelled(self, label_sets: Mapping[str, LabelSet], current: str) -> "Bundle":
        """The same with other label sets beside its own, and names read in the current one."""
        others = label_sets.values()
        known = {version: labels.beside(others) for version, labels in label_sets.items()}
        return replace(self, labels=known[current], label_sets=known)

    def pinned(self, version: str) -> "Bundle":
        """The same with names read in the label set of this version, if there is one."""
        found = self.label_sets.get(version, self.labels)
        return self if found is self.labels else replace(self, labels=found)

    @property
    def own_labels(self) -> LabelSet:
        """The label set that is part of it."""
        return self.label_sets[self.manifest.label_set]

    @property
    def id(self) -> str:
        """The content id."""
        return self.manifest.bundle_id

    @property
    def cache_key(self) -> str:
        """See the class."""
        return self.manifest.model_id[:12]

    @cached_property
    def history_rule(self) -> HistoryRule:
        """How events become the encoder's input."""
        rule = self.manifest.history
        min_value = rule.min_value if rule.HasField("min_value") else None
        return HistoryRule(max(1, rule.max_length), min_value)

    def gain(self, concept: Concept) -> AnyArray:
        """How much of a concept each item carries: [n_items], from 0 to 1 or bool, not to be changed."""
        known = self.gains.get((concept.attribute, concept.value))
        return self.catalogue.members(concept.attribute, concept.value) if known is None else known

    def scale(self, z: Floats) -> float:
        """What z [d] is divided by before the SAE reads it; see ScaleRule in bundle.proto."""
        rule, factor = self._scale_rule
        if rule == SCALE_RULE_NONE:
            return factor
        size = float(z.std()) if rule == SCALE_RULE_STANDARD else math.sqrt(np.dot(z, z))
        return factor * size if size > 0.0 else factor

    def shift(self, z: Floats) -> float:
        """What is taken from z [d] before that."""
        return float(z.mean()) if self.manifest.scale_rule == SCALE_RULE_STANDARD else 0.0

    @cached_property
    def _scale_rule(self) -> tuple[int, float]:
        return self.manifest.scale_rule, self.manifest.scale_factor

    @cached_property
    def _state_shapes(self) -> tuple[tuple[int], tuple[int], int]:
        dims = self.manifest.dimensions
        return (dims.d,), (dims.context,), dims.n_neurons

    def fits(self, state: UserState) -> bool:
        """Whether a state could come from this bundle's encoder and SAE."""
        z_shape, context_shape, n_neurons = self._state_shapes
        shapes = state.z.shape == z_shape and state.context.shape == context_shape
        return shapes and bool(state.code.neurons.max(initial=-1) < n_neurons)
