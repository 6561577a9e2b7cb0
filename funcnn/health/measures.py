"""Measures of every layer at one step of training: the spread of its outputs, and the size of the gradient.

A monitored model is the model with annotated leaf layers: the forward pass keeps each layer's measures with its
residuals, and the backward pass returns them beside the gradients of its parameters. The gradients and the measures
come from one pass.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from funcnn._checks import check_callable, check_is_layer, check_is_loss, check_scalar, checked_pair
from funcnn._memoise import memoised
from funcnn._tree_checks import check_same_tree
from funcnn.backprop import manual_value_and_grad
from funcnn.layers.annotation import annotated, values
from funcnn.layers.attention import attention_entropy
from funcnn.layers.traversal import figures_in_order, spec_of
from funcnn.types import GradFn, Layer, Loss, Params, Scalar, State

FLAT = 0.05
"""A unit is in a flat tail where |f′| is below this share of its maximum: |z| > 4.4 for sigmoid, 2.2 for tanh.

There a step has a twentieth of its usual effect, less than the change from one mini-batch to the next.
"""
DEAD = 1e-3
"""A rectifying unit passes no gradient where |f′| is below this: left of 0 for ReLU, far left for GELU and softplus."""


class LayerMeasures(NamedTuple):
    """Measures of every leaf layer at one step, in forward order; 0 where a measure doesn't apply.

    Fields:
        mean: of the layer's outputs y, over all entries.
        spread: their standard deviation.
        between_units: the standard deviation between a layer's units, features of its output, over all samples; 0 where
            all units are alike, and the spread where there is only one.
        saturated: the share of a saturating layer's outputs, or of a recurrent layer's gates, that lie in a flat tail,
            |f′| < 0.05 max |f′|.
        dead: the share of a rectifying layer's units, features of its output, that pass no gradient for any sample of
            the batch at any position.
        cotangent: the root mean square of the entries of ∂L/∂y.
        relative_cotangent: that, over the last layer's.
        gradient_norm: the norm of the gradient by the layer's parameters.
        parameter_norm: the norm of the parameters.
        attention_entropy: the mean entropy of a query's attention weights, in nats: 0 where each query sees one key
            alone, log n where it sees n keys equally. It is not measured in the blockwise form, which keeps no weights.
        growth_over_time: the largest root mean square of ∂L/∂x[t] over the steps t of a recurrent layer, over that of
            the last step whose ∂L/∂x[t] isn't 0.
    """

    mean: Float[Array, "*layers"]
    spread: Float[Array, "*layers"]
    between_units: Float[Array, "*layers"]
    saturated: Float[Array, "*layers"]
    dead: Float[Array, "*layers"]
    cotangent: Float[Array, "*layers"]
    relative_cotangent: Float[Array, "*layers"]
    gradient_norm: Float[Array, "*layers"]
    parameter_norm: Float[Array, "*layers"]
    attention_entropy: Float[Array, "*layers"] | float = 0.0
    growth_over_time: Float[Array, "*layers"] | float = 0.0


MonitoredGradFn: TypeAlias = Callable[..., tuple[tuple[Scalar, State], Params, LayerMeasures]]


@memoised
def monitored_value_and_grad(
    model: Layer, loss: Loss, grad: Callable[[Layer, Loss], GradFn] = manual_value_and_grad
) -> MonitoredGradFn:
    """Return a gradient function that also measures every layer.

    With ``manual_value_and_grad`` gradients and measures come from one pass. With any other gradient the hand-written
    passes run in addition, for the measures alone.

    Args:
        model: any layer; the layers inside combinators are measured one by one.
        loss: any loss.
        grad: ``manual_value_and_grad``, ``autodiff_value_and_grad``, or another ``(model, loss) -> GradFn``.

    Returns:
        ``(params, state, batch, *, key=None) -> ((loss, new_state), grads, measures)``, in training mode. The measures
        are ``LayerMeasures`` of arrays ``(layers,)`` in the order of ``layer_names(model)``, in the outputs' dtype or
        float32, whichever is wider. It works under ``jit``, ``vmap``, ``lax.scan`` and ``lax.cond``. To measure
        every n-th step of a scan, scan over blocks of a measured step and n − 1 others: ``lax.cond`` copies what its
        branches return, at every step.

    Raises:
        TypeError: model isn't a layer, loss isn't a loss, or grad isn't a function.
        ValueError, TypeError: from the returned function, as from ``grad(model, loss)``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from funcnn.layers.traversal import layer_names
        >>> from funcnn.losses import mean_squared_error
        >>> from funcnn.models import mlp
        >>> model = mlp((2, 3, 1))
        >>> params, state = model.init(jax.random.key(0))
        >>> batch = (jnp.ones((4, 2)), jnp.zeros((4, 1)))
        >>> step = jax.jit(monitored_value_and_grad(model, mean_squared_error))
        >>> (value, state), grads, measures = step(params, state, batch)
        >>> measures.spread.shape, layer_names(model)
        ((3,), ('layers[0] linear', 'layers[1] relu', 'layers[2] linear'))
    """
    check_is_layer("monitored_value_and_grad(model)", model)
    check_is_loss("monitored_value_and_grad(loss)", loss)
    check_callable("monitored_value_and_grad(grad)", grad, "Pass manual_value_and_grad or autodiff_value_and_grad.")
    monitored = _monitored(model)

    def by_hand(params, state, batch, *, key=None):
        x, y = checked_pair("monitored_value_and_grad(batch)", batch)
        prediction, new_state, residuals = monitored.forward(params, state, x, train=True, key=key)
        value, loss_residuals = loss.forward(prediction, y)
        check_scalar("monitored_value_and_grad(loss)", value)
        dprediction = loss.backward(loss_residuals, jnp.ones_like(value))
        gradients, _ = monitored.backward(residuals, dprediction)
        measures = figures_in_order(lambda leaf: leaf.note, model, gradients)
        last = _root_mean_square(dprediction, measures.cotangent.dtype)
        relative = _ratio(measures.cotangent, jnp.broadcast_to(last, measures.cotangent.shape))
        return (value, new_state), values(gradients), measures._replace(relative_cotangent=relative)

    if grad is manual_value_and_grad:
        return by_hand
    value_and_grad = grad(model, loss)

    def beside(params, state, batch, *, key=None):
        value_and_state, grads = value_and_grad(params, state, batch, key=key)
        return value_and_state, grads, by_hand(params, state, batch, key=key)[2]

    return beside


def update_ratios(model: Layer, updates: Params, params: Params) -> Float[Array, " layers"]:
    """Return ‖u‖ / ‖θ‖ of every leaf layer, the size of a step relative to the parameters.

    About 10⁻³ is usual. At 10⁻¹ ten steps replace the parameters; at 10⁻⁶ they hardly change.

    Args:
        model: the layer whose parameters they are.
        updates: what the optimizer adds to the parameters, of their structure.
        params: the parameters before the update.

    Returns:
        The ratios, in the order of ``layer_names(model)``; 0 where a layer has no parameters or they are all zero.

    Raises:
        ValueError: updates of another structure or shapes than the parameters.

    Example:
        >>> import jax
        >>> from funcnn.models import mlp
        >>> model = mlp((2, 3, 1))
        >>> params, _ = model.init(jax.random.key(0))
        >>> print(update_ratios(model, jax.tree.map(lambda leaf: 0.5 * leaf, params), params))
        [0.5 0.  0.5]
    """
    check_same_tree("update_ratios(updates)", updates, params, "the parameters", dtypes=False)
    norm = partial(_tree_norm, dtype=_wide(jnp.result_type(float)))
    return _ratio(*(figures_in_order(norm, model, tree) for tree in (updates, params)))


@memoised
def _monitored(model: Layer) -> Layer:
    """Return the model with the measures of every leaf layer as notes."""
    return annotated(model, _forward_measures, _backward_measures)


def _forward_measures(layer, params, residuals, y) -> LayerMeasures:
    wide = y.astype(_wide(y.dtype))
    nothing = jnp.zeros((), wide.dtype)
    measures = LayerMeasures(*[nothing] * len(LayerMeasures._fields))._replace(
        mean=wide.mean(), spread=wide.std(), between_units=_between_units(wide),
        parameter_norm=_tree_norm(params, wide.dtype),
    )  # fmt: skip
    spec = spec_of(layer)
    if spec.units == "saturating":
        is_flat = jnp.abs(_slopes(layer, residuals, y)) < FLAT * spec.steepest
        measures = measures._replace(saturated=_share(is_flat, wide.dtype))
    elif spec.units == "rectifying":
        passes_nothing = (jnp.abs(_slopes(layer, residuals, y)) < DEAD).all(axis=tuple(range(y.ndim - 1)))
        measures = measures._replace(dead=_share(passes_nothing, wide.dtype))
    if spec.attention_weights is not None:
        entropy = attention_entropy(spec.attention_weights(residuals).astype(wide.dtype)).mean()
        measures = measures._replace(attention_entropy=entropy)
    return measures


def _between_units(y):
    if y.ndim < 2 or y.shape[-1] == 1:
        return y.std()
    return jnp.sqrt(y.var(axis=-1).mean())


def _backward_measures(layer, measures, dparams, dy, dx) -> LayerMeasures:
    dtype = measures.mean.dtype
    measures = measures._replace(cotangent=_root_mean_square(dy, dtype), gradient_norm=_tree_norm(dparams, dtype))
    if spec_of(layer).is_recurrent and dx is not None:
        measures = measures._replace(growth_over_time=_growth_over_time(dx.astype(dtype)))
    return measures


def _growth_over_time(dx):
    """Return the largest root mean square of a step's dx over that of the last step that has any."""
    by_step = jnp.moveaxis(dx, -2, 0).reshape(dx.shape[-2], -1)
    sizes = jnp.sqrt((by_step * by_step).mean(axis=1))
    last = len(sizes) - 1 - jnp.argmax(sizes[::-1] != 0)
    return _ratio(sizes.max(), sizes[last])


def _slopes(layer, residuals, y):
    """Return f′ at every entry of the output."""
    slope = spec_of(layer).slope
    return layer.backward(residuals, jnp.ones_like(y))[1] if slope is None else slope(residuals, y)


def _wide(dtype):
    return jnp.dtype(dtype) if jnp.finfo(dtype).bits > 32 else jnp.dtype(jnp.float32)


def _share(condition, dtype):
    return condition.astype(dtype).mean()


def _ratio(numerator, denominator):
    """Return the quotient, and 0 where the denominator is 0."""
    is_zero = denominator == 0
    return jnp.where(is_zero, jnp.zeros_like(numerator), numerator / jnp.where(is_zero, 1, denominator))


def _root_mean_square(array, dtype):
    wide = array.astype(dtype)
    return jnp.sqrt((wide * wide).mean())


def _tree_norm(tree, dtype):
    leaves = [leaf.astype(dtype) for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.sqrt(sum(((leaf * leaf).sum() for leaf in leaves), start=jnp.zeros((), dtype)))
