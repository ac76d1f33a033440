"""Defines the invertible normalisations of an SAE's input: y = (z - shift(z)) / scale(z)."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Normalisation(Protocol):
    """An invertible rule for each z by itself. Traceable to ONNX."""

    @property
    def name(self) -> str:
        """Returns the name in NORMALISATIONS."""

    def scale(self, z: Tensor) -> Tensor:
        """Computes [batch, d] -> [batch, 1], never 0."""

    def shift(self, z: Tensor) -> Tensor:
        """Computes [batch, d] -> [batch, 1]."""


class UnitNorm:
    """y has norm 1, so that a code does not depend on a history's length; z = 0 stays 0."""

    name = "unit"

    def scale(self, z: Tensor) -> Tensor:
        """Computes the norm of z."""
        return _or_1(torch.linalg.vector_norm(z, dim=-1, keepdim=True))

    def shift(self, z: Tensor) -> Tensor:
        """Returns 0."""
        return torch.zeros_like(z[:, :1])


class NoNormalisation:
    """y is z."""

    name = "none"

    def scale(self, z: Tensor) -> Tensor:
        """Returns 1."""
        return torch.ones_like(z[:, :1])

    def shift(self, z: Tensor) -> Tensor:
        """Returns 0."""
        return torch.zeros_like(z[:, :1])


class Standard:
    """y has mean 0 and standard deviation 1 over its d entries; a z of equal entries becomes 0."""

    name = "standard"

    def scale(self, z: Tensor) -> Tensor:
        """Computes the standard deviation of z's d entries (of all d, not of a sample)."""
        return _or_1(
            torch.linalg.vector_norm(z - self.shift(z), dim=-1, keepdim=True) / z.shape[-1] ** 0.5
        )

    def shift(self, z: Tensor) -> Tensor:
        """Computes the mean of z's entries."""
        return z.mean(dim=-1, keepdim=True)


def _or_1(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, scale, torch.ones_like(scale))


NORMALISATIONS: dict[str, type[Normalisation]] = {
    "unit": UnitNorm,
    "none": NoNormalisation,
    "standard": Standard,
}
