"""Normalises what the SAE reads: (z - shift(z)) / scale(z); see ScaleRule in bundle.proto."""

import math

import numpy as np
from trimtab.v1.bundle_pb2 import SCALE_RULE_NONE, SCALE_RULE_STANDARD, SCALE_RULE_UNIT_NORM

from service.arrays import Floats

SCALE_RULES = (SCALE_RULE_UNIT_NORM, SCALE_RULE_NONE, SCALE_RULE_STANDARD)
"""The rules that this release knows."""


def sae_scale(rule: int, factor: float, z: Floats) -> float:
    """Computes what z [d] is divided by; never 0.

    Args:
        rule: One of SCALE_RULES.
        factor: The manifest's scale_factor.
        z: A user embedding, float32 [d].
    """
    if rule == SCALE_RULE_NONE:
        return factor
    size = float(z.std()) if rule == SCALE_RULE_STANDARD else math.sqrt(np.dot(z, z))
    return factor * size if size > 0.0 else factor


def sae_shift(rule: int, z: Floats) -> float:
    """Computes what is subtracted from z [d] before it is divided."""
    return float(z.mean()) if rule == SCALE_RULE_STANDARD else 0.0
