"""Training: ``train``, a pure function (a scan over epochs and steps), and ``fit``, the convenience over it.

Whole-batch, single-sample and mini-batch descent are one loop with ``batch_size`` ``None``, ``1`` and ``n``. Every
epoch goes through a fresh shuffle; samples that don't fill a batch make a last, short one. The keys of epoch ``e`` and
of its steps are folded from the run's key and ``e``, so a run cut into pieces draws what the whole one draws.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from funcnn._checks import check_is_layer, check_is_loss, check_same_tree, numeric_array, positive_integer
from funcnn._training_input import (
    check_fits,
    check_recipe,
    check_scalar_metrics,
    checked_callbacks,
    checked_data,
    checked_metrics,
    samples_a_step,
    starting_point,
)
from funcnn.backprop import manual_value_and_grad
from funcnn.types import Batch, GradFn, Layer, Loss, Params, Scalar, State

Metric: TypeAlias = Callable[[Array, Array], Scalar]
Data: TypeAlias = Batch | tuple[Any, Any]


class History(NamedTuple):
    """What was measured on the way.

    Fields:
        loss: mean loss of each epoch's batches, weighted by their sizes, ``(epochs,)``.
        step_loss: loss of every batch before its update, ``(epochs, steps)``.
        validation: by name, ``(epochs,)``: ``loss`` and the metrics given to ``fit``; empty without validation data.
    """

    loss: Float[Array, " epochs"]
    step_loss: Float[Array, "epochs steps"]
    validation: dict[str, Array]


class Trained(NamedTuple):
    """What training leaves: the parameters, the running statistics, the optimizer's state and the history."""

    params: Params
    state: State
    opt_state: optax.OptState
    history: History


class Progress(NamedTuple):
    """What a callback is told after every epoch.

    Fields:
        epoch: epochs done, from 1.
        epochs: epochs there will be.
        loss: the epoch's mean training loss.
        validation: the newest validation figures by name.
        params, state: the parameters and running statistics after this epoch.
    """

    epoch: int
    epochs: int
    loss: float
    validation: dict[str, float]
    params: Params
    state: State


class _Carry(NamedTuple):
    params: Params
    state: State
    opt_state: optax.OptState


def train(
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    data: Data,
    *,
    epochs: int,
    batch_size: int | None = None,
    key: PRNGKeyArray,
    grad: Callable[[Layer, Loss], GradFn] = manual_value_and_grad,
    params: Params | None = None,
    state: State | None = None,
) -> Trained:
    """Train a model, as a pure function: ``jit``, ``vmap`` (over ``key``: many seeds at once) and ``scan`` work on it.

    Args:
        model: any layer.
        loss: any loss.
        optimizer: an optax transformation, ours or optax's.
        data: ``Batch(x, y)`` or ``(x, y)``, the samples along the first axis. NumPy's float64 becomes float32 unless
            JAX's 64-bit types are enabled, as everywhere in JAX.
        epochs: passes over the data.
        batch_size: samples a step: ``None`` for all of them, 1 for stochastic descent, n for mini-batches.
        key: random key for the initial parameters, the shuffling and dropout.
        grad: ``manual_value_and_grad``, ``autodiff_value_and_grad``, or another ``(model, loss) -> GradFn``.
        params: parameters to go on from; ``None`` draws them from ``key``. Their dtype is that of the training: give
            them in bfloat16, with x in bfloat16, to train in it.
        state: running statistics to go on from, in the parameters' dtype; ``None`` for the initial ones.

    Returns:
        The trained parameters, state, optimizer state, and the history, whose ``validation`` is empty.

    Raises:
        ValueError: data that doesn't fit the model or the loss, is empty or (where it can be read) not finite; labels
            outside the classes; a batch size larger than the data; parameters of another model; a gradient of
            another structure, shape or dtype than the parameters.
        TypeError: features that aren't floating; counts that aren't integers.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from funcnn.layers.activations import sigmoid
        >>> from funcnn.losses import sigmoid_cross_entropy
        >>> from funcnn.models import mlp
        >>> from funcnn.optimizers import adam
        >>> x = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        >>> xor = (x, jnp.array([[0.0], [1.0], [1.0], [0.0]]))
        >>> run = lambda key: train(mlp((2, 4, 1)), sigmoid_cross_entropy, adam(0.1), xor, epochs=200, key=key)
        >>> trained = jax.vmap(run)(jax.random.split(jax.random.key(0), 8))
        >>> trained.history.loss.shape
        (8, 200)
    """
    epochs = positive_integer("train(epochs)", epochs)
    batch, batch_size, carry, loop_key = _begin(model, loss, optimizer, data, batch_size, key, grad, params, state)
    carry, step_losses = _run_epochs(
        carry, batch, loop_key, 0, epochs=epochs, batch_size=batch_size,
        model=model, loss=loss, optimizer=optimizer, grad=grad,
    )  # fmt: skip
    return Trained(**carry._asdict(), history=_history(step_losses, len(batch.x), batch_size, {}))


def fit(
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    data: Data,
    *,
    epochs: int,
    batch_size: int | None = None,
    key: PRNGKeyArray,
    grad: Callable[[Layer, Loss], GradFn] = manual_value_and_grad,
    params: Params | None = None,
    state: State | None = None,
    validation: Data | None = None,
    metrics: Mapping[str, Metric] | None = None,
    callbacks: Iterable[Callable[[Progress], None]] = (),
) -> Trained:
    """``train``, with validation after every epoch and callbacks. The parameters are the same as ``train``'s.

    Without validation and callbacks the whole run is one compiled call. A second call with an equal model, loss,
    optimizer and shapes compiles nothing; schedules and initializers are equal where they are the same object.

    Args:
        model, loss, optimizer, data, epochs, batch_size, key, grad, params, state: as for ``train``.
        validation: data to evaluate on after every epoch, ``Batch(x, y)`` or ``(x, y)``.
        metrics: by name, ``(prediction, target) -> scalar``, evaluated on the validation data beside the loss.
        callbacks: each called with a ``Progress`` after every epoch.

    Returns:
        The trained parameters, state, optimizer state and history.

    Raises:
        ValueError: as ``train``; also metrics without validation data, or validation data that doesn't fit.
        TypeError: as ``train``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from funcnn.losses import mean_squared_error
        >>> from funcnn.models import perceptron
        >>> from funcnn.layers.activations import identity
        >>> from funcnn.optimizers import sgd
        >>> x = jnp.linspace(-1.0, 1.0, 16)[:, None]
        >>> trained = fit(
        ...     perceptron(1, identity), mean_squared_error, sgd(0.2), (x, 3 * x), epochs=100, batch_size=4,
        ...     key=jax.random.key(0), validation=(x, 3 * x),
        ... )
        >>> print(bool(abs(trained.params[0].kernel - 3).max() < 1e-3), trained.history.validation["loss"].shape)
        True (100,)
    """
    epochs = positive_integer("fit(epochs)", epochs)
    measures = checked_metrics("fit(metrics)", metrics)
    if measures and validation is None:
        raise ValueError("fit(metrics): expected validation data to evaluate the metrics on; pass validation=(x, y).")
    callbacks = checked_callbacks(callbacks, data, key)
    batch, batch_size, carry, loop_key = _begin(model, loss, optimizer, data, batch_size, key, grad, params, state)
    held_out = None
    if validation is not None:
        held_out = checked_data("fit(validation)", model, loss, carry.params, carry.state, validation)
        check_scalar_metrics(measures, model, carry.params, carry.state, held_out)
    watched = held_out is not None or bool(callbacks)
    epochs_a_call = 1 if watched else epochs
    step_losses, measured = [], []
    for done in range(0, epochs, epochs_a_call):
        carry, losses = _run_epochs(
            carry, batch, loop_key, done, epochs=epochs_a_call, batch_size=batch_size,
            model=model, loss=loss, optimizer=optimizer, grad=grad,
        )  # fmt: skip
        step_losses.append(losses)
        if held_out is not None:
            measured.append(_evaluate(carry.params, carry.state, held_out, model=model, loss=loss, metrics=measures))
        if callbacks:
            _call_back(callbacks, done + 1, epochs, carry, losses, len(batch.x), batch_size, measured)
    validated = {name: jnp.stack([figures[name] for figures in measured]) for name in (measured[0] if measured else ())}
    history = _history(jnp.concatenate(step_losses), len(batch.x), batch_size, validated)
    return Trained(**carry._asdict(), history=history)


def predict(model: Layer, params: Params, state: State, x: ArrayLike) -> Array:
    """The model's output in prediction mode: ``forward`` with ``train=False`` without its residuals.

    Args:
        model: any layer.
        params, state: its parameters and running statistics.
        x: features, ``(batch, ...)``.

    Returns:
        y, ``(batch, ...)``.

    Raises:
        ValueError, TypeError: features that don't fit the model; parameters or a state of another model.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from funcnn.models import mlp
        >>> model = mlp((2, 3, 1))
        >>> predict(model, *model.init(jax.random.key(0)), jnp.ones((5, 2))).shape
        (5, 1)
    """
    check_is_layer("predict(model)", model)
    check_fits(model, params, state, "predict")
    return _predict(params, state, numeric_array("predict(x)", x), model=model)


def evaluate(
    model: Layer,
    loss: Loss,
    params: Params,
    state: State,
    data: Data,
    *,
    metrics: Mapping[str, Metric] | None = None,
) -> dict[str, Scalar]:
    """Loss and metrics of a model in prediction mode.

    Args:
        model: any layer.
        loss: any loss.
        params, state: its parameters and running statistics.
        data: ``Batch(x, y)`` or ``(x, y)``.
        metrics: by name, ``(prediction, target) -> scalar``.

    Returns:
        Scalars by name: ``loss``, then the metrics.

    Raises:
        ValueError, TypeError: data that doesn't fit the model or the loss; a metric named ``loss``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from funcnn.losses import softmax_cross_entropy
        >>> from funcnn.metrics import accuracy
        >>> from funcnn.models import mlp
        >>> model = mlp((2, 3))
        >>> params, state = model.init(jax.random.key(0))
        >>> data = (jnp.ones((4, 2)), jnp.array([0, 1, 2, 0]))
        >>> sorted(evaluate(model, softmax_cross_entropy, params, state, data, metrics={"accuracy": accuracy}))
        ['accuracy', 'loss']
    """
    measures = checked_metrics("evaluate(metrics)", metrics)
    check_is_layer("evaluate(model)", model)
    check_is_loss("evaluate(loss)", loss)
    check_fits(model, params, state, "evaluate")
    batch = checked_data("evaluate(data)", model, loss, params, state, data)
    check_scalar_metrics(measures, model, params, state, batch)
    return _evaluate(params, state, batch, model=model, loss=loss, metrics=measures)


@partial(jax.jit, static_argnames="model")
def _predict(params, state, x, *, model):
    return model.forward(params, state, x, train=False)[0]


@partial(jax.jit, static_argnames=("model", "loss", "metrics"))
def _evaluate(params, state, batch, *, model, loss, metrics):
    prediction = model.forward(params, state, batch.x, train=False)[0]
    measured = {name: metric(prediction, batch.y) for name, metric in metrics}
    return {"loss": loss.forward(prediction, batch.y)[0], **measured}


@partial(jax.jit, static_argnames=("epochs", "batch_size", "model", "loss", "optimizer", "grad"))
def _run_epochs(carry, batch, key, first_epoch, *, epochs, batch_size, model, loss, optimizer, grad):
    """``epochs`` epochs from number ``first_epoch`` on: the carry after them, and the loss of every step."""
    value_and_grad = grad(model, loss)
    samples = batch.x.shape[0]
    full_steps, left_over = divmod(samples, batch_size)

    def step(carry, part):
        rows, step_key = part
        chosen = batch if rows is None else jax.tree.map(lambda array: array[rows], batch)
        (value, state), gradients = value_and_grad(carry.params, carry.state, chosen, key=step_key)
        check_same_tree("train(grad)", gradients, carry.params, "the parameters")
        updates, opt_state = optimizer.update(gradients, carry.opt_state, carry.params)
        return _Carry(optax.apply_updates(carry.params, updates), state, opt_state), value

    def epoch(carry, number):
        shuffle_key, steps_key = jax.random.split(jax.random.fold_in(key, number))
        if batch_size == samples:
            carry, value = step(carry, (None, steps_key))
            return carry, value[None]
        order = jax.random.permutation(shuffle_key, samples)
        step_keys = jax.random.split(steps_key, full_steps + 1)
        batches = order[: full_steps * batch_size].reshape(full_steps, batch_size)
        carry, values = lax.scan(step, carry, (batches, step_keys[:full_steps]))
        if left_over:
            carry, value = step(carry, (order[full_steps * batch_size :], step_keys[full_steps]))
            values = jnp.append(values, value)
        return carry, values

    return lax.scan(epoch, carry, first_epoch + jnp.arange(epochs))


def _begin(model, loss, optimizer, data, batch_size, key, grad, params, state):
    """The checked data, the batch size in samples, the first carry, and the key of the loop."""
    check_recipe(model, loss, optimizer, key, grad)
    init_key, loop_key = jax.random.split(key)
    params, state = starting_point(model, init_key, params, state)
    batch = checked_data("train(data)", model, loss, params, state, data)
    carry = _Carry(params, state, optimizer.init(params))
    return batch, samples_a_step(batch_size, batch.x.shape[0]), carry, loop_key


def _history(step_losses, samples, batch_size, validation):
    return History(_epoch_means(step_losses, samples, batch_size), step_losses, validation)


def _epoch_means(step_losses, samples, batch_size):
    """Mean over samples: the last short batch weighs as much as it holds."""
    shares = np.full(step_losses.shape[-1], batch_size / samples)
    shares[-1] = ((samples - 1) % batch_size + 1) / samples
    return (step_losses * jnp.asarray(shares, step_losses.dtype)[None, :]).sum(axis=-1)


def _call_back(callbacks, epoch, epochs, carry, losses, samples, batch_size, measured):
    newest = {name: float(value) for name, value in measured[-1].items()} if measured else {}
    mean = float(_epoch_means(losses, samples, batch_size)[0])
    for callback in callbacks:
        callback(Progress(epoch, epochs, mean, newest, carry.params, carry.state))
