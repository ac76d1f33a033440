"""What the exporters need of a recommender, an SAE and a concept: the smallest interfaces that do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]


class SparseActivations(Protocol):
    """Codes in sparse form, largest first; activation 0 means "none"."""

    @property
    def neurons(self) -> Tensor:
        """int64 [batch, k]."""

    @property
    def activations(self) -> Tensor:
        """float32 [batch, k]."""


class ItemVectors(Protocol):
    """What queries are scored against."""

    @property
    def V(self) -> Tensor:  # noqa: N802
        """float32 [n_items, p]."""

    @property
    def b(self) -> Tensor:
        """float32 [n_items]."""


class HookedState(Protocol):
    """Where a recommender is read and edited."""

    @property
    def z(self) -> Tensor:
        """float32 [batch, d]."""

    @property
    def context(self) -> Tensor:
        """float32 [batch, context_size]: what else the head reads; edits leave it as it is."""


class HookedRecommender(Protocol):
    """A recommender: z, context = activate(history), q = head(z, context), score = q . V_i + b_i.

    A torch module.
    """

    @property
    def hook_point(self) -> str:
        """Where the model is read and edited."""

    @property
    def ordered(self) -> bool:
        """True if the order of a history matters."""

    @property
    def has_head(self) -> bool:
        """False where the head is the identity."""

    @property
    def context_size(self) -> int:
        """Width of what the head reads beside z; 0 where it needs nothing."""

    def encode(self, items: Tensor, mask: Tensor) -> Tensor:
        """Items int64 and mask float32 [batch, length] -> z [batch, d]."""

    def activate(self, items: Tensor, mask: Tensor) -> HookedState:
        """The same with its context."""

    def head(self, z: Tensor, context: Tensor) -> Tensor:
        """Z [batch, d] and its context [batch, context_size] -> q [batch, p]."""

    def item_matrix(self) -> ItemVectors:
        """V and b."""


class SparseCoder(Protocol):
    """A sparse autoencoder; a torch module."""

    n_neurons: int

    @property
    def k(self) -> int:
        """Most neurons that one code has active."""

    @property
    def W_dec(self) -> Tensor:  # noqa: N802
        """[n_neurons, d], rows of unit norm."""

    @property
    def b_dec(self) -> Tensor:
        """[d]."""

    @property
    def scale_rule(self) -> str:
        """How z is normalised: "unit", "none" or "standard"."""

    @property
    def scale_factor(self) -> float:
        """What the scale rule is multiplied with."""

    def scale(self, z: Tensor) -> Tensor:
        """What z [batch, d] is divided by, [batch, 1], after shift(z) is taken from it."""

    def shift(self, z: Tensor) -> Tensor:
        """What is taken from z [batch, d], [batch, 1]; 0 for all rules but "standard"."""

    def encode_sparse(self, z: Tensor) -> SparseActivations:
        """Raw z [batch, d] -> at most k activations, k being the same for every batch."""


class NeuronLabel(NamedTuple):
    """A neuron's text, and where it comes from."""

    text: str
    method: str
    score: float
    provenance: str = ""


class NamedConcept(Protocol):
    """A human meaning with weights over neurons."""

    @property
    def name(self) -> str:
        """Unique within the label set."""

    @property
    def attribute(self) -> str:
        """The items' attribute that it was fitted to."""

    @property
    def value(self) -> str:
        """The attribute's value that items carry."""

    @property
    def item_count(self) -> int:
        """How many items carry it."""

    @property
    def method(self) -> str:
        """How the weights were found."""

    @property
    def weights(self) -> Floats:
        """[n_neurons]."""

    @property
    def unit(self) -> float:
        """One TYPICAL unit, in units of the code."""

    @property
    def auc(self) -> float | None:
        """On held-out items; None where too few carry it."""

    @property
    def blend_neurons(self) -> Sequence[int]:
        """Best first."""

    @property
    def unsteered_share(self) -> float:
        """Mean exposure share in lists of 20."""

    @property
    def steered_share(self) -> float:
        """The same at strength 1."""
