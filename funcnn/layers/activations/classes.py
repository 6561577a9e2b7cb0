"""Activations of exclusive classes: every output depends on every score of its row."""

import math
from typing import TypeAlias

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from funcnn._checks import floating_array
from funcnn._small_matmul import small_max, small_sum
from funcnn.layers.activation_layer import activation_layer
from funcnn.types import LayerSpec

Scores: TypeAlias = Float[Array, "... classes"]


def softmax_forward(z: Scores) -> tuple[Scores, Scores]:
    """Scores to probabilities over the last axis, aᵢ = e^zᵢ / Σⱼ e^zⱼ.

    Adding a constant to every score changes nothing, so the largest is subtracted first: no exponential overflows.

    Example:
        >>> print(softmax_forward(jnp.array([1e4, 1e4, -1e4]))[0])
        [0.5 0.5 0. ]

    Source:
        Bridle, "Probabilistic interpretation of feedforward classification network outputs", 1990.
    """
    z = floating_array("softmax", z)
    exponentials = jnp.exp(z - lax.stop_gradient(small_max(z)))
    a = exponentials / small_sum(exponentials)
    return a, a


def softmax_backward(a: Scores, da: Scores) -> Scores:
    """The vector-Jacobian product with the whole Jacobian, because every output depends on every score.

    ∂aᵢ/∂zⱼ = aᵢ (1[i = j] − aⱼ) by the quotient rule, so::

        ∂L/∂zⱼ = Σᵢ daᵢ aᵢ (1[i = j] − aⱼ) = aⱼ (daⱼ − Σᵢ daᵢ aᵢ)

    Example:
        >>> print(softmax_backward(jnp.array([0.5, 0.5]), jnp.array([1.0, 0.0])))
        [ 0.25 -0.25]
    """
    return a * (da - (da * a).sum(axis=-1, keepdims=True))


def log_softmax_forward(z: Scores) -> tuple[Scores, Scores]:
    """Scores to log-probabilities over the last axis, aᵢ = zᵢ − log Σⱼ e^zⱼ, the largest score subtracted first.

    Example:
        >>> print(log_softmax_forward(jnp.array([1e4, 1e4]))[0].round(4))
        [-0.6931 -0.6931]

    Source:
        Bridle 1990, in logarithms.
    """
    z = floating_array("log_softmax", z)
    shifted = z - lax.stop_gradient(small_max(z))
    a = shifted - jnp.log(small_sum(jnp.exp(shifted)))
    return a, a


def log_softmax_backward(a: Scores, da: Scores) -> Scores:
    """The vector-Jacobian product with the whole Jacobian: ∂aᵢ/∂zⱼ = 1[i = j] − e^aⱼ, so dzⱼ = daⱼ − e^aⱼ Σᵢ daᵢ.

    Example:
        >>> print(log_softmax_backward(jnp.log(jnp.array([0.25, 0.75])), jnp.array([1.0, 0.0])))
        [ 0.75 -0.75]
    """
    return da - jnp.exp(a) * da.sum(axis=-1, keepdims=True)


softmax = activation_layer(
    softmax_forward,
    softmax_backward,
    LayerSpec(
        "softmax",
        units="saturating",
        steepest=0.25,
        slope=lambda a, y: y * (1 - y),  # The Jacobian's diagonal.
        output_range=(0.0, 1.0),
        sums_to_one=True,
    ),
)
log_softmax = activation_layer(
    log_softmax_forward, log_softmax_backward, LayerSpec("log_softmax", output_range=(-math.inf, 0.0))
)
