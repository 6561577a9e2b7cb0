"""Activation functions: each forward pass with its backward pass below it.

Every plain pair has one form. Forward takes the pre-activations z, of any shape (for softmax ``(..., classes)``),
floating, and returns the activations a, of z's shape and dtype, and the residuals. It raises a ``TypeError`` where z
isn't floating. Backward takes the residuals and ``da``, the cotangent of a, and returns ``dz``, of da's shape.

All but softmax act entry by entry, so their Jacobian is diagonal and the backward pass is a product: dz = da f′(z).
The residual is the one from which f′ is cheapest: the output a where f′ is a function of it (the next layer keeps that
array anyway), the input z otherwise. Every form is finite at any finite z, in value and in gradient.
"""

import math
from functools import partial
from typing import TypeAlias

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from funcnn._checks import check_real, floating_array
from funcnn._memoise import memoised
from funcnn._small_matmul import small_max, small_sum
from funcnn.layers.activation_layer import activation_layer
from funcnn.layers.initializers import he
from funcnn.types import Layer, LayerSpec

Activations: TypeAlias = Float[Array, "..."]


def _rectifier(name: str, output_range: tuple[float, float] = (-math.inf, math.inf), settings=()) -> LayerSpec:
    """The spec of an activation that is flat on one side."""
    return LayerSpec(name, settings, kernel_init=he, units="rectifying", output_range=output_range)


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

    From a = (1 + e⁻ᶻ)⁻¹: ∂a/∂z = e⁻ᶻ (1 + e⁻ᶻ)⁻² = a · e⁻ᶻ/(1 + e⁻ᶻ) = a (1 − a). At most ¼, at z = 0.

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


def softplus_forward(z: Activations) -> tuple[Activations, Activations]:
    """A smooth rectifier, a = log(1 + eᶻ), computed as max(z, 0) + log(1 + e^−|z|), which never overflows.

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

        ∂a/∂z = (1 + tanh u)/2 + z (1 − tanh² u)/2 · ∂u/∂z,    ∂u/∂z = √(2/π) (1 + 3 · 0.044715 z²)

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


def softmax_forward(z: Float[Array, "... classes"]) -> tuple[Float[Array, "... classes"], Float[Array, "... classes"]]:
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


def softmax_backward(a: Float[Array, "... classes"], da: Float[Array, "... classes"]) -> Float[Array, "... classes"]:
    """The whole Jacobian-vector product: every output depends on every score.

    ∂aᵢ/∂zⱼ = aᵢ (1[i = j] − aⱼ) by the quotient rule, so::

        ∂L/∂zⱼ = Σᵢ daᵢ aᵢ (1[i = j] − aⱼ) = aⱼ (daⱼ − Σᵢ daᵢ aᵢ)

    Example:
        >>> print(softmax_backward(jnp.array([0.5, 0.5]), jnp.array([1.0, 0.0])))
        [ 0.25 -0.25]
    """
    return a * (da - (da * a).sum(axis=-1, keepdims=True))


identity = activation_layer(identity_forward, identity_backward, LayerSpec("identity"))
sigmoid = activation_layer(
    sigmoid_forward,
    sigmoid_backward,
    LayerSpec("sigmoid", units="saturating", steepest=0.25, output_range=(0.0, 1.0)),
)
tanh = activation_layer(tanh_forward, tanh_backward, LayerSpec("tanh", units="saturating", output_range=(-1.0, 1.0)))
relu = activation_layer(relu_forward, relu_backward, _rectifier("relu", (0.0, math.inf)))
softplus = activation_layer(softplus_forward, softplus_backward, _rectifier("softplus", (0.0, math.inf)))
elu = activation_layer(elu_forward, elu_backward, _rectifier("elu", (-1.0, math.inf)))
gelu = activation_layer(gelu_forward, gelu_backward, _rectifier("gelu", (-0.17, math.inf)))
gelu_tanh = activation_layer(gelu_tanh_forward, gelu_tanh_backward, _rectifier("gelu_tanh", (-0.1701, math.inf)))
silu = activation_layer(silu_forward, silu_backward, _rectifier("silu", (-0.2785, math.inf)))
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
    spec = _rectifier("leaky_relu", settings=(("alpha", alpha),))
    return activation_layer(partial(leaky_relu_forward, alpha=alpha), leaky_relu_backward, spec)
