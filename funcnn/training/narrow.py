"""What float16 does to an optimizer: measured on two small gradients before training.

Float16 ends at 6e-8. The usual ε of 1e-8 rounds to 0 there, and the square of a gradient below 2e-4 does, too.
"""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from funcnn._checks import is_concrete
from funcnn.types import Params

SMALL, USUAL = 1e-4, 1e-2
"""Two gradients: in float16 the square of the first is 0, that of the second isn't."""

AMPLIFIED = 5.0
"""How often an update for the small gradient is that for the usual one: 0.01 in SGD, 1 in Adam."""

REMEDY = (
    "Give the optimizer a larger one, such as adam(1e-3, eps=1e-4), or keep the parameters in float32 and compute in "
    "float16 with mixed_precision."
)


def warn_of_epsilon(name: str, optimizer: optax.GradientTransformation, params: Params) -> None:
    """Warn where an optimizer on float16 parameters divides by 0, or by its ε alone.

    The settings of an optimizer are not known. It is measured by its updates for gradients of 0 and of two small sizes.
    An optimizer that collects the gradients of several steps makes no update then, and gets no warning.

    Args:
        name: of the public call.
        optimizer: any.
        params: the initial parameters; nothing is measured while they are traced.
    """
    leaves = jax.tree.leaves(params)
    if not any(jnp.result_type(leaf) == jnp.float16 for leaf in leaves) or not is_concrete(*leaves):
        return
    try:
        of_zero, of_small, of_usual = (_largest_update(optimizer, params, size) for size in (0.0, SMALL, USUAL))
    except Exception:  # An optimizer that does not take these parameters has its error in training.
        return
    if np.isnan(of_zero):
        warnings.warn(
            f"{name}: float16 parameters: the optimizer's update is NaN where a gradient is 0. Its ε rounds to 0 in "
            f"float16, whose smallest number is 6e-08. {REMEDY}",
            stacklevel=3,
        )
    elif of_small > AMPLIFIED * of_usual:
        warnings.warn(
            f"{name}: float16 parameters: the optimizer's update for a gradient of {SMALL:g} is "
            f"{of_small / max(of_usual, 1e-30):.0f} times that for {USUAL:g}. The square of a small gradient is 0 in "
            f"float16, and the optimizer divides by its ε alone, which is too small for that. {REMEDY}",
            stacklevel=3,
        )


def _largest_update(optimizer: optax.GradientTransformation, params: Any, size: float) -> float:
    """Return the largest entry of the first update in float16, for gradients of one size; NaN where one is."""
    gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, size), params)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    narrow = [leaf for leaf in jax.tree.leaves(updates) if leaf.dtype == jnp.float16 and leaf.size]
    return float(np.max([np.abs(np.asarray(leaf, np.float64)).max() for leaf in narrow], initial=0.0))
