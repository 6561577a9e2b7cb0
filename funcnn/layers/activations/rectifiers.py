"""Rectifiers: activations with a kink, or a change of formula, at 0."""

import math
from functools import partial

import jax
import jax.numpy as jnp

from funcnn._checks import check_real, floating_array
from funcnn._memoise import memoised
from funcnn.layers.activation_layer import activation_layer
from funcnn.layers.activations._specs import Activations, rectifier
from funcnn.types import Layer, LayerSpec


def relu_forward(z: Activations) -> tuple[Activations, Activations]:
    """The rectified linear unit, a = max(0, z).

    Example:
        >>> print(relu_forward(jnp.array([-1.0, 0.0, 2.0]))[0])
        [0. 0. 2.]

    Source:
        Nair and Hinton, "Rectified linear units improve restricted Boltzmann machines", 2010.
    """
    z = floating_array("relu", z)
    # Not jnp.maximum, whose derivative at 0 is ½; that of jax.nn.relu and of this form is 0.
    a = jnp.where(z <= 0, jnp.zeros_like(z), z)
    return a, a


def relu_backward(a: Activations, da: Activations) -> Activations:
    """ReLU′(z) = 1 where z > 0, else 0, also at the kink, as in ``jax.nn.relu``: dz = da where a > 0, else 0.

    a > 0 exactly where z > 0, so the output is all that backward needs.

    Example:
        >>> print(relu_backward(jnp.array([0.0, 2.0]), jnp.array([5.0, 5.0])))
        [0. 5.]
    """
    return jnp.where(a <= 0, jnp.zeros_like(da), da)


def leaky_relu_forward(z: Activations, alpha: float = 0.01) -> tuple[Activations, Activations]:
    """The leaky rectified linear unit, a = z where z > 0, else α z.

    Example:
        >>> print(leaky_relu_forward(jnp.array([-1.0, 2.0]), 0.5)[0])
        [-0.5  2. ]

    Source:
        Maas, Hannun and Ng, "Rectifier nonlinearities improve neural network acoustic models", 2013.
    """
    z = floating_array("leaky_relu", z)
    slope = jnp.where(z > 0, jnp.ones_like(z), jnp.full_like(z, alpha))
    return slope * z, slope


def leaky_relu_backward(slope: Activations, da: Activations) -> Activations:
    """∂a/∂z is the slope, 1 where z > 0, else α (α at the kink too), so dz = da · slope.

    Example:
        >>> print(leaky_relu_backward(jnp.array([0.5, 1.0]), jnp.array([4.0, 4.0])))
        [2. 4.]
    """
    return da * slope


def squared_relu_forward(z: Activations) -> tuple[Activations, Activations]:
    """The squared rectified linear unit, a = max(0, z)². It overflows where z² does.

    Example:
        >>> print(squared_relu_forward(jnp.array([-1.0, 0.0, 3.0]))[0])
        [0. 0. 9.]

    Source:
        So, Mańke, Liu, Dai, Shazeer and Le, "Primer: searching for efficient transformers for language modeling", 2021.
    """
    z = floating_array("squared_relu", z)
    rectified = jnp.where(z <= 0, jnp.zeros_like(z), z)
    return rectified * rectified, rectified


def squared_relu_backward(rectified: Activations, da: Activations) -> Activations:
    """∂a/∂z = 2 max(0, z), so dz = da · 2 max(0, z). There is no kink: the slope is 0 at 0 from both sides.

    Example:
        >>> print(squared_relu_backward(jnp.array([0.0, 3.0]), jnp.array([1.0, 1.0])))
        [0. 6.]
    """
    return da * (2 * rectified)


def elu_forward(z: Activations) -> tuple[Activations, Activations]:
    """The exponential linear unit, a = z where z > 0, else eᶻ − 1.

    Example:
        >>> print(elu_forward(jnp.array([-1e4, 0.0, 2.0]))[0])
        [-1.  0.  2.]

    Source:
        Clevert, Unterthiner and Hochreiter, "Fast and accurate deep network learning by exponential linear units
        (ELUs)", 2016, with α = 1.
    """
    z = floating_array("elu", z)
    # Without this the exponential of a large z overflows in the other branch, and infinity times zero is NaN.
    below = jnp.where(z > 0, jnp.zeros_like(z), z)
    a = jnp.where(z > 0, z, jnp.expm1(below))
    return a, a


def elu_backward(a: Activations, da: Activations) -> Activations:
    """∂a/∂z = 1 where z > 0, else eᶻ = a + 1; both are 1 at 0. dz = da (1 + min(a, 0)).

    Example:
        >>> print(elu_backward(jnp.array([-0.5, 3.0]), jnp.array([1.0, 1.0])))
        [0.5 1. ]
    """
    return da * (1 + jnp.minimum(a, 0))


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
"""λ and α, for which activations of mean 0 and variance 1 keep them from layer to layer."""


def selu_forward(z: Activations) -> tuple[Activations, Activations]:
    """The scaled exponential linear unit, a = λ z where z > 0, else λ α (eᶻ − 1), with λ ≈ 1.0507 and α ≈ 1.6733.

    Example:
        >>> [f"{entry:.4f}" for entry in selu_forward(jnp.array([-1e4, 0.0, 2.0]))[0]]
        ['-1.7581', '0.0000', '2.1014']

    Source:
        Klambauer, Unterthiner, Mayr and Hochreiter, "Self-normalizing neural networks", 2017.
    """
    z = floating_array("selu", z)
    # Without this the exponential of a large z overflows in the other branch, and infinity times zero is NaN.
    below = jnp.where(z > 0, jnp.zeros_like(z), z)
    a = jnp.where(z > 0, SELU_SCALE * z, SELU_SCALE * SELU_ALPHA * jnp.expm1(below))
    return a, a


def selu_backward(a: Activations, da: Activations) -> Activations:
    """∂a/∂z = λ where z > 0, else λ α eᶻ = a + λ α (at the kink too), so dz = da times that.

    Example:
        >>> [f"{entry:.4f}" for entry in selu_backward(jnp.array([0.0, 3.0]), jnp.array([1.0, 1.0]))]
        ['1.7581', '1.0507']
    """
    return da * jnp.where(a > 0, jnp.full_like(a, SELU_SCALE), a + SELU_SCALE * SELU_ALPHA)


relu = activation_layer(relu_forward, relu_backward, rectifier("relu", (0.0, math.inf)))
squared_relu = activation_layer(squared_relu_forward, squared_relu_backward, rectifier("squared_relu", (0.0, math.inf)))
elu = activation_layer(elu_forward, elu_backward, rectifier("elu", (-1.0, math.inf)))
selu = activation_layer(
    selu_forward,
    selu_backward,
    LayerSpec(
        "selu",
        kernel_init=jax.nn.initializers.lecun_normal(),
        units="rectifying",
        output_range=(-SELU_SCALE * SELU_ALPHA, math.inf),
    ),
)


@memoised
def leaky_relu(alpha: float = 0.01) -> Layer:
    """Return the leaky rectified linear unit as a layer, a = z where z > 0, else α z.

    Args:
        alpha: α, the slope below zero, a Python number.

    Returns:
        The layer, without parameters or state.

    Raises:
        TypeError: alpha isn't a Python number.

    Example:
        >>> import jax.numpy as jnp
        >>> layer = leaky_relu(0.5)
        >>> print(layer.forward((), (), jnp.array([[-1.0, 2.0]]), train=False)[0])
        [[-0.5  2. ]]

    Source:
        Maas, Hannun and Ng 2013.
    """
    check_real("leaky_relu(alpha)", alpha)
    spec = rectifier("leaky_relu", settings=(("alpha", alpha),))
    return activation_layer(partial(leaky_relu_forward, alpha=alpha), leaky_relu_backward, spec)
