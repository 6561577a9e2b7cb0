"""Inverted dropout."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from funcnn._checks import check_real, checked_bool, feature_array, floating_array
from funcnn._memoise import memoised
from funcnn.layers.activation_layer import no_params
from funcnn.types import Layer, LayerSpec


class DropoutResiduals(NamedTuple):
    """Residuals of training: 1/(1 − rate) where an entry is kept, 0 where it is dropped."""

    multiplier: Float[Array, "..."]


class NothingDroppedResiduals(NamedTuple):
    """Residuals of prediction, where dropout is the identity."""


def dropout_forward(
    key: PRNGKeyArray, x: Float[Array, "..."], rate: float
) -> tuple[Float[Array, "..."], DropoutResiduals]:
    """Drop entries at random: y = x m/(1 − rate), m ~ Bernoulli(1 − rate), independently for every entry.

    The division keeps the expectation, E[y] = x, so that prediction uses the network unchanged (*inverted* dropout).

    Args:
        key: random key.
        x: activations of any shape, floating.
        rate: the probability to drop an entry, in [0, 1).

    Returns:
        y, of x's shape and dtype, and the residuals.

    Raises:
        ValueError, TypeError: rate isn't a Python number in [0, 1); x isn't floating.

    Example:
        >>> import jax
        >>> y, _ = dropout_forward(jax.random.key(0), jax.numpy.ones(1000), 0.5)
        >>> print(jax.numpy.unique(y), bool(abs(y.mean() - 1) < 0.1))
        [0. 2.] True

    Source:
        Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout: a simple way to prevent neural networks
        from overfitting", 2014, section 10 for the inverted form.
    """
    check_rate("dropout(rate)", rate)
    x = floating_array(f"dropout({rate})", x)
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    multiplier = jnp.where(kept, jnp.full_like(x, 1 / (1 - rate)), jnp.zeros_like(x))
    return x * multiplier, DropoutResiduals(multiplier)


def dropout_backward(
    residuals: DropoutResiduals | NothingDroppedResiduals, dy: Float[Array, "..."]
) -> Float[Array, "..."]:
    """dx = dy · multiplier, for y = x · multiplier with a multiplier that doesn't depend on x.

    Args:
        residuals: from ``dropout_forward``, or those of prediction, where dx = dy.
        dy: cotangent of y.

    Returns:
        dx, of dy's shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from funcnn.layers.dropout import DropoutResiduals
        >>> print(dropout_backward(DropoutResiduals(jnp.array([2.0, 0.0])), jnp.array([3.0, 3.0])))
        [6. 0.]

    Source:
        Srivastava et al. 2014, section 10.
    """
    if isinstance(residuals, NothingDroppedResiduals):
        return dy
    return dy * residuals.multiplier


def check_rate(name: str, rate: Any) -> None:
    """Raise where a rate of dropout isn't a Python number in [0, 1)."""
    check_real(name, rate)
    if not 0 <= rate < 1:
        raise ValueError(
            f"{name}: expected the probability to drop, in [0, 1), got {rate}. To keep nine in ten, the rate is 0.1."
        )


def _dropout_layer_forward(params, state, x, *, train, key=None, rate):
    x = feature_array(f"dropout({rate})", x)
    if not checked_bool(f"dropout({rate}): train", train) or rate == 0:
        return x, state, NothingDroppedResiduals()
    if key is None:
        raise ValueError(
            f"dropout({rate}): expected a random key while training, got key=None. Pass one with the call: "
            "forward(params, state, x, train=True, key=jax.random.key(0)), and a new one at every step."
        )
    y, residuals = dropout_forward(key, x, rate)
    return y, state, residuals


def _dropout_layer_backward(residuals, dy):
    return (), dropout_backward(residuals, dy)


@memoised
def dropout(rate: float) -> Layer:
    """Inverted dropout: in training every entry is dropped with probability ``rate``; in prediction none is.

    With a mask m that is 0 with the probability r, the rate, and 1 otherwise::

        y = m x/(1 − r)

    Args:
        rate: the probability to drop, in [0, 1).

    Returns:
        The layer, without parameters or state. Its forward needs a key in training.

    Raises:
        ValueError, TypeError: rate isn't a Python number in [0, 1).

    Example:
        >>> import jax
        >>> layer = dropout(0.5)
        >>> x = jax.numpy.ones((1, 4))
        >>> y, _, residuals = layer.forward((), (), x, train=True, key=jax.random.key(0))
        >>> print(bool((layer.backward(residuals, x)[1] == y).all()))
        True

    Source:
        Srivastava et al. 2014.
    """
    check_rate("dropout(rate)", rate)
    spec = LayerSpec("dropout", settings=(("rate", rate),), drop_rate=rate, decoding="alone")
    return Layer(no_params, partial(_dropout_layer_forward, rate=rate), _dropout_layer_backward, spec)
