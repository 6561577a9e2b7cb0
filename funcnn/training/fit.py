"""``fit``: training for long runs, with validation, early stopping, callbacks, checkpoints and a health report.

The steps are those of ``train``. They run in stretches: compiled calls between two moments at which something outside
is due, such as a validation, a checkpoint or an update of the progress bar.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from funcnn._checks import checked_bool, is_concrete, positive_integer
from funcnn._memoise import memoised
from funcnn.backprop import manual_value_and_grad
from funcnn.health import (
    HealthRecord,
    HealthReport,
    LayerMeasures,
    health_report,
    input_facts,
    model_facts,
    target_facts,
)
from funcnn.health.rise import warn_of_rise
from funcnn.layers.traversal import layer_names
from funcnn.training.batches import ArrayBatches, StreamBatches, is_stream
from funcnn.training.callbacks import Callbacks, JSONLines, TensorBoard, checked_callbacks
from funcnn.training.checkpoints import Checkpoints, checked_checkpoints
from funcnn.training.early_stopping import EarlyStopping, checked_early_stopping
from funcnn.training.input import (
    Data,
    Metric,
    batch_checker,
    check_setup,
    check_targets,
    checked_batch,
    checked_batch_size,
    checked_metrics,
    given_or_shapes,
    start,
)
from funcnn.training.interrupts import Interrupts
from funcnn.training.loop import longest_stretch, run_to_end
from funcnn.training.narrow import warn_of_epsilon
from funcnn.training.observers import open_observers
from funcnn.training.placement import placement_on
from funcnn.training.results import Progress, Trained
from funcnn.training.resume import open_and_resume
from funcnn.training.run import Run, RunState, initial_state
from funcnn.training.run_identity import (
    Identity,
    batch_shapes,
    batches_identity,
    data_identity,
    run_identity,
    validation_identity,
)
from funcnn.training.steps import Carry, Plan, TrainingSetup, initial_opt_state
from funcnn.training.store import import_orbax
from funcnn.training.train import train
from funcnn.training.validation import Validation, checked_held_out, checked_validation, validation_function
from funcnn.types import GradFn, Layer, Loss, Params, State

MOST_NUMBERED = 2**31 - 1
"""The most epochs and steps that 32-bit integers can number."""

MONITOR_EVERY = 15
"""Steps between two that ``monitor=True`` measures. A monitored step takes about half as long again."""


@memoised
def accumulated(optimizer: optax.GradientTransformation, count: int) -> optax.GradientTransformation:
    """Return the optimizer on the mean of ``count`` steps' gradients. Equal calls return the same functions."""
    if count == 1 or not hasattr(optimizer, "update"):  # What is no optimizer is refused with the other arguments.
        return optimizer
    return optax.MultiSteps(optimizer, count).gradient_transformation()


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
    validation: Data | Iterable | Validation | None = None,
    metrics: Mapping[str, Metric] | None = None,
    early_stopping: EarlyStopping | None = None,
    callbacks: Iterable[Callable[[Progress], Any] | JSONLines | TensorBoard] = (),
    checkpoints: Checkpoints | str | os.PathLike | None = None,
    progress: bool = False,
    monitor: bool | int = False,
    accumulate: int = 1,
    mesh: Mesh | None = None,
) -> Trained:
    """Train a model like ``train``, with validation, early stopping, callbacks, checkpoints and data in batches.

    The steps run in compiled stretches of less than a second, of up to five seconds where the parameters are large. A
    second call with an equal model, loss, optimizer and shapes compiles nothing; schedules and initializers are equal
    where they are the same object. Schedules of the learning rate and clipping belong to the optimizer:
    ``optax.chain(clip_by_global_norm(1.0), adam(schedule))``.

    Training stops at the first loss that is not finite. With ``checkpoints``, a run that was killed and is called again
    with the same arguments resumes from its newest checkpoint. It ends with the same parameters, bit by bit, as a run
    without interruption on the same versions and device. The same run has the same traced programs of model, loss,
    gradient and optimizer with their constants, the same fingerprints of all data, and the same settings of JAX that
    change numbers. Functions that a program calls on the host are not compared.

    Ctrl-C and SIGTERM end a run after the stretch in progress. Stretches of large parameters, and steps, compilations
    and validations of more than a second, are not waited for: they go on in a thread, which Python joins before the
    process exits, without effect. With checkpoints the run is saved first, except with several processes, which can
    only save together. The error that ends a run has the result so far as ``.trained``, ``None`` before the initial
    parameters exist. A file, bar or checkpoint that cannot be written becomes a warning, and training goes on.

    Args:
        model, loss, optimizer, key, grad, params, state: as for ``train``.
        data: ``Batch(x, y)`` or ``(x, y)`` in memory; or an iterable of batches ``(x, y)`` that can be read once in
            every epoch (a list or a loader, such as grain's); or ``(epoch) -> iterable``, with epochs from 0. Batches
            of an iterable are read while the device computes, and used in its order. To resume, the order may depend
            on the epoch alone: the next batches are compared with those of the checkpoint. With several
            processes, each reads its own part of every batch.
        epochs: passes over the data.
        batch_size: samples of a step, ``None`` for all of them. It stays ``None`` for an iterable of batches.
        validation: data to evaluate on after every epoch, in memory or an iterable of batches; or
            ``Validation(data, every=n)`` to evaluate after every n-th epoch and the last. To resume, arrays and lists
            of batches are compared, other iterables are not.
        metrics: by name, ``(prediction, target) -> scalar``, evaluated on the validation data in addition to the loss.
        early_stopping: ``EarlyStopping(patience, monitor="loss", mode="min")`` stops when a validation figure no longer
            improves, and returns the best parameters and state. ``None`` trains to the end and returns the newest.
        callbacks: functions that are called with a ``Progress`` after every epoch, ``JSONLines(path)`` and
            ``TensorBoard(folder)``. Training ends where a function returns ``True``, or an array that holds it alone.
            A number does not end it, because functions such as ``file.write`` return one, and gets a warning. With
            several processes, all have to return the same.
        checkpoints: a folder for this run alone, or ``Checkpoints(folder, every=…, keep=…, …)``. While the run lasts,
            no other can use the folder.
        progress: whether to show a bar; without a terminal, a line at the start, every 25 seconds and at the end.
        monitor: ``True`` measures every layer at every 15th step, a number n at every n-th. The report is in the
            history: ``print(trained.history.health)``.
        accumulate: steps whose gradients are averaged for one update (``optax.MultiSteps``).
        mesh: devices that share the work. Its first axis splits the batch, a second one splits wide kernels by columns.
            The result is that of one device up to rounding.

    Returns:
        The trained parameters, state, optimizer state and history.

    Raises:
        ValueError, TypeError: as ``train``; also metrics or early stopping without validation data, such data that does
            not fit, a batch that the mesh cannot split, an iterable without batches, a file that cannot be written.
        DivergenceError: a loss or a parameter is not finite. The message holds the step, the largest numbers there and
            what to try. The last finite parameters are in ``error.trained`` and in the checkpoint.
        CheckpointError: the newest checkpoint is damaged, or of another run; another run is using the folder; the last
            checkpoint could not be written. Like ``DivergenceError`` it is a ``RunError``.
        KeyboardInterrupt, SystemExit: Ctrl-C or SIGTERM.
        ModuleNotFoundError: an argument needs a library that is not installed. The message says how to install it.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from funcnn.losses import mean_squared_error
        >>> from funcnn.models import perceptron
        >>> from funcnn.layers.activations import identity
        >>> from funcnn.optimizers import sgd
        >>> x = jnp.linspace(-1.0, 1.0, 16)[:, None]
        >>> trained = fit(
        ...     perceptron(1, identity), mean_squared_error, sgd(0.2), (x, 3 * x), epochs=100, batch_size=4,
        ...     key=jax.random.key(0), validation=(x, 3 * x), early_stopping=EarlyStopping(5),
        ... )
        >>> print(bool(abs(trained.params[0].kernel - 3).max() < 1e-3), trained.history.loss.shape[0] <= 100)
        True True
    """
    options = _checked_options(
        epochs, validation, metrics, early_stopping, callbacks, checkpoints, progress, monitor, accumulate
    )
    plain, optimizer = optimizer, accumulated(optimizer, options.accumulate)
    if not is_stream(data) and not is_concrete(key, *jax.tree.leaves(data)):
        if mesh is not None or options.need_concrete_arrays:
            raise ValueError("fit: expected concrete arrays, got tracers: under jit and vmap no epoch ends. Use train.")
        return train(
            model, loss, optimizer, cast(Data, data), epochs=options.epochs, batch_size=batch_size,
            key=key, grad=grad, params=params, state=state,
        )  # fmt: skip
    given, placement, interrupts = (params, state), placement_on(mesh, batch_size), Interrupts()
    with interrupts.deferred(), contextlib.ExitStack() as stack:
        with interrupts.before_the_loop():
            check_setup("fit", model, loss, optimizer, key, grad)
            trees = given_or_shapes("fit", model, params, state)
            data, options = _checked_inputs(model, loss, trees, data, options)
            params, state, loop_key = start(model, key, params, state, trees[1])
            warn_of_epsilon("fit", plain, params)
            setup = TrainingSetup(model, loss, optimizer, grad, 0, placement, options.monitor_every)
            setup, batches = _batches(setup, data, batch_size, loop_key, params, state, options, interrupts)
            validate = validation_function(setup, options.metrics, options.validation, params, state, interrupts)
            carry = Carry(params, state, initial_opt_state(params, optimizer=optimizer))
            identity = None
            if options.checkpoints is not None:
                interrupts.in_thread(import_orbax)
                identity = _identity(setup, carry, data, key, given, options, interrupts)
            at = initial_state(carry if placement is None else placement.put(carry), (setup, batches.program))
        trained = _drive(stack, setup, batches, validate, identity, at, data, options, interrupts)
    if not options.monitor_every and options.early_stopping is None:
        warn_of_rise("fit", np.asarray(trained.history.step_loss))
    return trained


class _Options(NamedTuple):
    """The checked arguments that ``fit`` has in addition to ``train``'s, ``mesh`` excepted."""

    epochs: int
    validation: Validation | None
    metrics: tuple[tuple[str, Callable], ...]
    early_stopping: EarlyStopping | None
    callbacks: Callbacks
    checkpoints: Checkpoints | None
    progress: bool
    monitor_every: int
    accumulate: int

    @property
    def validate_every(self) -> int:
        return 1 if self.validation is None else self.validation.every

    @property
    def save_every(self) -> int | None:
        return None if self.checkpoints is None else self.checkpoints.every

    @property
    def need_concrete_arrays(self) -> bool:
        has_data = self.validation is not None or self.checkpoints is not None
        return bool(has_data or self.progress or self.monitor_every or any(self.callbacks))

    def longest_stretch(self, steps: int) -> int:
        """Return the most steps between two stops, for epochs of ``steps`` steps."""
        observes = bool(self.progress or self.callbacks.functions or self.callbacks.writers)
        saves_every_epoch = self.checkpoints is not None and self.save_every is None
        validate_every = None if self.validation is None else self.validate_every
        return longest_stretch(steps, self.epochs, observes or saves_every_epoch, validate_every, self.save_every)


def _checked_options(
    epochs, validation, metrics, early_stopping, callbacks, checkpoints, progress, monitor, accumulate
) -> _Options:
    epochs = positive_integer("fit(epochs)", epochs)
    if epochs > MOST_NUMBERED:
        raise ValueError(
            f"fit(epochs): expected at most {MOST_NUMBERED}, which 32-bit integers can number, got {epochs}. Use fewer."
        )
    validation = checked_validation(validation)
    metrics = checked_metrics("fit(metrics)", metrics)
    if metrics and validation is None:
        raise ValueError("fit(metrics): expected validation data to evaluate, got none. Pass validation=(x, y).")
    early_stopping = checked_early_stopping(early_stopping, (name for name, _ in metrics), validation is not None)
    if isinstance(monitor, bool | np.bool_):
        monitor_every = MONITOR_EVERY if monitor else 0
    else:
        monitor_every = positive_integer("fit(monitor)", monitor, "True, False or a positive integer")
    return _Options(
        epochs, validation, metrics, early_stopping, checked_callbacks(callbacks), checked_checkpoints(checkpoints),
        checked_bool("fit(progress)", progress), monitor_every, positive_integer("fit(accumulate)", accumulate),
    )  # fmt: skip


def _checked_inputs(model, loss, trees, data, options) -> tuple[Any, _Options]:
    """Check all data in memory, before anything is compiled; ``trees`` are parameters and state, or their shapes.

    Returns:
        The data and the options, with data in memory as a ``Batch`` of arrays.
    """
    params, state = trees
    if not is_stream(data):
        data = checked_batch("fit(data)", model, loss, params, state, data)
    return data, options._replace(validation=checked_held_out(options.validation, model, loss, params, state))


def _batches(setup, data, batch_size, key, params, state, options, interrupts) -> tuple[TrainingSetup, Any]:
    """Return the setup with its batch size, and the source of the batches."""
    if is_stream(data):
        if batch_size is not None:
            raise ValueError(
                f"fit(batch_size): expected none for an iterable of batches, got {batch_size}. Leave batch_size out."
            )
        if isinstance(data, Iterator) and options.epochs > 1:
            raise ValueError(
                "fit(data): expected an iterable that can be read once an epoch, got an iterator, which is used up "
                "after one. Pass a list, a loader, or a function of the epoch that makes an iterable."
            )
        checked = batch_checker("fit(data)", setup.model, setup.loss, params, state)
        is_fingerprinted = options.checkpoints is not None
        if hasattr(data, "__len__"):
            _check_accumulate(options.accumulate, options.epochs * len(data))
        return setup, StreamBatches(data, key, setup, checked, interrupts, is_fingerprinted=is_fingerprinted)
    check_targets("fit(data)", setup.model, setup.loss, params, state, data)
    batch = data
    setup = setup._replace(batch_size=checked_batch_size("fit", batch_size, len(batch.x)))
    if setup.placement is not None:
        batch, key = setup.placement.copy(batch), setup.placement.copy(key)
    steps = Plan(len(batch.x), setup.batch_size).steps
    if options.epochs * steps > MOST_NUMBERED:
        raise ValueError(
            f"fit(epochs): expected at most {MOST_NUMBERED // steps} epochs of {steps} steps, which 32-bit integers "
            f"can number, got {options.epochs}. Take fewer; early stopping or a callback can end a run before."
        )
    _check_accumulate(options.accumulate, options.epochs * steps)
    return setup, ArrayBatches(batch, key, setup, options.longest_stretch(steps), interrupts)


def _check_accumulate(accumulate: int, steps: int) -> None:
    """Raise where a run has too few steps for a single update."""
    if accumulate > max(steps, 1):
        raise ValueError(
            f"fit(accumulate): expected at most the {steps} steps of the run, got {accumulate}: no parameter would "
            "ever be updated. Take fewer steps for an update, or more epochs."
        )


def _identity(setup, carry, data, key, given, options, interrupts) -> Identity:
    """Return what a checkpoint is compared with. While its programs are traced, signals act at once."""
    validation = None if options.validation is None else options.validation.data
    in_memory = [None if part is None or is_stream(part) else cast(Data, part) for part in (data, validation)]
    values = {
        **data_identity("data", in_memory[0]),
        **data_identity("validation", in_memory[1]),
        "validation.batches": batches_identity("fit(validation)", validation),
        "batch_size": setup.batch_size,
        "accumulate": options.accumulate,
        "monitor": setup.monitor_every,
        **validation_identity(
            options.validation is not None,
            options.validate_every,
            sorted(name for name, _ in options.metrics),
            options.early_stopping,
        ),
    }
    identity = run_identity(setup, carry, key, given, values, options.metrics)

    def programs(batch):
        with interrupts.at_once():
            return identity.programs(batch)

    return identity._replace(programs=programs)


def _drive(
    stack, setup, batches, validate, identity: Identity | None, at: RunState, data, options: _Options, interrupts
) -> Trained:
    """Open the checkpoints and the observers, resume, and run to the end."""
    store, replicated = None, setup.placement and setup.placement.replicated
    if options.checkpoints is not None and identity is not None:
        store, at = open_and_resume(stack, options.checkpoints, replicated, identity, batches, options.epochs, at)
    if isinstance(batches, StreamBatches):
        data = batches.first() if at.epoch < options.epochs and not at.is_over else batches.any_batch()
    run = Run(
        setup=setup,
        batches=batches,
        epochs=options.epochs,
        validate=validate,
        validate_every=options.validate_every,
        early_stopping=options.early_stopping,
        callbacks=options.callbacks.functions,
        store=store,
        save_every=options.save_every,
        identity={} if identity is None else identity.description(batch_shapes(data, setup.batch_size or None)),
        observers=open_observers(
            stack, options.callbacks, has_bar=options.progress, epochs=options.epochs, steps=batches.steps,
            step=at.position, epoch=at.epoch,
        ),
        interrupts=interrupts,
        start_time=time.monotonic(),
        diagnose=partial(_health, setup, data, batches, options.validate_every) if options.monitor_every else None,
    )  # fmt: skip
    return run_to_end(run, at)


def _health(setup, data, batches, validate_every, history) -> HealthReport:
    """Return the report on the monitored steps. One batch stands for the inputs of an iterable."""
    x, y = (np.asarray(part) for part in data)
    targets = batches.targets if isinstance(batches, StreamBatches) and batches.targets else [y]
    figures = {name: np.concatenate(pieces) for name, pieces in history.figures.items()}
    losses = np.concatenate(history.losses).astype(np.float64)
    held_out = history.validation.get("loss", []) if validate_every == 1 else []
    ratios = figures.pop("update_ratios")
    measures = LayerMeasures(**{name: jnp.asarray(array) for name, array in figures.items()})
    record = HealthRecord(
        layer_names(setup.model), np.concatenate(history.monitored), measures, ratios, losses,
        np.array(held_out, np.float64), input_facts(x),
        target_facts(np.concatenate(targets), setup.loss, [len(part) for part in targets]),
    )  # fmt: skip
    return health_report(record, model_facts(setup.model, int(np.concatenate(history.sizes).max())))
