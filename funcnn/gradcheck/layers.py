"""Is this layer's backward pass right, or this model's, and which step of it is the first that isn't?"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, PRNGKeyArray

from funcnn._checks import (
    check_is_layer,
    check_is_loss,
    check_key,
    check_same_tree,
    feature_array,
    numeric_array,
    same_structure,
)
from funcnn._draw import drawn_in_line
from funcnn._memoise import memoised
from funcnn.backprop import autodiff_value_and_grad, manual_value_and_grad
from funcnn.gradcheck.comparison import largest, wide
from funcnn.gradcheck.examination import examine
from funcnn.gradcheck.properties import Property, check_also, linearity
from funcnn.gradcheck.report import GradientReport, LeafReport
from funcnn.gradcheck.steps import against, judged_together, other_structure
from funcnn.layers.combinators import SkipParts, composition, split_key
from funcnn.layers.walk import layer_name
from funcnn.types import Batch, Layer, Loss, Params, State


class LayerArguments(NamedTuple):
    """What a layer is differentiated by."""

    params: Params
    x: Array | None


@partial(jax.tree_util.register_dataclass, data_fields=["given", "expected", "dy"], meta_fields=["name", "is_whole"])
@dataclass(frozen=True)
class _Step:
    """What a backward gave for its true residuals and cotangent, and what it should have.

    ``is_whole`` where it is a combinator's, whose parts have steps of their own.
    """

    name: str
    is_whole: bool
    given: Any
    expected: Any
    dy: Array


class _Visit(NamedTuple):
    """A layer with what its forward pass gets."""

    place: str
    layer: Layer
    params: Params
    state: State
    x: Array
    train: bool
    key: PRNGKeyArray | None


def check_layer(
    layer: Layer,
    x: ArrayLike,
    *,
    train: bool = True,
    key: PRNGKeyArray | None = None,
    also: Sequence[Property] = (),
) -> GradientReport:
    """Compare a layer's backward with autodiff of its forward, for a random cotangent, as ``check_gradients`` does.

    The parameters are drawn by ``init`` and then moved a little at random, for zeros and ones hide mistakes. The parts
    of a ``serial``, ``skip`` or ``repeat`` are checked one by one.

    Args:
        layer: any layer.
        x: its input, ``(batch, ...)``, floating; the parameters are cast to its dtype.
        train: the mode of the forward pass.
        key: random key for the parameters, the cotangent and dropout; ``None`` for ``jax.random.key(0)``.
        also: as for ``check_gradients``.

    Returns:
        A report with a row for x and for each parameter; its ``steps`` are the parts', in backward order.

    Raises:
        TypeError, ValueError: x doesn't fit the layer, or backward returns another tree structure.

    Example:
        >>> import jax.numpy as jnp
        >>> from funcnn.layers.activations import tanh
        >>> check_layer(tanh, jnp.array([[-1.0, 0.5]])).ok
        True
    """
    check_is_layer("check_layer(layer)", layer)
    check_also("check_layer", also)
    x = feature_array("check_layer(x)", x)
    key = jax.random.key(0) if key is None else key
    check_key("check_layer(key)", key)
    init_key, cotangent_key, layer_key = jax.random.split(key, 3)
    params, state = _moved_init(layer, x.dtype)(init_key)
    y = jax.eval_shape(partial(layer.forward, train=train), params, state, x, key=layer_key)[0]
    dy, other_dy = (
        drawn_in_line(jax.random.normal, dy_key, y.shape, dtype=y.dtype) for dy_key in jax.random.split(cotangent_key)
    )
    projection, by_hand, parts = _layer_functions(layer, train)

    def is_linear(judged):
        arguments, state, dy, key = judged.evaluated.arguments
        other = other_dy.astype(dy.dtype)
        return (linearity(lambda dy: by_hand(arguments, state, dy, key), dy, other, judged.spacing),)

    def walked(judged):
        arguments, state, dy, key = judged.evaluated.arguments
        return _rows(parts(arguments.params, state, arguments.x, dy, key), judged.spacing)

    return examine(
        "check_layer", projection, by_hand, (LayerArguments(params, x), state, dy, layer_key), also, is_linear,
        walked if composition(layer) else lambda judged: (),
    )  # fmt: skip


@memoised
def _layer_functions(layer: Layer, train: bool) -> tuple[Callable, Callable, Callable]:
    """Compiled once for equal layers: Σ y dy, its gradient by the layer's backward, and the steps of its parts."""

    def projection(arguments, state, dy, key):
        return (layer.forward(arguments.params, state, arguments.x, train=train, key=key)[0] * dy).sum()

    def by_hand(arguments, state, dy, key):
        residuals = layer.forward(arguments.params, state, arguments.x, train=train, key=key)[2]
        return LayerArguments(*layer.backward(residuals, dy))

    def parts(params, state, x, dy, key):
        return _walk(_Visit("", layer, params, state, x, train, key), dy)[0]

    return jax.jit(projection), jax.jit(by_hand), jax.jit(parts)


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
    """Compare ``manual_value_and_grad`` of a model and a loss with autodiff, and every layer's backward on the way.

    The layers are walked backward. Each gets its true residuals and its true cotangent, so that a layer is blamed for
    its own mistakes alone; the first wrong one is named, and which of its gradients are wrong.

    Args:
        model: any layer.
        loss: any loss.
        batch: ``Batch(x, y)`` or ``(x, y)``; drawn parameters are cast to x's dtype.
        key: random key for the parameters and dropout; ``None`` for ``jax.random.key(0)``.
        params: the parameters to check at; ``None`` draws them and moves them a little at random, for zeros and ones
            hide mistakes.
        state: the running statistics; ``None`` for the initial ones.
        also: as for ``check_gradients``.

    Returns:
        A report with a row for each parameter; its ``steps`` are the loss's and the layers' own gradients.

    Raises:
        TypeError, ValueError: the batch doesn't fit the model or the loss, or a layer's backward returns another tree
            structure than its parameters'; the message names the layer.

    Example:
        >>> import jax.numpy as jnp
        >>> from funcnn.losses import softmax_cross_entropy
        >>> from funcnn.models import mlp
        >>> report = check_model(mlp((2, 4, 3)), softmax_cross_entropy, (jnp.eye(2), jnp.array([0, 2])))
        >>> report.ok, report.steps[0].path, report.steps[1].path
        (True, 'loss: dprediction', 'layers[2] linear: dkernel')
    """
    batch = Batch(feature_array("check_model(batch): x", batch[0]), numeric_array("check_model(batch): y", batch[1]))
    check_is_layer("check_model(model)", model)
    check_is_loss("check_model(loss)", loss)
    check_also("check_model", also)
    key = jax.random.key(0) if key is None else key
    check_key("check_model(key)", key)
    init_key, step_key = jax.random.split(key)
    drawn_params, drawn_state = _moved_init(model, batch.x.dtype)(init_key)
    params = drawn_params if params is None else params
    state = drawn_state if state is None else state
    check_same_tree("check_model(params)", params, drawn_params, "what the model's init returns", dtypes=False)
    value, gradient, prediction, parts = _model_functions(model, loss)
    arguments = (params, state, batch, step_key)
    # Outside jit, where the values of targets and probabilities can be read and refused.
    loss.forward(prediction(*arguments), batch.y)
    if not _fits(gradient, arguments):
        for row in _rows(parts(*arguments), float(jnp.finfo(batch.x.dtype).eps)):
            if row.cause in ("structure", "shape"):
                raise ValueError(f"check_model(model): {row.path}: backward returned {row.detail}.")
    return examine(
        "check_model", value, gradient, arguments, also,
        walked=lambda judged: _rows(parts(*judged.evaluated.arguments), judged.spacing),
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
        first = _Step("loss: dprediction", False, given, dprediction, jnp.ones_like(value))
        return [first, *_walk(_Visit("", model, params, state, batch.x, True, key), dprediction)[0]]

    return jax.jit(value), jax.jit(gradient), jax.jit(prediction), jax.jit(parts)


def _fits(gradient, arguments) -> bool:
    """Whether the backward passes fit each other, and the gradients the parameters."""
    try:
        return same_structure(jax.eval_shape(gradient, *arguments), arguments[0])
    except (TypeError, ValueError):
        return False


def _rows(steps: list[_Step], spacing: float) -> tuple[LeafReport, ...]:
    """The steps compared; a combinator's own only where it is wrong though its parts are right."""
    rows: list[LeafReport] = []
    for step in steps:
        found = _compared(step, spacing)
        place = step.name.rpartition(" ")[0]
        inside = [row for row in rows if row.path.startswith(place)]
        if not step.is_whole:
            rows += found
        elif all(row.ok for row in inside):
            rows += [row for row in found if not row.ok]
    return tuple(rows)


def _compared(step: _Step, spacing: float) -> tuple[LeafReport, ...]:
    scale = largest(wide(step.dy))
    if ": " in step.name:
        return judged_together(against(step.name, step.given, step.expected), spacing, scale)
    try:
        dparams, dx = step.given
        pairs = [*against(f"{step.name}: d", dparams, step.expected[0])]
        pairs += against(f"{step.name}: dx", dx, step.expected[1])
    except (TypeError, ValueError) as error:
        return (other_structure(step.name, f"{error}; expected (dparams, dx)"),)
    return judged_together([pair._replace(path=pair.path.replace(": d.", ": d")) for pair in pairs], spacing, scale)


def _walk(visit: _Visit, dy: Array) -> tuple[list[_Step], tuple[Params, Array]]:
    """The steps of a layer and its parts, the last part first; and the true gradients of its parameters and of x."""
    made_of = composition(visit.layer)
    if made_of is None:
        _, pullback = jax.vjp(lambda params, x: _run(visit._replace(params=params, x=x))[0], visit.params, visit.x)
        expected = pullback(dy)
        return [_own_step(visit, dy, expected, is_whole=False)], expected
    walk = {"serial": _walk_serial, "skip": _walk_skip, "repeat": _walk_repeat}[made_of.kind]
    steps, expected = walk(visit, made_of.layers, dy)
    return [*steps, _own_step(visit, dy, expected, is_whole=True)], expected


def _own_step(visit, dy, expected, is_whole) -> _Step:
    name = f"{visit.place.rstrip('.')} {layer_name(visit.layer)}".strip()
    try:
        given = visit.layer.backward(_run(visit)[2], dy)
    except (TypeError, ValueError):
        if not is_whole:
            raise
        given = None  # a part of it gives what the next can't take; the part is named
    return _Step(name, is_whole, given, expected, dy)


def _walk_serial(visit, layers, dy):
    visits, x = [], visit.x
    keys = split_key(visit.key, len(layers))
    for number, parts in enumerate(zip(layers, visit.params, visit.state, keys, strict=True)):
        layer, params, state, key = parts
        place = f"{visit.place}layers[{number}]."
        visits.append(visit._replace(place=place, layer=layer, params=params, state=state, x=x, key=key))
        x = _run(visits[-1])[0]
    return _walk_chain(visits, dy, tuple)


def _walk_repeat(visit, layers, dy):
    visits, x = [], visit.x
    keys = split_key(visit.key, len(layers))
    for number, layer in enumerate(layers):
        params, state = jax.tree.map(lambda leaf, number=number: leaf[number], (visit.params, visit.state))
        place = f"{visit.place}repeat[{number}]."
        visits.append(
            visit._replace(place=place, layer=layer, params=params, state=state, x=x, key=keys[number])
        )  # fmt: skip
        x = _run(visits[-1])[0]
    return _walk_chain(visits, dy, lambda gradients: jax.tree.map(lambda *parts: jnp.stack(parts), *gradients))


def _walk_chain(visits, dy, gathered):
    steps: list[_Step] = []
    gradients: list[Params] = []
    for visit in reversed(visits):
        found, (dparams, dy) = _walk(visit, dy)
        steps, gradients = [*steps, *found], [dparams, *gradients]
    return steps, (gathered(gradients), dy)


def _walk_skip(visit, layers, dy):
    steps: list[_Step] = []
    gradients: list[Params] = []
    keys, dx = split_key(visit.key, 2), jnp.zeros((), dy.dtype)
    for name, layer, key in zip(SkipParts._fields, layers, keys, strict=True):
        params, state = getattr(visit.params, name), getattr(visit.state, name)
        part = visit._replace(place=f"{visit.place}{name}.", layer=layer, params=params, state=state, key=key)
        found, (dparams, dx_part) = _walk(part, dy)
        steps, gradients, dx = [*steps, *found], [*gradients, dparams], dx + dx_part
    return steps, (SkipParts(*gradients), dx)


def _run(visit: _Visit) -> tuple[Array, State, Any]:
    return visit.layer.forward(visit.params, visit.state, visit.x, train=visit.train, key=visit.key)


@memoised
def _moved_init(layer: Layer, dtype: Any) -> Callable[[PRNGKeyArray], tuple[Params, State]]:
    """``init``, compiled; floating arrays in ``dtype``, every parameter moved off its initial value."""

    def is_floating(leaf):
        return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)

    def init(key):
        init_key, move_key = jax.random.split(key)
        params, state = layer.init(init_key)
        leaves, structure = jax.tree.flatten(params)
        leaves = [jnp.asarray(leaf) for leaf in leaves]
        *starts, total = itertools.accumulate((leaf.size for leaf in leaves), initial=0)
        # Drawn as one: compiling a draw takes XLA longer than all that is done with it.
        moves = jax.random.normal(move_key, (total,), dtype) / 10
        moved = [
            leaf.astype(dtype) + moves[start : start + leaf.size].reshape(leaf.shape) if is_floating(leaf) else leaf
            for leaf, start in zip(leaves, starts, strict=True)
        ]
        state = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype) if is_floating(leaf) else leaf, state)
        return jax.tree.unflatten(structure, moved), state

    return jax.jit(init)
