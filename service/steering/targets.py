"""What an edit acts on: a neuron, a concept or weights over neurons."""

from dataclasses import dataclass, field

import numpy as np

from service.arrays import Floats, Ints


@dataclass(frozen=True, slots=True)
class Target:
    """A weight vector over neurons, with what edits of it need, worked out once.

    Attributes:
        name: As reports call it: a concept's name, "#7" or "weights".
        neurons: Where the weights are, int64 [m], each once; None for all neurons in order.
        weights: float32 [m], or [n_neurons].
        direction: weights @ W_dec, float32 [d].
        unit: One TYPICAL unit in units of the code.
        blend_neurons: What BLEND mixes in.
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
        """Whether its weights are of all neurons; then its name is the concept's."""
        return self.neurons is None

    def level(self, code: Floats) -> float:
        """C = <s, w> / <w, w> in a dense code [n_neurons]."""
        active = code if self.neurons is None else code[self.neurons]
        return float(np.dot(active, self.weights)) / self._square

    def add_to(self, code: Floats, amount: float) -> None:
        """Moves a code by amount * w, in place."""
        if self.neurons is None:
            code += amount * self.weights
        else:
            code[self.neurons] += np.float32(amount) * self.weights
