"""What every layer does at one step of training: how its outputs spread, and how the gradient comes through.

A monitored model is the model itself, its leaf layers wrapped so that each also returns figures of its own: the
forward pass keeps them with the residuals, the backward pass hands them out beside the parameters' gradients. So the
gradients and the figures come from one pass, and the combinators run the parts as they always do.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from funcnn._checks import check_callable, check_is_layer, check_is_loss, check_same_tree, check_scalar
from funcnn._memoise import memoised
from funcnn.backprop import manual_value_and_grad
from funcnn.layers.activations import elu, gelu, gelu_tanh, leaky_relu, relu, sigmoid, silu, softmax, softplus, tanh
from funcnn.layers.combinators import SkipParts, composition
from funcnn.layers.walk import in_order, replaced
from funcnn.types import GradFn, Layer, Loss, Params, Scalar, State

Family: TypeAlias = Literal["saturating", "rectifying", "other"]
"""What can go wrong with a layer's units: flat tails on both sides, a flat side, or neither."""

FLAT = 0.05
"""A unit is in its flat tail where |f′| is below this share of its maximum: |z| > 4.4 for sigmoid, 2.2 for tanh.

There a step has a twentieth of its usual effect, less than the change from one mini-batch to the next.
"""
DEAD = 1e-3
"""A rectifying unit passes nothing where |f′| is below this: 0 for ReLU, the far left of GELU, SiLU, ELU, softplus."""

# By their backward, which leaky ReLUs of every slope share; the largest slope of a saturating one.
_STEEPEST = {sigmoid.backward: 0.25, tanh.backward: 1.0, softmax.backward: 0.25}
_RECTIFYING = {layer.backward for layer in (relu, leaky_relu(), softplus, elu, gelu, gelu_tanh, silu)}


class LayerMeasures(NamedTuple):
    """Figures of every leaf layer at one step, in forward order; 0 where a figure doesn't apply.

    Fields:
        mean: of the layer's outputs y, over the batch and the units.
        spread: their standard deviation.
        saturated: the share of the outputs of sigmoid, tanh or softmax that lie in a flat tail, |f′| < 0.05 max |f′|.
        dead: the share of a rectifying layer's units that pass no gradient for any sample of the batch.
        cotangent: the root mean square of the entries of ∂L/∂y.
        relative_cotangent: that, over the last layer's.
        gradient_norm: the norm of the gradient by the layer's parameters.
        parameter_norm: the norm of the parameters.
    """

    mean: Float[Array, "*layers"]
    spread: Float[Array, "*layers"]
    saturated: Float[Array, "*layers"]
    dead: Float[Array, "*layers"]
    cotangent: Float[Array, "*layers"]
    relative_cotangent: Float[Array, "*layers"]
    gradient_norm: Float[Array, "*layers"]
    parameter_norm: Float[Array, "*layers"]


MonitoredGradFn: TypeAlias = Callable[..., tuple[tuple[Scalar, State], Params, LayerMeasures]]


class _Measured(NamedTuple):
    """What a wrapped layer returns in place of its parameters' gradients."""

    gradients: Params
    measures: LayerMeasures


@memoised
def monitored_value_and_grad(
    model: Layer, loss: Loss, grad: Callable[[Layer, Loss], GradFn] = manual_value_and_grad
) -> MonitoredGradFn:
    """One step's loss and gradients as ``grad(model, loss)`` gives them, and every layer's figures.

    With ``manual_value_and_grad`` both come from one pass. With any other gradient the hand-written passes run beside
    it, for the figures alone.

    Args:
        model: any layer; ``serial``, ``skip`` and ``repeat`` are looked into.
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
        >>> from funcnn.layers.walk import layer_names
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
    watched = _watched(model)

    def by_hand(params, state, batch, *, key=None):
        x, y = batch
        prediction, new_state, residuals = watched.forward(params, state, x, train=True, key=key)
        value, loss_residuals = loss.forward(prediction, y)
        check_scalar("monitored_value_and_grad(loss)", value)
        dprediction = loss.backward(loss_residuals, jnp.ones_like(value))
        measured, _ = watched.backward(residuals, dprediction)
        measures = in_order(model, measured, lambda leaf: leaf.measures)
        last = _root_mean_square(dprediction, measures.cotangent.dtype)
        relative = _ratio(measures.cotangent, jnp.broadcast_to(last, measures.cotangent.shape))
        return (value, new_state), _gradients(model, measured), measures._replace(relative_cotangent=relative)

    if grad is manual_value_and_grad:
        return by_hand
    value_and_grad = grad(model, loss)

    def beside(params, state, batch, *, key=None):
        value_and_state, grads = value_and_grad(params, state, batch, key=key)
        return value_and_state, grads, by_hand(params, state, batch, key=key)[2]

    return beside


def family_of(layer: Layer) -> Family:
    """Whether a layer's units can saturate or die, by its backward pass.

    Example:
        >>> family_of(sigmoid), family_of(relu)
        ('saturating', 'rectifying')
    """
    if layer.backward in _STEEPEST:
        return "saturating"
    return "rectifying" if layer.backward in _RECTIFYING else "other"


def update_ratios(model: Layer, updates: Params, params: Params) -> Float[Array, " layers"]:
    """‖u‖ / ‖θ‖ of every leaf layer: how far a step moves its parameters, as a share of them.

    About 10⁻³ is healthy: a layer that moves by 10⁻¹ a step forgets what it knew, one by 10⁻⁶ learns nothing.

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
    return _ratio(*(_norms(model, tree, leading=()) for tree in (updates, params)))


@memoised
def _watched(model: Layer) -> Layer:
    """The model with every leaf of it wrapped; it takes the same parameters and state."""
    return replaced(
        model,
        lambda leaf: Layer(leaf.init, partial(_watched_forward, leaf), partial(_watched_backward, leaf)),
    )  # fmt: skip


def _watched_forward(layer, params, state, x, *, train, key: PRNGKeyArray | None = None):
    y, new_state, residuals = layer.forward(params, state, x, train=train, key=key)
    wide = y.astype(_wide(y.dtype))
    nothing = jnp.zeros((), wide.dtype)
    measures = LayerMeasures(*[nothing] * len(LayerMeasures._fields))._replace(
        mean=wide.mean(), spread=wide.std(), parameter_norm=_tree_norm(params, wide.dtype)
    )
    if layer.backward in _STEEPEST:
        flat = FLAT * _STEEPEST[layer.backward]
        measures = measures._replace(saturated=_share(jnp.abs(_slopes(layer, residuals, y)) < flat, wide.dtype))
    elif layer.backward in _RECTIFYING:
        passes_nothing = (jnp.abs(_slopes(layer, residuals, y)) < DEAD).all(axis=0)
        measures = measures._replace(dead=_share(passes_nothing, wide.dtype))
    return y, new_state, (residuals, measures)


def _watched_backward(layer, kept, dy):
    residuals, measures = kept
    dparams, dx = layer.backward(residuals, dy)
    dtype = measures.mean.dtype
    gradient_norm = _tree_norm(dparams, dtype)
    measures = measures._replace(cotangent=_root_mean_square(dy, dtype), gradient_norm=gradient_norm)
    return _Measured(dparams, measures), dx


def _slopes(layer, residuals, y):
    """f′ at every entry; of softmax, whose Jacobian isn't diagonal, its diagonal."""
    if layer.backward == softmax.backward:
        return y * (1 - y)
    return layer.backward(residuals, jnp.ones_like(y))[1]


def _gradients(layer: Layer, measured) -> Params:
    """The gradients without the figures, in the structure of the layer's parameters."""
    made_of = composition(layer)
    if made_of is None:
        return measured.gradients
    if made_of.kind == "repeat":
        return _gradients(made_of.layers[0], measured)
    parts = [_gradients(part, inner) for part, inner in zip(made_of.layers, measured, strict=True)]
    return SkipParts(*parts) if made_of.kind == "skip" else tuple(parts)


def _norms(layer: Layer, tree, leading: tuple[int, ...]) -> Float[Array, "*leading layers"]:
    """The norms of all leaf layers' trees; ``leading`` are the repetitions around this one, each array's first axes."""
    made_of = composition(layer)
    if made_of is None:
        norm = partial(_tree_norm, dtype=_wide(jnp.result_type(float)))
        for _ in leading:
            norm = jax.vmap(norm)
        # Without parameters there is nothing to map over.
        return norm(tree)[..., None] if jax.tree.leaves(tree) else jnp.zeros((*leading, 1))
    if made_of.kind == "repeat":
        inside = _norms(made_of.layers[0], tree, (*leading, len(made_of.layers)))
        return inside.reshape(*leading, -1)
    parts = [_norms(part, inner, leading) for part, inner in zip(made_of.layers, tree, strict=True)]
    return jnp.concatenate(parts, axis=-1)


def _wide(dtype):
    return jnp.dtype(dtype) if jnp.finfo(dtype).bits > 32 else jnp.dtype(jnp.float32)


def _share(condition, dtype):
    return condition.astype(dtype).mean()


def _ratio(numerator, denominator):
    """The quotient, and 0 where the denominator is 0."""
    is_zero = denominator == 0
    return jnp.where(is_zero, jnp.zeros_like(numerator), numerator / jnp.where(is_zero, 1, denominator))


def _root_mean_square(array, dtype):
    wide = array.astype(dtype)
    return jnp.sqrt((wide * wide).mean())


def _tree_norm(tree, dtype):
    leaves = [leaf.astype(dtype) for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.sqrt(sum(((leaf * leaf).sum() for leaf in leaves), start=jnp.zeros((), dtype)))
