"""Checks of a layer's backward pass, and of a model's, layer by layer."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, PRNGKeyArray

from funcnn._checks import (
    check_is_layer,
    check_is_loss,
    check_key,
    checked_bool,
    checked_pair,
    errors_of,
    numeric_array,
)
from funcnn._memoise import memoised
from funcnn._numerics.drawing import draw_by_numpy, numpy_generator
from funcnn._numerics.program import compile_calls
from funcnn._tree_checks import check_same_tree, describe_tree, same_structure
from funcnn.backprop import autodiff_value_and_grad, manual_value_and_grad
from funcnn.gradcheck.engine.examination import examine
from funcnn.gradcheck.engine.forms import form_of
from funcnn.gradcheck.engine.properties import Property, check_also, linearity
from funcnn.gradcheck.layer_steps import Step, layer_steps, step_rows
from funcnn.gradcheck.report import GradientReport
from funcnn.layers.traversal import structure_of
from funcnn.types import Batch, Layer, Loss, Params, State


class LayerArguments(NamedTuple):
    """What a layer is differentiated by."""

    params: Params
    x: Array | None


def check_layer(
    layer: Layer,
    x: ArrayLike,
    *,
    train: bool = True,
    key: PRNGKeyArray | None = None,
    also: Sequence[Property] = (),
) -> GradientReport:
    """Compare a layer's backward with autodiff of its forward, for a random cotangent, as ``check_gradients`` does.

    The parameters are drawn by ``init`` and then moved a little at random, because zeros and ones hide mistakes. The
    parts of a ``serial``, ``skip`` or ``repeat`` are checked one by one.

    Args:
        layer: any layer.
        x: its input, ``(batch, ...)``, floating; the parameters are cast to its dtype.
        train: the mode of the forward pass.
        key: random key for the parameters, the cotangent and dropout; ``None`` for ``jax.random.key(0)``.
        also: as for ``check_gradients``.

    Returns:
        A report with a row for x and for each parameter; its ``steps`` are the parts', in backward order.

    Raises:
        TypeError, ValueError: x doesn't fit the layer, train isn't a bool, or backward returns another tree structure.

    Example:
        >>> import jax.numpy as jnp
        >>> from funcnn.layers.activations import tanh
        >>> check_layer(tanh, jnp.array([[-1.0, 0.5]])).ok
        True

    Source:
        Richardson 1927 for the slopes, Parker 1997 for the rounding.
    """
    check_is_layer("check_layer(layer)", layer)
    check_also("check_layer", also)
    x = _input("check_layer(x)", x)
    train = checked_bool("check_layer(train)", train)
    key = jax.random.key(0) if key is None else key
    check_key("check_layer(key)", key)
    params, state = _draw_moved(layer, key, _floating_dtype(x))
    with errors_of("check_layer(x)"):
        y = _output_shape(layer, params, state, x, key, train)
    random = numpy_generator(key)
    dy, other_dy = (jax.device_put(random.standard_normal(y.shape).astype(y.dtype)) for _ in range(2))
    projection, by_hand, parts = _layer_functions(layer, train)
    # Tokens are data: x is differentiated only where it is floating.
    is_floating = jnp.issubdtype(x.dtype, jnp.floating)
    differentiated, tokens = LayerArguments(params, x if is_floating else None), None if is_floating else x

    def is_linear(comparison):
        arguments, tokens, state, dy, key = comparison.call_arguments
        other = other_dy.astype(dy.dtype)
        return (linearity(lambda dy: by_hand(arguments, tokens, state, dy, key), dy, other, comparison.call_spacing),)

    def more_steps(comparison):
        return step_rows(parts(*comparison.call_arguments), comparison.call_spacing)

    return examine(
        "check_layer", projection, by_hand, (differentiated, tokens, state, dy, key), also, is_linear,
        more_steps if structure_of(layer) else lambda comparison: (),
    )  # fmt: skip


@memoised
def _layer_functions(layer: Layer, train: bool) -> tuple[Callable, Callable, Callable]:
    """Return Σ y dy, its gradient by backward, and the steps of the parts; compiled once for equal layers."""

    def projection(arguments, tokens, state, dy, key):
        x = arguments.x if tokens is None else tokens
        return (layer.forward(arguments.params, state, x, train=train, key=key)[0] * dy).sum()

    def by_hand(arguments, tokens, state, dy, key):
        x = arguments.x if tokens is None else tokens
        residuals = layer.forward(arguments.params, state, x, train=train, key=key)[2]
        return LayerArguments(*_checked_pair(layer.backward(residuals, dy)))

    def parts(arguments, tokens, state, dy, key):
        x = arguments.x if tokens is None else tokens
        return layer_steps(layer, arguments.params, state, x, dy, key, train=train)

    (first, second), (steps,) = compile_calls(projection, by_hand), compile_calls(parts)
    return first, second, steps


def _checked_pair(gradients: Any) -> tuple[Params, Any]:
    """Return what a backward returned, if it is a pair."""
    if not isinstance(gradients, tuple | list) or len(gradients) != 2:
        form = form_of("check_layer")
        raise TypeError(
            f"{form.function}: expected the pair (dparams, dx), got {describe_tree(gradients)}. {form.advice}"
        )
    return gradients[0], gradients[1]


def check_model(
    model: Layer,
    loss: Loss,
    batch: Batch | tuple[ArrayLike, ArrayLike],
    *,
    key: PRNGKeyArray | None = None,
    params: Params | None = None,
    state: State | None = None,
    also: Sequence[Property] = (),
) -> GradientReport:
    """Compare ``manual_value_and_grad`` of a model and a loss with autodiff, and every layer's backward by itself.

    Each layer gets its true residuals and its true cotangent, from the last layer to the first, so that an error shows
    in the layer that has it alone. The report names the first wrong layer and which of its gradients are wrong.

    Args:
        model: any layer.
        loss: any loss.
        batch: ``Batch(x, y)`` or ``(x, y)``; drawn parameters are cast to x's dtype.
        key: random key for the parameters and dropout; ``None`` for ``jax.random.key(0)``.
        params: the parameters to check at; ``None`` draws them and moves them a little at random, because zeros and
            ones hide mistakes.
        state: the running statistics; ``None`` for the initial ones.
        also: as for ``check_gradients``.

    Returns:
        A report with a row for each parameter; its ``steps`` are the loss's and the layers' own gradients.

    Raises:
        TypeError, ValueError: the batch is no pair, or doesn't fit the model or the loss; or a layer's backward returns
            another tree structure than its parameters', and the message names the layer.

    Example:
        >>> import jax.numpy as jnp
        >>> from funcnn.losses import softmax_cross_entropy
        >>> from funcnn.models import mlp
        >>> report = check_model(mlp((2, 4, 3)), softmax_cross_entropy, (jnp.eye(2), jnp.array([0, 2])))
        >>> report.ok, report.steps[0].path, report.steps[1].path
        (True, 'loss: dprediction', 'layers[2] linear: dkernel')

    Source:
        Richardson 1927 for the slopes, Parker 1997 for the rounding.
    """
    x, y = checked_pair("check_model(batch)", batch)
    batch = Batch(_input("check_model(batch): x", x), numeric_array("check_model(batch): y", y))
    check_is_layer("check_model(model)", model)
    check_is_loss("check_model(loss)", loss)
    check_also("check_model", also)
    key = jax.random.key(0) if key is None else key
    check_key("check_model(key)", key)
    drawn_params, drawn_state = _draw_moved(model, key, _floating_dtype(batch.x))
    params = drawn_params if params is None else params
    state = drawn_state if state is None else state
    check_same_tree("check_model(params)", params, drawn_params, "what the model's init returns", dtypes=False)
    value, gradient, prediction, parts = _model_functions(model, loss)
    arguments = (params, state, batch, key)
    with errors_of("check_model(batch)"):
        if not jnp.issubdtype(batch.x.dtype, jnp.floating):
            _output_shape(model, params, state, batch.x, key, train=True)
        _check_values(loss, prediction(*arguments), batch.y)
    if not _fits(gradient, arguments):
        for row in step_rows(parts(*arguments), float(jnp.finfo(_floating_dtype(batch.x)).eps)):
            if row.cause in ("structure", "shape"):
                raise ValueError(
                    f"check_model(model): {row.path}: expected gradients of the structure and shapes of their values, "
                    f"got {row.detail}. Return (dparams, dx) from a layer's backward, dprediction from a loss's."
                )
    return examine(
        "check_model", value, gradient, arguments, also,
        more_steps=lambda comparison: step_rows(parts(*comparison.call_arguments), comparison.call_spacing),
    )  # fmt: skip


@memoised
def _model_functions(model: Layer, loss: Loss) -> tuple[Callable, Callable, Callable, Callable]:
    """Compiled once for an equal model and loss: the loss, its gradient by hand, the prediction, and every step."""
    by_autodiff, by_hand = autodiff_value_and_grad(model, loss), manual_value_and_grad(model, loss)

    def value(params, state, batch, key):
        return by_autodiff(params, state, batch, key=key)[0][0]

    def gradient(params, state, batch, key):
        return by_hand(params, state, batch, key=key)[1]

    def prediction(params, state, batch, key):
        return model.forward(params, state, batch.x, train=True, key=key)[0]

    def parts(params, state, batch, key):
        predicted = prediction(params, state, batch, key)
        dprediction = jax.grad(lambda predicted: loss.forward(predicted, batch.y)[0])(predicted)
        value, residuals = loss.forward(predicted, batch.y)
        given = loss.backward(residuals, jnp.ones_like(value))
        first = Step("loss", given, dprediction, jnp.ones_like(value), parts=None)
        return [first, *layer_steps(model, params, state, batch.x, dprediction, key, train=True)]

    # Compiled together, they share the forward pass.
    (first, second), (third,), (steps,) = (
        compile_calls(value, gradient),
        compile_calls(prediction),
        compile_calls(parts),
    )
    return first, second, third, steps


def _output_shape(layer, params, state, x, key, train) -> jax.ShapeDtypeStruct:
    """Return the shape of a layer's output. The layer sees the values of x, and checks those of tokens."""
    return jax.eval_shape(
        lambda params, state, key: layer.forward(params, state, x, train=train, key=key)[0], params, state, key
    )


def _check_values(loss, prediction, y) -> None:
    """Check the values of targets and probabilities. They aren't traced, and nothing is computed if it need not be."""
    try:
        jax.eval_shape(lambda: loss.forward(prediction, y)[0])
    except jax.errors.ConcretizationTypeError:  # the loss has an ``if`` of its own
        loss.forward(prediction, y)


def _fits(gradient, arguments) -> bool:
    """Whether the backward passes fit each other, and the gradients the parameters."""
    try:
        return same_structure(jax.eval_shape(gradient, *arguments), arguments[0])
    except (TypeError, ValueError):
        return False


def _input(name: str, x: Any) -> Array:
    """Return x as an array with a batch axis and at least one sample."""
    converted = numeric_array(name, x)
    if converted.ndim < 1 or not converted.size:
        raise ValueError(
            f"{name}: expected at least one sample, with the batch as the first axis, got shape {converted.shape}. "
            "For a single sample, pass x[None, :]."
        )
    return converted


def _floating_dtype(x: Array) -> Any:
    """Return the dtype for the parameters: x's where it is floating, else JAX's default."""
    return x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)


def _draw_moved(layer: Layer, key: PRNGKeyArray, dtype: Any) -> tuple[Params, State]:
    """Return what ``init`` draws, floating arrays in ``dtype``, with every parameter moved off its initial value."""
    random = numpy_generator(key)

    def as_dtype(leaf):
        array = jnp.asarray(leaf)
        return array.astype(dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array

    def move(leaf):
        array = np.asarray(leaf)
        moved = array.astype(np.float64) + 0.1 * random.standard_normal(array.shape)
        return jax.device_put(moved.astype(array.dtype)) if jnp.issubdtype(array.dtype, jnp.floating) else leaf

    params, state = draw_by_numpy(lambda key: jax.tree.map(as_dtype, layer.init(key)), key)
    return jax.tree.map(move, params), state
