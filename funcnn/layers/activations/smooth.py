"""Smooth rectifiers."""

import math

import jax.numpy as jnp
from jax import lax

from funcnn._checks import floating_array
from funcnn.layers.activation_layer import activation_layer
from funcnn.layers.activations._specs import Activations, rectifier


def softplus_forward(z: Activations) -> tuple[Activations, Activations]:
    """A smooth rectifier, a = log(1 + eᶻ), computed without overflow::

        a = max(z, 0) + log(1 + e^(−|z|))

    Example:
        >>> print(softplus_forward(jnp.array([-1e4, 1e4]))[0])
        [    0. 10000.]

    Source:
        Dugas, Bengio, Bélisle, Nadeau and Garcia, "Incorporating second-order functional knowledge for better option
        pricing", 2001.
    """
    z = floating_array("softplus", z)
    # One condition for max(z, 0) and for −|z|, so that autodiff of their sum at 0 is ½.
    positive = z > 0
    return jnp.where(positive, z, jnp.zeros_like(z)) + jnp.log1p(jnp.exp(jnp.where(positive, -z, z))), z


def softplus_backward(z: Activations, da: Activations) -> Activations:
    """∂/∂z log(1 + eᶻ) = eᶻ / (1 + eᶻ) = σ(z), so dz = da σ(z).

    Example:
        >>> print(softplus_backward(jnp.array([-1e4, 0.0]), jnp.array([1.0, 1.0])))
        [0.  0.5]
    """
    return da * lax.logistic(z)


def gelu_forward(z: Activations) -> tuple[Activations, Activations]:
    """The Gaussian error linear unit, a = z Φ(z), Φ the standard normal's distribution function, exactly.

    ``gelu_tanh_forward`` is the approximation that ``jax.nn.gelu`` uses by default.

    Example:
        >>> print(gelu_forward(jnp.array([-1e4, 0.0, 1e4]))[0])
        [   -0.     0. 10000.]

    Source:
        Hendrycks and Gimpel, "Gaussian error linear units (GELUs)", 2016.
    """
    z = floating_array("gelu", z)
    return z * _normal_distribution(z), z


def gelu_backward(z: Activations, da: Activations) -> Activations:
    """∂/∂z z Φ(z) = Φ(z) + z φ(z), with φ = Φ′ the normal density e^(−z²/2)/√(2π), so dz = da (Φ(z) + z φ(z)).

    Example:
        >>> print(gelu_backward(jnp.array([0.0, 1e4]), jnp.array([1.0, 1.0])))
        [0.5 1. ]
    """
    density = jnp.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return da * (_normal_distribution(z) + z * density)


def _normal_distribution(z):
    # erfc keeps the digits of the lower tail, where 1 + erf would cancel.
    return lax.erfc(-z / math.sqrt(2)) / 2


_GELU_SCALE = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715


def _near(z):
    # Beyond ±10 the tanh is ±1 in every dtype, and z³ could overflow.
    return jnp.clip(z, -10, 10)


def _gelu_argument(z):
    return _GELU_SCALE * (_near(z) + _GELU_CUBIC * _near(z) ** 3)


def gelu_tanh_forward(z: Activations) -> tuple[Activations, Activations]:
    """GELU by its tanh approximation, a = z (1 + tanh u)/2 with u = √(2/π) (z + 0.044715 z³).

    Example:
        >>> print(gelu_tanh_forward(jnp.array([-1e4, 0.0, 1e4]))[0])
        [   -0.     0. 10000.]

    Source:
        Hendrycks and Gimpel 2016, section 2.
    """
    z = floating_array("gelu_tanh", z)
    return z * (1 + jnp.tanh(_gelu_argument(z))) / 2, z


def gelu_tanh_backward(z: Activations, da: Activations) -> Activations:
    """The product and the chain rule on z (1 + tanh u)/2::

        ∂a/∂z = (1 + tanh u)/2 + z (1 − tanh² u)/2 · ∂u/∂z
        ∂u/∂z = √(2/π) (1 + 3 · 0.044715 z²)

    Example:
        >>> print(gelu_tanh_backward(jnp.array([0.0, 1e4]), jnp.array([1.0, 1.0])))
        [0.5 1. ]
    """
    t = jnp.tanh(_gelu_argument(z))
    du = _GELU_SCALE * (1 + 3 * _GELU_CUBIC * _near(z) ** 2)
    return da * ((1 + t) / 2 + z * ((1 - t * t) / 2) * du)


def silu_forward(z: Activations) -> tuple[Activations, Activations]:
    """The sigmoid linear unit (swish), a = z σ(z).

    Example:
        >>> print(silu_forward(jnp.array([-1e4, 0.0, 1e4]))[0])
        [   -0.     0. 10000.]

    Source:
        Elfwing, Uchibe and Doya, "Sigmoid-weighted linear units for neural network function approximation", 2018.
    """
    z = floating_array("silu", z)
    return z * lax.logistic(z), z


def silu_backward(z: Activations, da: Activations) -> Activations:
    """∂/∂z z σ(z) = σ(z) + z σ(z) (1 − σ(z)), the product rule, so dz = da σ(z) (1 + z (1 − σ(z))).

    Example:
        >>> print(silu_backward(jnp.array([0.0, 1e4]), jnp.array([1.0, 1.0])))
        [0.5 1. ]
    """
    s = lax.logistic(z)
    return da * (s * (1 + z * (1 - s)))


def mish_forward(z: Activations) -> tuple[Activations, Activations]:
    """Mish, a = z tanh(softplus(z)).

    Example:
        >>> print(mish_forward(jnp.array([-1e4, 0.0, 1e4]))[0])
        [   -0.     0. 10000.]

    Source:
        Misra, "Mish: a self regularized non-monotonic activation function", 2020.
    """
    z = floating_array("mish", z)
    return z * jnp.tanh(softplus_forward(z)[0]), z


def mish_backward(z: Activations, da: Activations) -> Activations:
    """The product and the chain rule, with t = tanh(softplus(z)) and softplus′ = σ::

        ∂a/∂z = t + z (1 − t²) σ(z)

    Example:
        >>> print(mish_backward(jnp.array([0.0, 1e4]), jnp.array([1.0, 1.0])))
        [0.6 1. ]
    """
    t = jnp.tanh(softplus_forward(z)[0])
    return da * (t + z * ((1 - t * t) * lax.logistic(z)))


softplus = activation_layer(softplus_forward, softplus_backward, rectifier("softplus", (0.0, math.inf)))
gelu = activation_layer(gelu_forward, gelu_backward, rectifier("gelu", (-0.17, math.inf)))
gelu_tanh = activation_layer(gelu_tanh_forward, gelu_tanh_backward, rectifier("gelu_tanh", (-0.1701, math.inf)))
silu = activation_layer(silu_forward, silu_backward, rectifier("silu", (-0.2785, math.inf)))
mish = activation_layer(mish_forward, mish_backward, rectifier("mish", (-0.3089, math.inf)))
