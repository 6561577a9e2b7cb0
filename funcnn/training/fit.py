"""``fit``: training that a person leaves alone overnight. It watches, validates, saves, stops in time and goes on.

The steps are ``train``'s. They run in stretches: compiled calls between two moments at which something outside has to
happen, an epoch's validation, a checkpoint, a look at the clock.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from funcnn._checks import is_concrete, positive_integer
from funcnn._memoise import memoised
from funcnn.backprop import manual_value_and_grad
from funcnn.health import (
    HealthRecord,
    HealthReport,
    LayerMeasures,
    health_report,
    input_facts,
    layer_names,
    model_facts,
    target_facts,
)
from funcnn.training.checkpoints import Checkpoints, checked_checkpoints, opened
from funcnn.training.feeds import ArrayFeed, StreamFeed, is_stream
from funcnn.training.identity import told_data, told_recipe, told_start
from funcnn.training.input import (
    Data,
    Metric,
    batch_checker,
    beginning,
    check_path,
    check_scalar_metrics,
    checked_callbacks,
    checked_data,
    checked_metrics,
    samples_a_step,
)
from funcnn.training.loop import Run, begun, carried_out, checked_early, left, longest_stretch, resumed
from funcnn.training.placement import placement_on
from funcnn.training.predict import evaluate_batches, evaluate_checked
from funcnn.training.results import Progress, Trained
from funcnn.training.steps import Carry, Plan, Recipe
from funcnn.training.train import train
from funcnn.training.watchers import Tell, interruptible, json_lines, progress_bar, tensorboard_files
from funcnn.types import GradFn, Layer, Loss, Params, State

WATCHED_EVERY = 15
"""Steps between two that ``monitor`` measures: a measured one costs about half as much again."""


@memoised
def accumulated(optimizer: optax.GradientTransformation, count: int) -> optax.GradientTransformation:
    """The optimizer on the mean of ``count`` steps' gradients; equal calls give the same functions."""
    return optax.MultiSteps(optimizer, count).gradient_transformation() if count > 1 else optimizer


class _Watching(NamedTuple):
    """Who is to look on: the arguments of ``fit`` that say so."""

    progress: bool
    log: str | os.PathLike | None
    tensorboard: str | os.PathLike | None


def fit(
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    data: Data | Iterable | Callable[[int], Iterable],
    *,
    epochs: int,
    batch_size: int | None = None,
    key: PRNGKeyArray,
    grad: Callable[[Layer, Loss], GradFn] = manual_value_and_grad,
    params: Params | None = None,
    state: State | None = None,
    validation: Data | Iterable | None = None,
    validate_every: int = 1,
    metrics: Mapping[str, Metric] | None = None,
    patience: int | None = None,
    watch: str = "loss",
    better: Literal["lower", "higher"] = "lower",
    accumulate: int = 1,
    callbacks: Iterable[Callable[[Progress], Any]] = (),
    progress: bool = False,
    log: str | os.PathLike | None = None,
    tensorboard: str | os.PathLike | None = None,
    checkpoints: Checkpoints | str | os.PathLike | None = None,
    mesh: Mesh | None = None,
    monitor: bool | int = False,
) -> Trained:
    """``train`` for a run that is watched: validation, early stopping, checkpoints, data larger than memory, a mesh.

    Without any of these the whole run is one compiled call. A second call with an equal model, loss, optimizer and
    shapes compiles nothing; schedules and initializers are equal where they are the same object. Learning rates may be
    schedules and gradients may be clipped: that is the optimizer's, ``optax.chain(clip_by_global_norm(1.0), adam(…))``.

    The first loss that isn't finite stops training. With ``checkpoints``, a run that was killed and is called again
    with the same arguments goes on from its newest checkpoint and ends with the same parameters to the last bit as one
    that never stopped, where version and device are the same; Ctrl-C and SIGTERM save before they leave, except in one
    of several processes, which can only save together. What is compared with the checkpoint: key, data and batch size,
    the shapes of everything, the names and settings of the layers, loss and gradient, the sizes of the optimizer's
    first three updates, and how it is validated; of an iterable's data nothing.

    Args:
        model, loss, optimizer, key, grad, params, state: as for ``train``.
        data: ``Batch(x, y)`` or ``(x, y)`` in memory; or an iterable of batches ``(x, y)`` that can be read once an
            epoch (a list, a loader, grain's among them), or ``(epoch) -> iterable``, epochs from 0. Batches of an
            iterable are read while the device computes, and taken in its order; to go on to the last bit, that order
            has to be the epoch's alone. In several processes each reads its own part of every batch.
        epochs: passes over the data.
        batch_size: samples a step, ``None`` for all of them; not given for an iterable, whose batches have their own.
        validation: data to evaluate on, in memory or an iterable of batches.
        validate_every: epochs between two validations; the last epoch is always followed by one.
        metrics: by name, ``(prediction, target) -> scalar``, evaluated on the validation data beside the loss.
        patience: validations without a better ``watch`` after which training stops; the best parameters and state are
            returned, the optimizer's state is the newest. ``None`` trains to the end and returns the newest.
        watch: the validation figure that patience judges by.
        better: whether a lower or a higher figure is better.
        accumulate: steps whose gradients are averaged for one update (``optax.MultiSteps``).
        callbacks: each called with a ``Progress`` after every epoch; one that returns ``True`` ends training there. In
            several processes all have to answer alike.
        progress: whether to show a bar with the loss, steps a second and the time left.
        log: a file for a JSON line after every epoch; what stands in it is replaced, unless the run goes on.
        tensorboard: a folder for TensorBoard's event files.
        checkpoints: a folder of the run's own, or ``Checkpoints(folder, every=…, keep=…, damaged=…)``.
        mesh: devices to share the work: its first axis splits the batch, a second one splits wide kernels by columns.
            The result is that of one device, to rounding.
        monitor: whether to measure what every layer does at every 15th step, or at every n-th, and to say at the end in
            the history whether the run was well: ``print(trained.history.health)``.

    Returns:
        The trained parameters, state, optimizer state and history.

    Raises:
        ValueError: as ``train``; also metrics or patience without validation data, validation data that doesn't fit, a
            batch size that the mesh can't split, an iterable without batches.
        TypeError: as ``train``.
        DivergenceError: a loss or a parameter isn't finite. The error says at which step, what had grown how large and
            what to try; the last finite parameters are in its ``trained``, and in the checkpoint.
        CheckpointError: the newest checkpoint is damaged, or of another run.
        ModuleNotFoundError: an argument needs a library that isn't installed; the message says how to install it.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from funcnn.losses import mean_squared_error
        >>> from funcnn.models import perceptron
        >>> from funcnn.layers.activations import identity
        >>> from funcnn.optimizers import sgd
        >>> x = jnp.linspace(-1.0, 1.0, 16)[:, None]
        >>> trained = fit(
        ...     perceptron(1, identity), mean_squared_error, sgd(0.2), (x, 3 * x), epochs=100, batch_size=4,
        ...     key=jax.random.key(0), validation=(x, 3 * x), patience=5,
        ... )
        >>> print(bool(abs(trained.params[0].kernel - 3).max() < 1e-3), trained.history.loss.shape[0] <= 100)
        True True
    """
    epochs = positive_integer("fit(epochs)", epochs)
    validate_every = positive_integer("fit(validate_every)", validate_every)
    measures = checked_metrics("fit(metrics)", metrics)
    if measures and validation is None:
        raise ValueError("fit(metrics): expected validation data to evaluate the metrics on; pass validation=(x, y).")
    if patience is not None:
        patience = positive_integer("fit(patience)", patience)
    early = checked_early(patience, watch, better, (name for name, _ in measures), validation is not None)
    callbacks = checked_callbacks(callbacks)
    settings = checked_checkpoints(checkpoints)
    check_path("fit(log)", log)
    check_path("fit(tensorboard)", tensorboard)
    watching = _Watching(progress, log, tensorboard)
    accumulate = positive_integer("fit(accumulate)", accumulate)
    if not is_stream(data) and not is_concrete(key, *jax.tree.leaves(data)):
        if validation is not None or callbacks or settings or mesh is not None or any(watching) or monitor:
            raise ValueError("fit: expected concrete arrays, got tracers: under jit and vmap no epoch ends; use train.")
        return train(
            model, loss, accumulated(optimizer, accumulate), cast(Data, data), epochs=epochs, batch_size=batch_size,
            key=key, grad=grad, params=params, state=state,
        )  # fmt: skip
    given = (params, state)
    params, state, loop_key = beginning("fit", model, loss, optimizer, key, grad, params, state)
    watched = _watched_every(monitor)
    recipe = Recipe(model, loss, accumulated(optimizer, accumulate), grad, 0, placement_on(mesh, batch_size), watched)
    longest = partial(
        longest_stretch, epochs=epochs, validate_every=validate_every if validation is not None else None,
        looks_every_epoch=bool(callbacks or any(watching) or (settings and settings.every is None)),
        save_every=settings and settings.every,
    )  # fmt: skip
    recipe, feed = _feed(recipe, data, batch_size, epochs, loop_key, params, state, longest)
    validate = _validation(recipe, measures, validation, params, state)
    carry = Carry(params, state, recipe.optimizer.init(params))
    standing = begun(carry if recipe.placement is None else recipe.placement.put(carry))
    configuration: dict[str, Any] = {}
    if settings:
        kept = None if is_stream(data) else cast(Data, data)
        held_out = None if validation is None or is_stream(validation) else cast(Data, validation)
        configuration = told_start(key, given) | told_data("data", kept) | told_data("validation", held_out)
        configuration |= told_recipe(recipe, carry)
        configuration |= {"validate": [validation is not None, validate_every, sorted(name for name, _ in measures)]}
        configuration |= {"early": early and list(early)}
    with contextlib.ExitStack() as stack:
        elsewhere = None if recipe.placement is None else recipe.placement.everywhere
        run = Run(
            recipe, feed, epochs, validate, validate_every, early, callbacks,
            store=stack.enter_context(opened(settings, elsewhere)), save_every=settings and settings.every,
            configuration=configuration, tells=(), has_bar=progress,
            interrupted=stack.enter_context(interruptible(settings is not None)), began=time.monotonic(), diagnose=None,
        )  # fmt: skip
        standing = resumed(run, standing)
        sample = data
        if isinstance(feed, StreamFeed):
            sample = feed.first() if standing.epoch < epochs else feed.any_batch()
        diagnose = partial(_health, recipe, sample, validate_every) if watched else None
        run = run._replace(tells=tuple(_tells(stack, watching, run, standing)), diagnose=diagnose)
        standing = carried_out(run, standing)
    return left(run, standing)


def _feed(recipe, data, batch_size, epochs, key, params, state, longest):
    """The recipe with its batch size, and where the batches come from."""
    model, loss = recipe.model, recipe.loss
    if is_stream(data):
        if batch_size is not None:
            raise ValueError(
                f"fit(batch_size): expected none for an iterable, whose batches have their own size, got {batch_size}."
            )
        if isinstance(data, Iterator) and epochs > 1:
            raise ValueError(
                "fit(data): expected an iterable that can be read once an epoch, got an iterator, which is used up "
                "after one. Pass a list, a loader, or a function of the epoch that makes an iterable."
            )
        return recipe, StreamFeed(data, key, recipe, batch_checker("fit(data)", model, loss, params, state))
    batch = checked_data("fit(data)", model, loss, params, state, data)
    recipe = recipe._replace(batch_size=samples_a_step("fit", batch_size, len(batch.x)))
    if recipe.placement is not None:
        batch, key = recipe.placement.copy(batch), recipe.placement.copy(key)
    steps = Plan(len(batch.x), recipe.batch_size).steps
    return recipe, ArrayFeed(batch, key, recipe, longest(steps))


def _watched_every(monitor) -> int:
    """The distance between two watched steps, 0 for none."""
    if isinstance(monitor, bool):
        return WATCHED_EVERY if monitor else 0
    return positive_integer("fit(monitor)", monitor)


def _health(recipe, data, validate_every, ledger) -> HealthReport:
    """What the watched steps of a run say of it; of an iterable's data one batch stands for all."""
    x, y = (np.asarray(part) for part in data)
    figures = {name: np.concatenate(pieces) for name, pieces in ledger.figures.items()}
    losses = np.concatenate(ledger.losses).astype(np.float64)
    held_out = ledger.validation.get("loss", []) if validate_every == 1 else []
    ratios = figures.pop("update_ratios")
    measures = LayerMeasures(**{name: jnp.asarray(array) for name, array in figures.items()})
    record = HealthRecord(
        layer_names(recipe.model), np.concatenate(ledger.watched), measures, ratios, losses,
        np.array(held_out, np.float64), input_facts(x), target_facts(y, recipe.loss),
    )  # fmt: skip
    return health_report(record, model_facts(recipe.model, int(np.concatenate(ledger.sizes).max())))


def _validation(recipe, measures, validation, params, state):
    """``(carry) -> figures`` on the validation data, ``None`` without any."""
    if validation is None:
        return None
    model, loss = recipe.model, recipe.loss
    measure = {"model": model, "loss": loss, "metrics": measures}
    if is_stream(validation):
        if isinstance(validation, Iterator) or callable(validation):
            raise ValueError(
                "fit(validation): expected arrays or an iterable that can be read again, got an iterator or a "
                "function. Pass a list or a loader."
            )
        checked = batch_checker("fit(validation)", model, loss, params, state)
        first = next(iter(validation), None)
        if first is None:
            raise ValueError("fit(validation): expected an iterable of batches (x, y), got an empty one.")
        check_scalar_metrics(measures, model, params, state, checked(first))
        return lambda carry: evaluate_batches(carry.params, carry.state, map(checked, validation), **measure)
    held_out = checked_data("fit(validation)", model, loss, params, state, validation)
    check_scalar_metrics(measures, model, params, state, held_out)
    if recipe.placement is not None:
        held_out = recipe.placement.copy(held_out)
    return lambda carry: evaluate_checked(carry.params, carry.state, held_out, **measure)


def _tells(stack, watching, run, standing) -> Iterator[Tell]:
    """Whoever looks on, entered into ``stack``; in several processes the first one tells."""
    if jax.process_index():
        return
    if watching.progress:
        yield stack.enter_context(progress_bar(run.epochs, run.feed.steps, standing.position, standing.epoch))
    if watching.log is not None:
        yield stack.enter_context(json_lines(watching.log, standing.epoch))
    if watching.tensorboard is not None:
        yield stack.enter_context(tensorboard_files(watching.tensorboard, standing.position))
