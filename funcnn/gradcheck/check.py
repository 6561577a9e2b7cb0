"""The questions one can ask: is this function's gradient right, this layer's, this model's?"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, PRNGKeyArray, PyTree

from funcnn._checks import describe, feature_array
from funcnn.backprop import autodiff_value_and_grad, manual_value_and_grad
from funcnn.gradcheck.comparison import compare_gradients
from funcnn.gradcheck.report import GradientReport
from funcnn.types import Batch, Layer, Loss, Params


class LayerArguments(NamedTuple):
    """What a layer is differentiated by."""

    params: Params
    x: Array


def check_gradients(
    loss_fn: Callable[..., Any], grad_fn: Callable[..., PyTree], params: PyTree, *args: Any
) -> GradientReport:
    """Compare a gradient written by hand with ``jax.grad``, for every parameter.

    Both are run at the highest precision of matrix products that the device has.

    Args:
        loss_fn: ``(params, *args) -> scalar``.
        grad_fn: ``(params, *args) -> gradients``, a tree like ``params``.
        params: any pytree of floating arrays.
        args: passed on to both.

    Returns:
        A report with a row for each parameter: its path, shape and dtype, the largest absolute and relative difference,
        the tolerance, and the cause where it is wrong.

    Raises:
        TypeError: a parameter isn't floating.
        ValueError: the loss isn't a scalar, or the gradient has another tree structure than the parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> def loss(w, x, y):
        ...     return ((x @ w - y) ** 2).mean()
        >>> def gradient(w, x, y):
        ...     return x.T @ (x @ w - y) / len(y)
        >>> report = check_gradients(loss, gradient, jnp.ones(2), jnp.array([[1.0, 2.0], [3.0, 5.0]]), jnp.ones(2))
        >>> report.ok, report.leaves[0].cause
        (False, 'scaled')
        >>> print(report.diagnosis)
        The gradient by hand is wrong in 1 of 1 leaf.
        the root: scaled: 1/2 of autodiff's gradient; the derivative of a square brings a factor 2: was it left out?
    """
    params = jax.tree.map(jnp.asarray, params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            raise TypeError(
                f"check_gradients(params): expected floating parameters, got {describe(leaf)} "
                f"at {jax.tree_util.keystr(path) or 'the root'}. Pass what isn't differentiated as a further argument."
            )
    value = jax.eval_shape(loss_fn, params, *args)
    if getattr(value, "shape", None) != ():
        raise ValueError(
            f"check_gradients(loss_fn): expected a function that returns a scalar, got {value}. "
            "Take the mean or the sum of the losses of the samples."
        )
    with jax.default_matmul_precision("highest"):
        by_autodiff = jax.grad(loss_fn)(params, *args)
        by_hand = grad_fn(params, *args)
    return compare_gradients(by_hand, by_autodiff)


def assert_gradients(loss_fn: Callable[..., Any], grad_fn: Callable[..., PyTree], params: PyTree, *args: Any) -> None:
    """``check_gradients`` for a test: silent where the gradient is right.

    Args:
        loss_fn, grad_fn, params, args: as for ``check_gradients``.

    Raises:
        AssertionError: the gradient is wrong; the message is the report.
        TypeError, ValueError: as ``check_gradients``.

    Example:
        >>> import jax.numpy as jnp
        >>> assert_gradients(lambda w: (w**2).sum(), lambda w: 2 * w, jnp.array([1.0, -3.0]))
    """
    report = check_gradients(loss_fn, grad_fn, params, *args)
    if not report.ok:
        raise AssertionError(f"wrong gradient\n{report}")


def check_layer(layer: Layer, x: ArrayLike, *, train: bool = True, key: PRNGKeyArray | None = None) -> GradientReport:
    """Compare a layer's backward with ``jax.vjp`` of its forward, for a random cotangent.

    The parameters are drawn by ``init`` and then moved a little at random, for zeros and ones hide mistakes.

    Args:
        layer: any layer.
        x: its input, ``(batch, ...)``, floating; the parameters are cast to its dtype.
        train: the mode of the forward pass.
        key: random key for the parameters, the cotangent and dropout; ``None`` for ``jax.random.key(0)``.

    Returns:
        A report with a row for x and for each parameter.

    Raises:
        TypeError, ValueError: x doesn't fit the layer, or backward returns another tree structure.

    Example:
        >>> import jax.numpy as jnp
        >>> from funcnn.layers.activations import tanh
        >>> check_layer(tanh, jnp.array([[-1.0, 0.5]])).ok
        True
    """
    x = feature_array("check_layer(x)", x)
    init_key, cotangent_key, layer_key = jax.random.split(jax.random.key(0) if key is None else key, 3)
    params, state = _moved_init(layer, init_key, x.dtype)

    def forward(arguments):
        return layer.forward(arguments.params, state, arguments.x, train=train, key=layer_key)

    y, _, _ = forward(LayerArguments(params, x))
    dy = jax.random.normal(cotangent_key, y.shape, y.dtype)

    def projection(arguments):
        return (forward(arguments)[0] * dy).sum()

    def by_hand(arguments):
        return LayerArguments(*layer.backward(forward(arguments)[2], dy))

    return check_gradients(projection, by_hand, LayerArguments(params, x))


def check_model(
    model: Layer, loss: Loss, batch: Batch | tuple[ArrayLike, ArrayLike], *, key: PRNGKeyArray | None = None
) -> GradientReport:
    """Compare ``manual_value_and_grad`` of a model and a loss with ``jax.grad``, for every parameter.

    Args:
        model: any layer.
        loss: any loss.
        batch: ``Batch(x, y)`` or ``(x, y)``; the parameters are cast to x's dtype.
        key: random key for the parameters and dropout; ``None`` for ``jax.random.key(0)``.

    Returns:
        A report with a row for each parameter.

    Raises:
        TypeError, ValueError: the batch doesn't fit the model or the loss.

    Example:
        >>> import jax.numpy as jnp
        >>> from funcnn.losses import softmax_cross_entropy
        >>> from funcnn.models import mlp
        >>> print(check_model(mlp((2, 4, 3)), softmax_cross_entropy, (jnp.eye(2), jnp.array([0, 2]))).ok)
        True
    """
    batch = Batch(feature_array("check_model(batch): x", batch[0]), jnp.asarray(batch[1]))
    init_key, step_key = jax.random.split(jax.random.key(0) if key is None else key)
    params, state = _moved_init(model, init_key, batch.x.dtype)

    def value(params):
        return autodiff_value_and_grad(model, loss)(params, state, batch, key=step_key)[0][0]

    def by_hand(params):
        return manual_value_and_grad(model, loss)(params, state, batch, key=step_key)[1]

    return check_gradients(value, by_hand, params)


def _moved_init(layer, key, dtype):
    """Parameters and state of a layer in ``dtype``, with every parameter moved off its initial value."""
    init_key, move_key = jax.random.split(key)
    params, state = layer.init(init_key)
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(move_key, max(len(leaves), 1))
    moved = [
        leaf.astype(dtype) + jax.random.normal(leaf_key, leaf.shape, dtype) / 10
        for leaf, leaf_key in zip(leaves, keys, strict=False)
    ]
    return jax.tree.unflatten(structure, moved), jax.tree.map(lambda leaf: leaf.astype(dtype), state)
