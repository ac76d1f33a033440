"""Checks that an SAE normalises its input by a rule of the format: (z - shift(z)) / scale(z)."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from trimtab.v1.bundle_pb2 import ScaleRule

from exporters.errors import ContentsError
from service.arrays import Floats
from service.bundle.normalisation import sae_scale, sae_shift
from training.saes import SparseAutoencoder

SCALE_RULES = {
    "unit": ScaleRule.SCALE_RULE_UNIT_NORM,
    "none": ScaleRule.SCALE_RULE_NONE,
    "standard": ScaleRule.SCALE_RULE_STANDARD,
}
"""The format's rules by the names that SAEs give them."""


class Normalisation(NamedTuple):
    """The scale and shift of each row: float32 [batch, 1] each."""

    scale: Floats
    shift: Floats


def normalisation(rule: ScaleRule.ValueType, factor: float, z: Floats) -> Normalisation:
    """Computes the scale and shift of z [batch, d] as the service does."""
    scales = [sae_scale(rule, factor, row) for row in z]
    shifts = [sae_shift(rule, row) for row in z]
    return Normalisation(
        scale=np.array(scales, np.float32)[:, None], shift=np.array(shifts, np.float32)[:, None]
    )


def checked_scale_rule(sae: SparseAutoencoder, z: Tensor) -> ScaleRule.ValueType:
    """Returns the rule that an SAE names, after comparing it with how the SAE treats z [batch, d].

    Raises:
        ContentsError: the format has no such rule, or the SAE's scale or shift differs from it.
    """
    if sae.scale_rule not in SCALE_RULES:
        raise ContentsError(
            f"the SAE's scale rule: expected one of {', '.join(SCALE_RULES)}, "
            f"found {sae.scale_rule!r}"
        )
    rule = SCALE_RULES[sae.scale_rule]
    expected = normalisation(rule, sae.scale_factor, z.detach().numpy())
    with torch.no_grad():
        actual = Normalisation(sae.scale(z).numpy(), sae.shift(z).numpy())
    rounding = 1e-5 * float(z.abs().max())
    for name, values, wanted in zip(Normalisation._fields, actual, expected, strict=True):
        if not np.allclose(values, wanted, rtol=1e-4, atol=rounding):
            row = int(np.abs(values - wanted).argmax())
            raise ContentsError(
                f"the SAE's {name}: expected {wanted[row, 0]:.6g} by its scale rule "
                f"{sae.scale_rule!r}, found {values[row, 0]:.6g}"
            )
    return rule
