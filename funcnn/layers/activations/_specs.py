"""The type of activations, and the spec of those that are flat on one side."""

import math
from typing import TypeAlias

from jaxtyping import Array, Float

from funcnn.layers.initializers import he
from funcnn.types import LayerSpec

Activations: TypeAlias = Float[Array, "..."]


def rectifier(name: str, output_range: tuple[float, float] = (-math.inf, math.inf), settings=()) -> LayerSpec:
    """Return the spec of an activation that is flat on one side."""
    return LayerSpec(name, settings, kernel_init=he, units="rectifying", output_range=output_range)
