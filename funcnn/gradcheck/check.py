"""The questions one can ask: is this function's gradient right, this layer's, this model's?"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, PRNGKeyArray, PyTree

from funcnn._checks import (
    check_is_layer,
    check_key,
    check_same_structure,
    check_same_tree,
    describe,
    feature_array,
    is_concrete,
    numeric_array,
)
from funcnn.backprop import autodiff_value_and_grad, manual_value_and_grad
from funcnn.gradcheck.comparison import compare_gradients
from funcnn.gradcheck.precision import evaluated, in_double_precision
from funcnn.gradcheck.report import GradientReport
from funcnn.types import Batch, Layer, Loss, Params, State


class LayerArguments(NamedTuple):
    """What a layer is differentiated by."""

    params: Params
    x: Array


def check_gradients(
    loss_fn: Callable[..., Any], grad_fn: Callable[..., PyTree], params: PyTree, *args: Any
) -> GradientReport:
    """Compare a gradient written by hand with ``jax.grad``, for every parameter.

    The values are compared in float64 whatever the parameters' dtype: both functions get float64 copies of their
    floating arguments (other arguments pass untouched), and the caller's configuration is the same afterwards. Shapes
    and dtypes are those that ``grad_fn`` returns for the parameters as they are. Where a function can't take float64,
    or is another function there (JAX draws other random numbers in 64 bits), the values are compared in the parameters'
    dtype, and the diagnosis says so. Matrix products run at the highest precision that the device has. Call it outside
    ``jit`` and ``vmap``.

    Args:
        loss_fn: ``(params, *args) -> scalar``.
        grad_fn: ``(params, *args) -> gradients``, a tree like ``params``.
        params: any pytree of floating arrays.
        args: passed on to both.

    Returns:
        A report with a row for each parameter: its path, shape and dtype, the largest absolute and relative difference,
        the tolerance, and the cause where it is wrong. Complex parameters follow JAX's convention, in which the
        gradient of |z|² is twice the conjugate of z.

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
    params = _floating_params(params)
    value = jax.eval_shape(lambda params: loss_fn(params, *args), params)
    if getattr(value, "shape", None) != ():
        raise ValueError(
            f"check_gradients(loss_fn): expected a function that returns a scalar, got {value}. "
            "Take the mean or the sum of the losses of the samples."
        )
    with jax.default_matmul_precision("highest"):
        own = evaluated(loss_fn, grad_fn, (params, *args))
        check_same_structure("check_gradients(grad_fn)", own.by_hand, params, "the parameters")
        judged, why = in_double_precision(loss_fn, grad_fn, (params, *args), own)
    report = compare_gradients(judged, own, params=params)
    return report._replace(diagnosis=f"{report.diagnosis}\n{why}") if why else report


def _floating_params(params):
    params = jax.tree.map(lambda leaf: numeric_array("check_gradients(params)", leaf), params)
    if not is_concrete(*jax.tree.leaves(params)):
        raise TypeError("check_gradients(params): expected arrays, got tracers. Call it outside jit, vmap and grad.")
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            raise TypeError(
                f"check_gradients(params): expected floating parameters, got {describe(leaf)} "
                f"at {jax.tree_util.keystr(path) or 'the root'}. Pass what isn't differentiated as a further argument."
            )
    return params


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
    check_is_layer("check_layer(layer)", layer)
    x = feature_array("check_layer(x)", x)
    key = jax.random.key(0) if key is None else key
    check_key("check_layer(key)", key)
    init_key, cotangent_key, layer_key = jax.random.split(key, 3)
    params, state = _moved_init(layer, init_key, x.dtype)
    y = layer.forward(params, state, x, train=train, key=layer_key)[0]
    dy = jax.random.normal(cotangent_key, y.shape, y.dtype)

    def projection(arguments, state, dy, key):
        return (layer.forward(arguments.params, state, arguments.x, train=train, key=key)[0] * dy).sum()

    def by_hand(arguments, state, dy, key):
        residuals = layer.forward(arguments.params, state, arguments.x, train=train, key=key)[2]
        return LayerArguments(*layer.backward(residuals, dy))

    return check_gradients(projection, by_hand, LayerArguments(params, x), state, dy, layer_key)


def check_model(
    model: Layer,
    loss: Loss,
    batch: Batch | tuple[ArrayLike, ArrayLike],
    *,
    key: PRNGKeyArray | None = None,
    params: Params | None = None,
    state: State | None = None,
) -> GradientReport:
    """Compare ``manual_value_and_grad`` of a model and a loss with ``jax.grad``, for every parameter.

    Args:
        model: any layer.
        loss: any loss.
        batch: ``Batch(x, y)`` or ``(x, y)``; drawn parameters are cast to x's dtype.
        key: random key for the parameters and dropout; ``None`` for ``jax.random.key(0)``.
        params: the parameters to check at; ``None`` draws them and moves them a little at random, for zeros and ones
            hide mistakes.
        state: the running statistics; ``None`` for the initial ones.

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
    batch = Batch(feature_array("check_model(batch): x", batch[0]), numeric_array("check_model(batch): y", batch[1]))
    by_autodiff, by_hand = autodiff_value_and_grad(model, loss), manual_value_and_grad(model, loss)
    key = jax.random.key(0) if key is None else key
    check_key("check_model(key)", key)
    init_key, step_key = jax.random.split(key)
    drawn_params, drawn_state = _moved_init(model, init_key, batch.x.dtype)
    params = drawn_params if params is None else params
    state = drawn_state if state is None else state
    check_same_tree("check_model(params)", params, drawn_params, "what the model's init returns", dtypes=False)

    def value(params, state, batch, key):
        return by_autodiff(params, state, batch, key=key)[0][0]

    def gradient(params, state, batch, key):
        return by_hand(params, state, batch, key=key)[1]

    return check_gradients(value, gradient, params, state, batch, step_key)


def _moved_init(layer, key, dtype):
    """Parameters and state of a layer, floating ones in ``dtype``, every parameter moved off its initial value."""
    init_key, move_key = jax.random.split(key)
    params, state = layer.init(init_key)
    leaves, structure = jax.tree.flatten(params)
    moved = [
        leaf.astype(dtype) + jax.random.normal(jax.random.fold_in(move_key, number), leaf.shape, dtype) / 10
        if jnp.issubdtype(leaf.dtype, jnp.floating)
        else leaf
        for number, leaf in enumerate(map(jnp.asarray, leaves))
    ]
    return jax.tree.unflatten(structure, moved), jax.tree.map(
        lambda leaf: jnp.asarray(leaf, dtype) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) else leaf, state
    )
