"""The gradient of a model's loss by the hand-written backward passes, and by ``jax.grad`` as their oracle.

Both functions take the same arguments and return the same tree in the same order.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from funcnn._checks import check_is_layer, check_is_loss, check_scalar, checked_pair
from funcnn._memoise import memoised
from funcnn.types import GradFn, Layer, Loss


@memoised
def manual_value_and_grad(model: Layer, loss: Loss) -> GradFn:
    """Return a function that computes loss and gradients by the hand-written backward passes.

    Backpropagation: forward keeps the residuals; the loss's backward computes ∂L/∂prediction; the model's backward
    computes from it the gradient of every parameter.

    Args:
        model: any layer.
        loss: any loss.

    Returns:
        ``(params, state, batch, *, key=None) -> ((loss, new_state), grads)``, in training mode. ``grads`` has the
        structure, shapes and dtypes of ``params``. It works under ``jit``, ``vmap`` and ``lax.scan``.

    Raises:
        TypeError: model isn't a layer, or loss isn't a loss.
        ValueError, TypeError: from the returned function, while it is traced: features or targets that don't fit the
            model or the loss, a loss that isn't a scalar.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from funcnn.losses import mean_squared_error
        >>> from funcnn.models import mlp
        >>> model = mlp((2, 3, 1))
        >>> params, state = model.init(jax.random.key(0))
        >>> batch = (jnp.ones((4, 2)), jnp.zeros((4, 1)))
        >>> (value, state), grads = manual_value_and_grad(model, mean_squared_error)(params, state, batch)
        >>> jax.tree.structure(grads) == jax.tree.structure(params)
        True

    Source:
        Rumelhart, Hinton and Williams 1986.
    """
    check_is_layer("manual_value_and_grad(model)", model)
    check_is_loss("manual_value_and_grad(loss)", loss)

    def value_and_grad(params, state, batch, *, key=None):
        x, y = checked_pair("manual_value_and_grad(batch)", batch)
        prediction, new_state, residuals = model.forward(params, state, x, train=True, key=key)
        value, loss_residuals = loss.forward(prediction, y)
        check_scalar("manual_value_and_grad(loss)", value)
        dprediction = loss.backward(loss_residuals, jnp.ones_like(value))
        grads, _ = model.backward(residuals, dprediction)
        return (value, new_state), grads

    return value_and_grad


@memoised
def autodiff_value_and_grad(model: Layer, loss: Loss) -> GradFn:
    """Return a function that computes loss and gradients by ``jax.value_and_grad`` over the same forward passes.

    Args:
        model: any layer.
        loss: any loss.

    Returns:
        ``(params, state, batch, *, key=None) -> ((loss, new_state), grads)``, in training mode.

    Raises:
        ValueError, TypeError: as ``manual_value_and_grad``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from funcnn.losses import mean_squared_error
        >>> from funcnn.models import perceptron
        >>> model = perceptron(2)
        >>> params, state = model.init(jax.random.key(0))
        >>> batch = (jnp.ones((4, 2)), jnp.zeros((4, 1)))
        >>> (value, state), grads = autodiff_value_and_grad(model, mean_squared_error)(params, state, batch)
        >>> grads[0].kernel.shape
        (2, 1)
    """
    check_is_layer("autodiff_value_and_grad(model)", model)
    check_is_loss("autodiff_value_and_grad(loss)", loss)

    def value_and_state(params, state, batch, key):
        x, y = checked_pair("autodiff_value_and_grad(batch)", batch)
        prediction, new_state, _ = model.forward(params, state, x, train=True, key=key)
        value, _ = loss.forward(prediction, y)
        check_scalar("autodiff_value_and_grad(loss)", value)
        return value, new_state

    def value_and_grad(params, state, batch, *, key=None):
        return jax.value_and_grad(value_and_state, has_aux=True)(params, state, batch, key)

    return value_and_grad


@memoised
def as_custom_vjp(layer: Layer) -> Callable:
    """Return the layer as a function that ``jax.grad`` differentiates by the layer's hand-written backward pass.

    It makes the backward passes available in other JAX code. funcnn never calls it on a forward that it checks, so that
    autodiff stays independent of the hand-written gradients.

    Args:
        layer: any layer.

    Returns:
        ``(params, state, x, *, train, key=None) -> (y, new_state)``, registered with ``jax.custom_vjp``: reverse mode
        only, and nothing flows back through the state.

    Raises:
        ValueError, TypeError: from the returned function, as from the layer's forward.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from funcnn.layers.activations import sigmoid
        >>> apply = as_custom_vjp(sigmoid)
        >>> print(jax.grad(lambda z: apply((), (), z, train=True)[0].sum())(jnp.zeros((1, 1))))
        [[0.25]]
    """
    check_is_layer("as_custom_vjp(layer)", layer)

    @partial(jax.custom_vjp, nondiff_argnums=(0,))
    def apply(train, params, state, x, key):
        y, new_state, _ = layer.forward(params, state, x, train=train, key=key)
        return y, new_state

    def forward(train, params, state, x, key):
        y, new_state, residuals = layer.forward(params, state, x, train=train, key=key)
        return (y, new_state), residuals

    def backward(train, residuals, cotangents):
        dparams, dx = layer.backward(residuals, cotangents[0])
        return dparams, None, dx, None

    apply.defvjp(forward, backward)

    def layer_function(params, state, x, *, train, key=None):
        return apply(train, params, state, x, key)

    return layer_function
