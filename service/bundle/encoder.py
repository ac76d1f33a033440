"""The protocol of a bundle's model, and its calls that several computations share."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import numpy as np

from service.arrays import Floats, Ints, rows_of
from service.steering.state import UserState


class Activation(NamedTuple):
    """What the encoder computes, not yet rounded.

    Attributes:
        z: User embeddings, float32 [batch, d].
        context: Other values that only the head reads, float32 [batch, context].
    """

    z: Floats
    context: Floats


class Codes(NamedTuple):
    """What the SAE computes; entries with activation 0 mean no neuron.

    Attributes:
        neurons: int64 [batch, k].
        activations: float32 [batch, k].
    """

    neurons: Ints
    activations: Floats


class Encoder(Protocol):
    """The model before, at and after the hook point.

    Attributes:
        has_head: True if the model has a nonlinear part after the hook point.
        context_size: Width of the context.
    """

    has_head: bool
    context_size: int

    def encode(self, histories: Sequence[Ints]) -> list[UserState]:
        """Computes the user states of histories of item indices, oldest first."""

    def states(self, z: Floats, context: Floats) -> list[UserState]:
        """Computes the user states of z [batch, d] and context [batch, context]."""

    def embed(self, items: Ints, mask: Floats) -> Activation:
        """Computes z and context of padded item indices and their mask, [batch, length] each."""

    def code(self, z: Floats) -> Codes:
        """Computes the codes of z [batch, d]."""

    def head(self, z: Floats, context: Floats) -> Floats:
        """Computes the queries of z [batch, d]: float32 [batch, p].

        The context is one a row, [batch, context], or the same for all, [context].
        """


@dataclass(frozen=True, slots=True)
class Encode:
    """A SharedCall for the user state of a history of item indices, oldest first."""

    encoder: Encoder
    history: Ints

    stage: ClassVar[int] = 0

    @property
    def group(self) -> Hashable:
        """One run of the graphs."""
        return Encode, id(self.encoder)

    def run_all(self, calls: Sequence["Encode"]) -> Sequence[UserState]:
        """Runs the calls of a group as one; see SharedCall."""
        return self.encoder.encode([call.history for call in calls])


@dataclass(frozen=True, slots=True)
class Head:
    """A SharedCall for the queries of user embeddings in one context.

    Attributes:
        encoder: The model.
        z: User embeddings, float32 [m, d]. The result is float32 [m, p].
        context: float32 [context].
    """

    encoder: Encoder
    z: Floats
    context: Floats

    stage: ClassVar[int] = 1

    @property
    def group(self) -> Hashable:
        """One run of the graph."""
        return Head, id(self.encoder)

    def run_all(self, calls: Sequence["Head"]) -> Sequence[Floats]:
        """Runs the calls of a group as one; see SharedCall."""
        parts = [call.z for call in calls]
        sizes = [len(part) for part in parts]
        contexts = np.repeat([call.context for call in calls], sizes, axis=0)
        return rows_of(self.encoder.head(np.concatenate(parts), contexts), parts)
