"""Group normalization: each sample over its positions and the features of a group."""

import math
from functools import partial
from typing import NamedTuple

from jaxtyping import Array, Float

from funcnn._checks import check_features, check_vectors, positive_integer
from funcnn._memoise import memoised
from funcnn._static import Static
from funcnn.layers.normalization import (
    Features,
    NormalizationParams,
    check_epsilon,
    layer_norm_init,
    rescale,
    rescale_backward,
    standardise,
    standardise_backward,
)
from funcnn.types import Layer, LayerSpec

POSITIONS_AND_FEATURES = (1, 3)
"""The axes of ``(batch, positions, groups, features of a group)`` that share a mean."""


class GroupNormResiduals(NamedTuple):
    """The standardised input, 1/√(σ² + ε) of each sample and group, γ, and the number of groups (``Static``)."""

    standardised: Features
    inverse_deviation: Float[Array, "batch 1 groups 1"]
    scale: Float[Array, " features"]
    groups: Static


def _by_group(x, groups):
    """Return x as ``(batch, positions, groups, features of a group)``."""
    return x.reshape(len(x), math.prod(x.shape[1:-1]), groups, x.shape[-1] // groups)


def group_norm_forward(
    params: NormalizationParams, x: Features, groups: int, epsilon: float = 1e-5
) -> tuple[Features, GroupNormResiduals]:
    """Standardise every group of features of every sample, then rescale: y = γ (x − μ)/√(σ² + ε) + β.

    A group is a run of neighbouring features; μ and σ² are over its features at all positions of the sample. One group
    is layer normalization over features and positions, as many groups as features instance normalization.

    Args:
        params: scale γ and bias β, ``(features,)``.
        x: features, ``(batch, ..., features)``, in the parameters' dtype.
        groups: how many groups; a divisor of the features.
        epsilon: ε, in the units of x².

    Returns:
        y, ``(batch, ..., features)``, and the residuals.

    Raises:
        ValueError: x is empty, has no batch axis, or another number of features; groups that don't divide them;
            vectors that would broadcast.
        TypeError: x isn't floating, or not in the parameters' dtype.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> params, _ = group_norm(4, groups=2).init(jax.random.key(0))
        >>> print(group_norm_forward(params, jnp.array([[1.0, 3.0, 10.0, 30.0]]), groups=2, epsilon=0.0)[0])
        [[-1.  1. -1.  1.]]

    Source:
        Wu and He, "Group normalization", 2018.
    """
    features, dtype = params.scale.size, params.scale.dtype
    name = f"group_norm({features}, {groups})"
    _check_groups(features, groups)
    check_vectors(name, dtype, features, **params._asdict())
    x = check_features(name, x, features, dtype)
    standardised, inverse_deviation, _, _ = standardise(_by_group(x, groups), POSITIONS_AND_FEATURES, epsilon)
    standardised = standardised.reshape(x.shape)
    residuals = GroupNormResiduals(standardised, inverse_deviation, params.scale, Static(groups))
    return rescale(params, standardised), residuals


def group_norm_backward(residuals: GroupNormResiduals, dy: Features) -> tuple[NormalizationParams, Features]:
    """Gradients as for layer normalization, with the means over the positions and features of each group::

        dγ = Σₙ dy x̂,    dβ = Σₙ dy,    dx̂ = dy γ,    dx = (dx̂ − mean(dx̂) − x̂ mean(dx̂ x̂)) / s

    with s = √(σ² + ε).

    Args:
        residuals: from ``group_norm_forward``.
        dy: cotangent of y, ``(batch, ..., features)``.

    Returns:
        The gradients of the parameters, summed over samples and positions, and ``dx``, ``(batch, ..., features)``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> params, _ = group_norm(4, groups=2).init(jax.random.key(0))
        >>> _, residuals = group_norm_forward(params, jnp.array([[1.0, 3.0, 10.0, 30.0]]), groups=2)
        >>> print(group_norm_backward(residuals, jnp.array([[5.0, 5.0, 7.0, 7.0]]))[1])
        [[0. 0. 0. 0.]]

    Source:
        Wu and He 2018.
    """
    groups = residuals.groups.value
    dparams, dstandardised = rescale_backward(residuals, dy)
    dx = standardise_backward(
        _by_group(residuals.standardised, groups),
        residuals.inverse_deviation,
        _by_group(dstandardised, groups),
        POSITIONS_AND_FEATURES,
    )
    return dparams, dx.reshape(dy.shape)


def _check_groups(features, groups):
    groups = positive_integer("group_norm(groups)", groups)
    if features % groups:
        divisors = [number for number in range(1, features + 1) if features % number == 0]
        raise ValueError(
            f"group_norm(groups): expected a divisor of the {features} features, got {groups}. Pass one of {divisors}."
        )
    return groups


def _layer_forward(params, state, x, *, train, key=None, groups, epsilon):
    y, residuals = group_norm_forward(params, x, groups, epsilon)
    return y, state, residuals


@memoised
def group_norm(features: int, groups: int, epsilon: float = 1e-5) -> Layer:
    """Group normalization, y = γ (x − μ)/√(σ² + ε) + β, each sample over its positions and the features of a group.

    Args:
        features: features of x.
        groups: how many groups of neighbouring features; a divisor of the features.
        epsilon: ε, in the units of x².

    Returns:
        The layer. Its parameters are ``NormalizationParams(scale, bias)``; it has no state.

    Raises:
        ValueError, TypeError: a count that isn't a positive integer, groups that don't divide the features, or epsilon
            negative.

    Example:
        >>> import jax
        >>> params, state = group_norm(4, 2).init(jax.random.key(0))
        >>> print(params.scale, state)
        [1. 1. 1. 1.] ()

    Source:
        Wu and He 2018.
    """
    features = positive_integer("group_norm(features)", features)
    groups = _check_groups(features, groups)
    check_epsilon("group_norm", epsilon)
    return Layer(
        partial(layer_norm_init, features=features),
        partial(_layer_forward, groups=groups, epsilon=epsilon),
        group_norm_backward,
        LayerSpec("group_norm", settings=(("features", features), ("groups", groups), ("epsilon", epsilon))),
    )
