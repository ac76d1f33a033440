"""Defines the target of an edit: a neuron, a concept, or weights over neurons."""

from dataclasses import dataclass, field

import numpy as np

from service.arrays import Floats, Ints


@dataclass(frozen=True, slots=True)
class Target:
    """A weight vector w over neurons, with what edits of it read, computed once.

    Attributes:
        name: The name in reports: a concept's name, "#7" or "weights".
        neurons: The neurons of the weights, int64 [m], each once; None for all neurons in order.
        weights: float32 [m], or [n_neurons].
        direction: weights @ W_dec, float32 [d].
        unit: One TYPICAL unit, in units of the code.
        blend_neurons: The neurons that BLEND mixes in, int64.
    """

    name: str
    neurons: Ints | None
    weights: Floats
    direction: Floats
    unit: float
    blend_neurons: Ints
    _square: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_square", float(np.dot(self.weights, self.weights)))

    @property
    def is_concept(self) -> bool:
        """Whether it is a concept: its weights cover all neurons, and its name is the concept's."""
        return self.neurons is None

    def level(self, code: Floats) -> float:
        """Computes c = <s, w> / <w, w> in a dense code s, float32 [n_neurons]."""
        active = code if self.neurons is None else code[self.neurons]
        return float(np.dot(active, self.weights)) / self._square

    def add_to(self, code: Floats, amount: float) -> None:
        """Adds amount * w to a dense code [n_neurons], in place."""
        if self.neurons is None:
            code += amount * self.weights
        else:
            code[self.neurons] += np.float32(amount) * self.weights
