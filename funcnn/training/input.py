"""Checks and conversions of the arguments of training and evaluation."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from funcnn._checks import (
    check_callable,
    check_finite,
    check_is_layer,
    check_is_loss,
    check_key,
    check_scalar,
    checked_pair,
    describe,
    errors_of,
    is_concrete,
    numeric_array,
    positive_integer,
)
from funcnn._conversion import column_names
from funcnn._initialization import initial_shapes, initial_state, initialize
from funcnn._tree_checks import check_same_tree
from funcnn.layers.traversal import output_leaf, spec_of
from funcnn.losses import loss_spec
from funcnn.training.tracing import trace_loss, trace_prediction
from funcnn.types import Batch, Scalar

Metric: TypeAlias = Callable[[Array, Array], Scalar]
Data: TypeAlias = Batch | tuple[Any, Any]

INIT = "what the model's init returns"
SUM_TOLERANCE = 1e-3
"""How far a row of probabilities is from a sum of 1 for each of its entries: in bfloat16, which rounds to 0.004."""
CHECKED_BY_RANGE = {("logits", "classes"), ("logits", "binary"), ("values", "values")}
"""What losses expect of predictions and targets that is checked by shapes and by the range of the targets."""
PROBE = 64
"""Samples on which the model's predictions are computed to check the targets."""
PROBE_SIZE = 2**24
"""Entries of the predictions that are held at once to check the targets."""


@partial(jax.jit, static_argnames=("model", "train"))
def forward(params, state, x, key, *, model, train):
    return model.forward(params, state, x, train=train, key=key)[0]


def check_setup(name, model, loss, optimizer, key, grad) -> None:
    """Raise where an argument is not a layer, a loss, an optimizer, a random key or ``(model, loss) -> GradFn``."""
    check_is_layer(f"{name}(model)", model)
    check_is_loss(f"{name}(loss)", loss)
    if not all(callable(getattr(optimizer, field, None)) for field in ("init", "update")):
        raise TypeError(
            f"{name}(optimizer): expected an optax transformation, got {optimizer!r}. "
            "Call the constructor: adam(1e-3), or one of optax's."
        )
    check_key(f"{name}(key)", key)
    check_callable(f"{name}(grad)", grad, "Pass manual_value_and_grad or autodiff_value_and_grad themselves.")
    _check_logits(name, model, loss)


def _check_logits(name, model, loss) -> None:
    """Raise where an output layer makes probabilities for a loss that takes logits and makes them itself."""
    output, spec = output_leaf(model), loss_spec(loss)
    if output is None or spec.prediction != "logits":
        return
    lowest, highest = spec_of(output.layer).output_range
    if 0 <= lowest and highest <= 1:
        takes = "categorical_cross_entropy" if spec.targets == "classes" else "binary_cross_entropy"
        raise ValueError(
            f"{name}: expected a model that gives logits, got one that ends in {output.name}, which {spec.name} "
            f"contains already: the loss cannot get near 0. Leave the output layer out, or take a loss on "
            f"probabilities, {takes}."
        )


def given_or_shapes(name, model, params, state) -> tuple[Any, Any]:
    """Return the given parameters and state, checked, with their shapes in the place of what isn't given."""
    expected_params, expected_state = initial_shapes(model)
    params = expected_params if params is None else params
    check_same_tree(f"{name}(params)", params, expected_params, INIT, dtypes=False)
    dtypes = {_dtype(leaf) for leaf in jax.tree.leaves(params)}
    if not all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes):
        leaves = jax.tree_util.tree_leaves_with_path(params)
        path, leaf = next(pair for pair in leaves if not jnp.issubdtype(_dtype(pair[1]), jnp.floating))
        raise TypeError(
            f"{name}(params): expected floating parameters, got {_dtype(leaf)} "
            f"at {jax.tree_util.keystr(path)}. Convert them first."
        )
    if state is None and len(dtypes) == 1:
        return params, jax.tree.map(partial(_in_dtype, *dtypes), expected_state)
    state = expected_state if state is None else state
    check_same_tree(f"{name}(state)", state, expected_state, INIT, dtypes=False)
    return params, state


def _dtype(leaf) -> Any:
    """Return the dtype of a parameter in JAX, without ``jnp.result_type``, which takes longer, where it is known."""
    return leaf.dtype if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) else jnp.result_type(leaf)


def start(model, key, params, state, expected_state):
    """Return the initial parameters and state, drawn where they are not given, and the key of the loop.

    A drawn state has the dtypes of ``expected_state``, which ``given_or_shapes`` returns.
    """
    init_key, loop_key = _two_keys(key)
    if params is None:
        params, drawn_state = initialize(model, init_key)
    elif state is None:
        drawn_state = initial_state(init_key, model=model)
    if state is None:
        state = jax.tree.map(
            lambda leaf, like: leaf if leaf.dtype == like.dtype else leaf.astype(like.dtype),
            drawn_state,
            expected_state,
        )
    return params, state, loop_key


@jax.jit
def _two_keys(key):
    """Split a key by one compiled call. Indexing an array of keys outside of it takes several."""
    first, second = jax.random.split(key)
    return first, second


def check_fits(model, params, state, name) -> None:
    """Raise where parameters or state are those of another model."""
    expected_params, expected_state = initial_shapes(model)
    check_same_tree(f"{name}(params)", params, expected_params, INIT, dtypes=False)
    check_same_tree(f"{name}(state)", state, expected_state, INIT, dtypes=False)


def input_array(name, x) -> Array:
    """Return the model's input as an array of numbers with at least one sample. The layers check everything else."""
    x = numeric_array(name, x)
    if not x.ndim:
        raise ValueError(f"{name}: expected x with the batch as its first axis, got a scalar. Pass x[None].")
    if not x.shape[0]:
        raise ValueError(f"{name}: expected at least one sample, got shape {x.shape}. Drop empty batches.")
    return x


def checked_data(name, model, loss, params, state, data) -> Batch:
    """Return the data as a ``Batch`` of arrays that fit the model and the loss."""
    batch = checked_batch(name, model, loss, params, state, data)
    check_targets(name, model, loss, params, state, batch)
    return batch


def checked_batch(name, model, loss, params, state, data) -> Batch:
    """Return the data as a ``Batch`` of arrays whose shapes, dtypes and values fit the model and the loss.

    Parameters and state may be shapes: the model and the loss are traced, and nothing is compiled.
    """
    given_x, given_y = checked_pair(name, data, tuple)
    x, y = input_array(f"{name}: x", given_x), numeric_array(f"{name}: y", given_y)
    if y.shape[:1] != x.shape[:1]:
        raise ValueError(
            f"{name}: expected a target for each of the {x.shape[0]} samples, got x {x.shape} and y {y.shape}. "
            "Put the samples of both along the first axis."
        )
    check_finite(f"{name}: x", x, column_names(given_x))
    check_finite(f"{name}: y", y, column_names(given_y))
    try:
        with errors_of(name):
            prediction = trace_prediction(model, params, state, x)
            value = trace_loss(loss, prediction, y)
    except (ValueError, TypeError) as error:
        if _fits(model, loss, params, state, y, x):
            raise ValueError(
                f"{name}: expected inputs and then targets, (x, y), got targets, {describe(x)}, and then inputs, "
                f"{describe(y)}. Exchange them: (y, x)."
            ) from error
        raise
    check_scalar(f"{name}: the loss", value)
    _check_outputs(name, model, loss, prediction.shape, y)
    _check_rows(name, loss, y)
    return Batch(x, y)


def _fits(model, loss, params, state, x, y) -> bool:
    """Return whether a model takes x as its input, and a loss y as its targets."""
    try:
        trace_loss(loss, trace_prediction(model, params, state, x), y)
    except Exception:  # A layer may raise anything on what it doesn't take.
        return False
    return True


def _check_outputs(name, model, loss, shape, y) -> None:
    """Raise where a loss on exclusive classes gets a single class, or the output layer makes one probability: 1."""
    if shape[-1:] != (1,):
        return
    output = output_leaf(model)
    if output is not None and spec_of(output.layer).sums_to_one:
        raise ValueError(
            f"{name}: expected at least two outputs in front of {output.name}, got shape {shape}: the probability of a "
            "single class is always 1. Give the model an output for each class, or end it in sigmoid."
        )
    if loss_spec(loss).targets == "classes":
        raise ValueError(
            f"{name}: expected scores of at least two classes, got shape {shape}: the probability of a single class is "
            "always 1. Give the model an output for each class, or use sigmoid_cross_entropy with targets "
            f"y = jnp.asarray(np.reshape(y, {shape}), float)."
        )


def _check_rows(name, loss, y) -> None:
    """Raise where a loss on exclusive classes gets rows of targets that do not sum to 1."""
    is_rows = loss_spec(loss).targets == "classes" and y.ndim > 1 and jnp.issubdtype(y.dtype, jnp.floating)
    if is_rows and is_concrete(y):
        sums = np.asarray(y, np.float64).sum(axis=-1)
        wrong = np.argwhere(np.abs(sums - 1) > SUM_TOLERANCE * y.shape[-1])
        if len(wrong):
            first = tuple(map(int, wrong[0]))
            raise ValueError(
                f"{name}: y: expected one-hot rows or probabilities, which sum to 1, got the sum {sums[first]:g} at "
                f"index {first} ({len(wrong)} such in all). For several labels at once use sigmoid_cross_entropy."
            )


def check_token_values(model, params, state, x) -> None:
    """Let the layers check the values of tokens before a compiled call, in which they cannot see them."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        trace_prediction(model, params, state, x)


def check_targets(name, model, loss, params, state, batch) -> None:
    """Let the loss check all targets, against the predictions for the first samples, repeated.

    Predictions for all samples may not fit in memory, so large ones are checked in parts. Nothing is computed for a
    loss that checks no predictions, and of the targets only their range: ``checked_batch`` has traced it with them.
    """
    x, y = batch
    spec = loss_spec(loss)
    has_checked = (spec.prediction, spec.targets) in CHECKED_BY_RANGE and not spec.settings
    if has_checked or not is_concrete(x, y, *jax.tree.leaves((params, state))):
        return
    shape = forward.eval_shape(params, state, x, None, model=model, train=False).shape
    is_per_sample = shape[:1] == x.shape[:1]
    rows = max(PROBE_SIZE // max(math.prod(shape[1:]), 1), 1) if is_per_sample else len(y)
    probe = forward(params, state, x[: min(PROBE, rows)], None, model=model, train=False)
    for start in range(0, len(y), rows):
        part = y[start : start + rows]
        with errors_of(name):
            loss.forward(jnp.resize(probe, (len(part), *shape[1:]) if is_per_sample else shape), part)


def checked_batch_size(name, batch_size, samples) -> int:
    """Return the batch size in samples; ``None`` stands for all of them."""
    size = samples if batch_size is None else positive_integer(f"{name}(batch_size)", batch_size)
    if size > samples:
        raise ValueError(
            f"{name}(batch_size): expected at most the {samples} samples there are, got {size}. "
            "For all of them at once, leave batch_size=None."
        )
    return size


def checked_metrics(name, metrics) -> tuple[tuple[str, Callable], ...]:
    """Return the metrics as pairs of a name and a function, which can be hashed."""
    if metrics is None:
        return ()
    if not isinstance(metrics, Mapping):
        raise TypeError(
            f"{name}: expected metrics by name, got {metrics!r}. Pass a dictionary, such as {{'accuracy': accuracy}}."
        )
    if "loss" in metrics:
        raise ValueError(f"{name}: expected names other than 'loss', got 'loss'. Give the metric another name.")
    for title, metric in metrics.items():
        if not isinstance(title, str):
            raise TypeError(f"{name}: expected names that are strings, got {title!r}. Name the metric by a string.")
        check_callable(f"{name}: {title}", metric, "A metric is (prediction, target) -> scalar, in JAX.")
    return tuple(metrics.items())


def check_scalar_metrics(name, metrics, model, params, state, batch) -> None:
    """Raise where a metric is not a scalar."""
    prediction = forward.eval_shape(params, state, batch.x, None, model=model, train=False)
    for title, metric in metrics:
        with errors_of(f"{name}: {title}"):
            value = jax.eval_shape(metric, prediction, batch.y)
        check_scalar(f"{name}: {title}", value, floating=False)


def batch_checker(name, model, loss, params, state) -> Callable[[Any], Batch]:
    """Return a function that checks the batches of an iterable: the first one in full, the others against it."""
    firsts: list[Batch] = []
    probes: list[Array] = []

    def checked(found) -> Batch:
        if isinstance(found, jax.Array | np.ndarray):
            raise TypeError(
                f"{name}: a batch: expected Batch(x, y) or (x, y), got an array of shape {found.shape}. "
                "A list is taken for batches: pass data in memory as a tuple, (x, y)."
            )
        if not firsts:
            batch = checked_data(f"{name}: a batch", model, loss, params, state, _pair(found))
            probes.append(forward(params, state, batch.x[:PROBE], None, model=model, train=False))
            firsts.append(batch)
            return batch
        pair = _pair(found)
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TypeError(
                f"{name}: expected every batch as (x, y), got {type(found).__name__}. Drop what is no batch."
            )
        x, y = (numeric_array(f"{name}: {word} of a batch", part) for word, part in zip("xy", pair, strict=True))
        for word, part, first in (("x", x, firsts[0].x), ("y", y, firsts[0].y)):
            if part.dtype != first.dtype or part.shape[1:] != first.shape[1:] or not part.size:
                raise ValueError(
                    f"{name}: expected {word} of every batch like the first's, {describe(first)}, "
                    f"got {describe(part)}. Only the number of samples may differ."
                )
            check_finite(f"{name}: {word} of a batch", part)
        if len(x) != len(y):
            raise ValueError(
                f"{name}: expected a target for each of a batch's {len(x)} samples, got {len(y)}. Check the loader."
            )
        # The loss checks all targets, here against the predictions for the first batch, repeated.
        with errors_of(f"{name}: a batch"):
            check_token_values(model, params, state, x)
            loss.forward(jnp.resize(probes[0], (len(x), *probes[0].shape[1:])), y)
        _check_rows(f"{name}: a batch", loss, y)
        return Batch(x, y)

    return checked


def _pair(found):
    """Return a batch as a tuple: some loaders return lists."""
    return tuple(found) if isinstance(found, list) else found


def _in_dtype(dtype, leaf):
    """Return the shape of a leaf, with another dtype where it is floating."""
    return jax.ShapeDtypeStruct(leaf.shape, dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
