"""A bundle: everything of a model and its catalogue that a request reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from trimtab.v1.bundle_pb2 import BundleManifest

from service.arrays import AnyArray, Floats
from service.bundle.catalogue import Catalogue
from service.bundle.encoder import Encoder
from service.bundle.history import HistoryRule
from service.bundle.label_set import Concept, LabelSet
from service.bundle.normalisation import sae_scale, sae_shift
from service.errors import StartError
from service.retrieval.protocol import Index
from service.steering.state import UserState
from service.steering.steer import SaeDecoder


class BundleError(StartError):
    """A bundle that must not be served; the message names the fault."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """Everything that one request reads, opened and checked. Never changed once made.

    Attributes:
        manifest: What the bundle says of itself.
        catalogue: The items.
        labels: The label set that names are read in.
        encoder: The model.
        index: Finds candidates among the items.
        items: [V | b], float32 [n_items, p + 1], memory-mapped.
        mean_user: The state that steering an unknown user starts from: the mean user embedding, in
            the context of the empty history.
        gains: How much of a value each item carries, float16 [n_items], memory-mapped, by
            attribute and value; empty where BOOST asks only whether an item has the value.
        label_sets: Label sets by version: the bundle's own first, then those imported for it.
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

    def with_label_sets(self, label_sets: Mapping[str, LabelSet], current: str) -> "Bundle":
        """Returns a copy with other label sets, in which names are read in the current one."""
        sets = label_sets.values()
        known = {version: labels.beside(sets) for version, labels in label_sets.items()}
        return replace(self, labels=known[current], label_sets=known)

    def pinned(self, version: str) -> "Bundle":
        """Returns a copy that reads names in this version's label set; itself if it has none."""
        labels = self.label_sets.get(version, self.labels)
        return self if labels is self.labels else replace(self, labels=labels)

    @property
    def own_labels(self) -> LabelSet:
        """The label set that is part of the bundle."""
        return self.label_sets[self.manifest.label_set]

    @property
    def id(self) -> str:
        """The content id."""
        return self.manifest.bundle_id

    @property
    def cache_key(self) -> str:
        """Short name of encoder and SAE: cached embeddings are valid for bundles that share it."""
        return self.manifest.model_id[:12]

    @cached_property
    def history_rule(self) -> HistoryRule:
        """The rule by which events become the encoder's input."""
        rule = self.manifest.history
        min_value = rule.min_value if rule.HasField("min_value") else None
        return HistoryRule(max(1, rule.max_length), min_value)

    def gain(self, concept: Concept) -> AnyArray:
        """Returns how much of a concept each item carries: [n_items], from 0 to 1, or bool.

        The array is shared, and must not be changed.
        """
        gain = self.gains.get((concept.attribute, concept.value))
        if gain is None:
            return self.catalogue.members(concept.attribute, concept.value)
        return gain

    def gain_of(self, name: str) -> AnyArray:
        """Returns the gain of a concept of the label set by its name; see gain."""
        concept = self.labels.concept(name)
        if concept is None:
            raise ValueError(f"expected a concept, found {name!r}")
        return self.gain(concept)

    @cached_property
    def sae_decoder(self) -> SaeDecoder:
        """The parts of the sparse autoencoder that steering reads."""
        return SaeDecoder(self.labels.decoder, self.labels.bias, self.scale, self.shift)

    def scale(self, z: Floats) -> float:
        """Computes what z [d] is divided by before the SAE reads it; see sae_scale."""
        rule, factor = self._scale_rule
        return sae_scale(rule, factor, z)

    def shift(self, z: Floats) -> float:
        """Computes what is subtracted from z [d] before it is divided; see sae_shift."""
        return sae_shift(self._scale_rule[0], z)

    @cached_property
    def _scale_rule(self) -> tuple[int, float]:
        # Reading a field of a message takes longer than reading an attribute.
        return self.manifest.scale_rule, self.manifest.scale_factor

    @cached_property
    def _state_shapes(self) -> tuple[tuple[int], tuple[int], int]:
        dims = self.manifest.dimensions
        return (dims.d,), (dims.context,), dims.n_neurons

    def fits(self, state: UserState) -> bool:
        """Returns True if a state could come from this bundle's encoder and SAE."""
        z_shape, context_shape, n_neurons = self._state_shapes
        if state.z.shape != z_shape or state.context.shape != context_shape:
            return False
        return bool(state.code.neurons.max(initial=-1) < n_neurons)
