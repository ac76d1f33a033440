"""The SAE's input normalisation as numbers: it reads (z - shift(z)) / scale(z)."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from trimtab.v1.bundle_pb2 import ScaleRule

from exporters.errors import ContentsError
from exporters.models import Floats, SparseCoder

SCALE_RULES = {
    "unit": ScaleRule.SCALE_RULE_UNIT_NORM,
    "none": ScaleRule.SCALE_RULE_NONE,
    "standard": ScaleRule.SCALE_RULE_STANDARD,
}
"""By the name that an SAE gives its rule."""


class Normalisation(NamedTuple):
    """scale and shift of each row, float32 [batch, 1]."""

    scale: Floats
    shift: Floats


def normalisation(rule: ScaleRule.ValueType, factor: float, z: Floats) -> Normalisation:
    """Scale and shift of z [batch, d] by the format's rules; see ScaleRule in bundle.proto."""
    scale, shift = np.ones((len(z), 1), np.float32), np.zeros((len(z), 1), np.float32)
    if rule == ScaleRule.SCALE_RULE_UNIT_NORM:
        scale[:] = np.linalg.norm(z, axis=1, keepdims=True)
    elif rule == ScaleRule.SCALE_RULE_STANDARD:
        scale[:], shift[:] = z.std(axis=1, keepdims=True), z.mean(axis=1, keepdims=True)
    scale[scale == 0] = 1.0
    scale *= factor
    return Normalisation(scale, shift)


def scale_rule(sae: SparseCoder, z: Tensor) -> ScaleRule.ValueType:
    """The rule that an SAE names.

    Raises:
        ContentsError: the format has no such rule, or it is not what the SAE does to z [batch, d].
    """
    if sae.scale_rule not in SCALE_RULES:
        raise ContentsError(
            f"the SAE's scale rule is {sae.scale_rule!r}, which the format does not have"
        )
    rule = SCALE_RULES[sae.scale_rule]
    expected = normalisation(rule, sae.scale_factor, z.detach().numpy())
    with torch.no_grad():
        found = sae.scale(z).numpy(), sae.shift(z).numpy()
    rounding = 1e-5 * float(z.abs().max())
    for name, values, wanted in zip(expected._fields, found, expected, strict=True):
        if not np.allclose(values, wanted, rtol=1e-4, atol=rounding):
            row = int(np.abs(values - wanted).argmax())
            raise ContentsError(
                f"the SAE's {name} is not that of its scale rule {sae.scale_rule!r}: "
                f"{values[row, 0]:.6g} found, {wanted[row, 0]:.6g} expected"
            )
    return rule
