"""The steps of a model's backward pass: each layer's own gradients, by hand and by autodiff."""

import itertools
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from funcnn._numerics.arrays import as_float64, max_abs
from funcnn._tree_checks import describe_tree
from funcnn.gradcheck.engine.comparison import Pair
from funcnn.gradcheck.engine.steps import compare_step, make_pairs, structure_row
from funcnn.gradcheck.report import LeafReport
from funcnn.layers.nodes import Node, backward_nodes, forward_nodes
from funcnn.types import Params

OTHER_OUTPUT = 0.02
"""A relative difference of outputs that no order of operations causes, in 16 bits either."""


@partial(
    jax.tree_util.register_dataclass, data_fields=["given", "expected", "dy", "outputs"], meta_fields=["name", "parts"]
)
@dataclass(frozen=True)
class Step:
    """The gradients by one backward function, for its true residuals and cotangent, and those by autodiff.

    Fields:
        name: the layer's place and name, or ``loss``.
        given, expected: by hand and by autodiff: ``(dparams, dx)`` of a layer, ``dprediction`` of the loss.
        dy: the cotangent.
        outputs: of a layer with parts, its output and that of its parts, combined as its structure says.
        parts: how many of the steps before this one are those of the layer's parts; ``None`` for the loss.
    """

    name: str
    given: Any
    expected: Any
    dy: Array
    parts: int | None
    outputs: tuple[Array, Array] | None = None


def step_rows(steps: list[Step], spacing: float) -> tuple[LeafReport, ...]:
    """Return the rows of the steps; a combinator's own only where it is wrong though its parts are right."""
    rows: list[tuple[LeafReport, ...]] = []
    for step in steps:
        found = _compare(step, spacing)
        if step.parts:
            _check_outputs(step)
            are_right = all(row.ok for part in rows[-step.parts :] for row in part)
            found = tuple(row for row in found if are_right and not row.ok)
        rows.append(found)
    return tuple(itertools.chain.from_iterable(rows))


def _check_outputs(step: Step) -> None:
    """Raise where a layer's forward is not what its structure says: its parts would be checked at other values."""
    assert step.outputs is not None
    own, of_parts = map(as_float64, step.outputs)
    if max_abs(own - of_parts) > OTHER_OUTPUT * max_abs(own):
        raise ValueError(
            f"{step.name}: expected a forward that combines its parts as its Structure says, got another output. "
            "Leave structure out of its spec: then the layer is checked as a whole."
        )


def _compare(step: Step, spacing: float) -> tuple[LeafReport, ...]:
    scale = max_abs(as_float64(step.dy))
    if step.parts is None:
        return compare_step(make_pairs(f"{step.name}: dprediction", step.given, step.expected), spacing, scale)
    if not isinstance(step.given, tuple | list) or len(step.given) != 2:
        return (structure_row(step.name, f"{describe_tree(step.given)} where (dparams, dx) is expected"),)
    (dparams, dx), (expected_dparams, expected_dx) = step.given, step.expected
    try:
        pairs = parameter_pairs(f"{step.name}: ", dparams, expected_dparams)
        pairs += make_pairs(f"{step.name}: dx", dx, expected_dx)
    except (TypeError, ValueError) as error:
        return (structure_row(step.name, f"{error}; expected (dparams, dx)"),)
    return compare_step(pairs, spacing, scale)


def parameter_pairs(prefix: str, dparams: Params, expected: Params) -> list[Pair]:
    """Return the pairs of the parameters' gradients, named ``dkernel`` for ``.kernel`` and ``d[0]`` for ``[0]``."""
    pairs = make_pairs("", dparams, expected)
    return [pair._replace(path=f"{prefix}d{pair.path.removeprefix('.')}") for pair in pairs]


def layer_steps(model, params, state, x, dy, key, *, train) -> list[Step]:
    """Return the step of every layer of a model, the last one first."""

    def run(layer, params, state, x, key):
        y, _, residuals = layer.forward(params, state, x, train=train, key=key)
        return y, residuals

    steps: list[Step] = []

    def leaf(node: Node, dy: Array):
        expected = _pull_back(node, dy, train)
        steps.append(Step(node.name, node.layer.backward(node.result, dy), expected, dy, parts=0))
        return expected

    def combinator(node: Node, dy: Array, expected) -> None:
        y, residuals = run(node.layer, node.params, node.state, node.x, node.key)
        try:
            given = node.layer.backward(residuals, dy)
        except (TypeError, ValueError):
            given = None  # A part returns what the next one can't take; the part's own step is wrong.
        steps.append(Step(node.name, given, expected, dy, node.descendants(), (y, node.y)))

    backward_nodes(forward_nodes(model, params, state, x, key, run), dy, leaf, combinator)
    return steps


def _pull_back(node: Node, dy: Array, train: bool) -> tuple[Params, Array | None]:
    """Return a leaf layer's gradients by autodiff; ``None`` for an x that isn't floating."""
    is_floating = jnp.issubdtype(node.x.dtype, jnp.floating)

    def output(params, x):
        return node.layer.forward(params, node.state, x, train=train, key=node.key)[0]

    if is_floating:
        return jax.vjp(output, node.params, node.x)[1](dy)
    return jax.vjp(partial(output, x=node.x), node.params)[1](dy)[0], None
