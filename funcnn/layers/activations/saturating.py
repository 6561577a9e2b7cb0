"""Activations that are flat on both sides, and the identity."""

import jax.numpy as jnp
from jax import lax

from funcnn._checks import floating_array
from funcnn.layers.activation_layer import activation_layer
from funcnn.layers.activations._specs import Activations
from funcnn.types import LayerSpec


def identity_forward(z: Activations) -> tuple[Activations, tuple[()]]:
    """The identity, a = z: the output of a regression, and the skip connection's shortcut.

    Example:
        >>> print(*identity_forward(jnp.array([2.0, -1.0])))
        [ 2. -1.] ()
    """
    z = floating_array("identity", z)
    return z, ()


def identity_backward(residuals: tuple[()], da: Activations) -> Activations:
    """∂a/∂z = 1, so dz = da.

    Example:
        >>> print(identity_backward((), jnp.array([3.0])))
        [3.]
    """
    return da


def sigmoid_forward(z: Activations) -> tuple[Activations, Activations]:
    """The logistic function, a = σ(z) = 1 / (1 + e⁻ᶻ), in (0, 1).

    Example:
        >>> a, residuals = sigmoid_forward(jnp.array([-1e4, 0.0, 1e4]))
        >>> print(a)
        [0.  0.5 1. ]

    Source:
        Rumelhart, Hinton and Williams 1986, equation 2.
    """
    z = floating_array("sigmoid", z)
    a = lax.logistic(z)
    return a, a


def sigmoid_backward(a: Activations, da: Activations) -> Activations:
    """σ′(z) = σ(z) (1 − σ(z)), so dz = da a (1 − a).

    From a = (1 + e⁻ᶻ)⁻¹::

        ∂a/∂z = e⁻ᶻ (1 + e⁻ᶻ)⁻² = a · e⁻ᶻ/(1 + e⁻ᶻ) = a (1 − a)

    It is at most ¼, at z = 0.

    Example:
        >>> print(sigmoid_backward(jnp.array([0.5, 1.0]), jnp.array([1.0, 1.0])))
        [0.25 0.  ]
    """
    return da * (a * (1 - a))


def tanh_forward(z: Activations) -> tuple[Activations, Activations]:
    """The hyperbolic tangent, a = (eᶻ − e⁻ᶻ) / (eᶻ + e⁻ᶻ), in (−1, 1) and centred on zero.

    Example:
        >>> print(tanh_forward(jnp.array([-1e4, 0.0, 1e4]))[0])
        [-1.  0.  1.]

    Source:
        LeCun, Bottou, Orr and Müller, "Efficient BackProp", 1998, section 4.4.
    """
    z = floating_array("tanh", z)
    a = jnp.tanh(z)
    return a, a


def tanh_backward(a: Activations, da: Activations) -> Activations:
    """tanh′(z) = 1 − tanh²(z), so dz = da (1 − a²): the quotient rule on sinh/cosh with cosh² − sinh² = 1.

    Example:
        >>> print(tanh_backward(jnp.array([0.0, 0.5]), jnp.array([1.0, 1.0])))
        [1.   0.75]
    """
    return da * (1 - a * a)


def hard_tanh_forward(z: Activations) -> tuple[Activations, Activations]:
    """The piecewise linear tanh, a = min(max(z, −1), 1).

    Example:
        >>> print(hard_tanh_forward(jnp.array([-1e4, 0.5, 1e4]))[0])
        [-1.   0.5  1. ]

    Source:
        Collobert, "Large scale machine learning", 2004.
    """
    z = floating_array("hard_tanh", z)
    # Not jnp.clip, whose derivative at ±1 is ½; that of jax.nn.hard_tanh and of this form is 1.
    return jnp.where(z > 1, jnp.ones_like(z), jnp.where(z < -1, -jnp.ones_like(z), z)), z


def hard_tanh_backward(z: Activations, da: Activations) -> Activations:
    """∂a/∂z = 1 where −1 ≤ z ≤ 1, else 0, so dz = da there and 0 elsewhere; both kinks follow ``jax.nn``.

    Example:
        >>> print(hard_tanh_backward(jnp.array([-2.0, 0.0, 1.0]), jnp.array([3.0, 3.0, 3.0])))
        [0. 3. 3.]
    """
    return jnp.where((z > 1) | (z < -1), jnp.zeros_like(da), da)


identity = activation_layer(identity_forward, identity_backward, LayerSpec("identity"))
sigmoid = activation_layer(
    sigmoid_forward,
    sigmoid_backward,
    LayerSpec("sigmoid", units="saturating", steepest=0.25, output_range=(0.0, 1.0)),
)
tanh = activation_layer(tanh_forward, tanh_backward, LayerSpec("tanh", units="saturating", output_range=(-1.0, 1.0)))
hard_tanh = activation_layer(
    hard_tanh_forward, hard_tanh_backward, LayerSpec("hard_tanh", units="saturating", output_range=(-1.0, 1.0))
)
