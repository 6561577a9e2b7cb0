"""Static values in residuals: facts that are known while JAX traces."""

import dataclasses
from typing import Any

import jax


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Static:
    """A hashable value as a part of a pytree's structure, so that ``jit`` and ``scan`` carry it without an array.

    Example:
        >>> jax.tree.leaves((Static("train"), 2.0))
        [2.0]
    """

    value: Any
