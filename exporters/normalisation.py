"""The SAE's input normalisation as numbers: it reads (z - shift(z)) / scale(z)."""

from typing import NamedTuple

import numpy as np
from trimtab.v1.bundle_pb2 import ScaleRule

from exporters.models import Floats

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
