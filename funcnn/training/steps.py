"""The compiled loops: one step, whole epochs as a scan, and a range of steps as a loop.

Every epoch shuffles the samples anew. Samples that do not fill a batch form a last, shorter batch. The random numbers
of epoch ``e`` are folded from the run's key and ``e``, so they do not depend on where a run is divided into calls.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, PRNGKeyArray

from funcnn._tree_checks import check_same_tree
from funcnn._untraceable import errors_of_tracing
from funcnn.health.measures import LayerMeasures, monitored_value_and_grad, update_ratios
from funcnn.training.placement import Placement
from funcnn.training.shuffle import random_order
from funcnn.types import Batch, GradFn, Layer, Loss, Params, Scalar, State


class Carry(NamedTuple):
    """The values that one step passes to the next."""

    params: Params
    state: State
    opt_state: optax.OptState


class TrainingSetup(NamedTuple):
    """The settings that stay fixed during training. Equal settings are compiled once.

    Fields:
        model, loss, optimizer, grad: the arguments of ``train``.
        batch_size: samples of a step.
        placement: how a mesh of devices shares the work; ``None`` for one device.
        monitor_every: steps between two monitored steps, 0 for no monitoring.
    """

    model: Layer
    loss: Loss
    optimizer: optax.GradientTransformation
    grad: Callable[[Layer, Loss], GradFn]
    batch_size: int
    placement: Placement | None = None
    monitor_every: int = 0


class Plan(NamedTuple):
    """How an epoch is divided into steps: full batches, and a shorter one for the remaining samples."""

    samples: int
    batch_size: int

    @property
    def full_steps(self) -> int:
        return self.samples // self.batch_size

    @property
    def remainder(self) -> int:
        return self.samples % self.batch_size

    @property
    def steps(self) -> int:
        return self.full_steps + bool(self.remainder)

    def size_of(self, step: int) -> int:
        """Return the number of samples in an epoch's ``step``-th batch."""
        return self.batch_size if step < self.full_steps else self.remainder


class _EpochDraw(NamedTuple):
    """The random choices of an epoch: the order of its samples, and the key from which its steps' keys are folded."""

    order: Array | None
    key: PRNGKeyArray

    def key_of(self, step) -> PRNGKeyArray:
        return jax.random.fold_in(self.key, step)


class Figures(NamedTuple):
    """The measurements of a monitored step, an array of shape ``(layers,)`` for each."""

    measures: LayerMeasures
    update_ratios: Array


@partial(jax.jit, static_argnames="optimizer")
def initial_opt_state(params: Params, *, optimizer: optax.GradientTransformation) -> optax.OptState:
    """Return the optimizer's initial state, by one call for all its arrays."""
    return optimizer.init(params)


def one_step(setup: TrainingSetup, carry: Carry, batch: Batch, key: PRNGKeyArray | None) -> tuple[Carry, Scalar]:
    """Return the carry after one update, and the loss of the batch before it."""
    value_and_grad = setup.grad(setup.model, setup.loss)
    with errors_of_tracing("train(grad)"):
        (value, state), gradients = value_and_grad(carry.params, carry.state, _split(setup, batch), key=key)
    return _apply_update(setup, carry, gradients, state)[0], value


def monitored_step(
    setup: TrainingSetup, carry: Carry, batch: Batch, key: PRNGKeyArray | None
) -> tuple[Carry, Scalar, Figures]:
    """Return what ``one_step`` returns, and the measurements of every layer."""
    value_and_grad = monitored_value_and_grad(setup.model, setup.loss, setup.grad)
    batch = _split(setup, batch)
    (value, state), gradients, measures = value_and_grad(carry.params, carry.state, batch, key=key)
    after, updates = _apply_update(setup, carry, gradients, state)
    return after, value, Figures(measures, update_ratios(setup.model, updates, carry.params))


def _split(setup, batch):
    return batch if setup.placement is None else setup.placement.split_batch(batch)


def _apply_update(setup, carry, gradients, state):
    check_same_tree("train(grad)", gradients, carry.params, "the parameters")
    updates, opt_state = setup.optimizer.update(gradients, carry.opt_state, carry.params)
    carry = Carry(optax.apply_updates(carry.params, updates), state, opt_state)
    return (carry if setup.placement is None else setup.placement.keep(carry)), updates


@partial(jax.jit, static_argnames=("epochs", "setup"))
def run_epochs(
    carry: Carry, data: Batch, key: PRNGKeyArray, *, epochs: int, setup: TrainingSetup
) -> tuple[Carry, Array]:
    """Run whole epochs as a scan. Return the carry and the losses, ``(epochs, steps)``."""
    plan = Plan(data.x.shape[0], setup.batch_size)

    def epoch(carry, number):
        drawn = _draw(plan, key, number)

        def full_step(carry, step):
            return one_step(setup, carry, _full_batch(plan, data, drawn, step), drawn.key_of(step))

        if plan.steps == 1:
            carry, value = full_step(carry, 0)
            return carry, value[None]
        carry, values = lax.scan(full_step, carry, jnp.arange(plan.full_steps))
        if plan.remainder:
            carry, value = one_step(setup, carry, _short_batch(plan, data, drawn), drawn.key_of(plan.full_steps))
            values = jnp.append(values, value)
        return carry, values

    return lax.scan(epoch, carry, jnp.arange(epochs))


class _Loop(NamedTuple):
    position: Array
    carry: Carry
    losses: Array
    figures: Figures | tuple[()]


class StepsResult(NamedTuple):
    """The result of a range of steps: losses ``(capacity,)``, the monitored steps' figures, the position reached."""

    carry: Carry
    losses: Array
    figures: Figures | tuple[()]
    position: Array


class _Range(NamedTuple):
    """The steps of a run from ``start`` on, of which every ``setup.monitor_every``-th may be monitored.

    ``first_monitored`` is the first such step. A part, ``(batch, key)``, is what a step is taken on.
    """

    setup: TrainingSetup
    start: Array
    first_monitored: Array

    def take_step(self, loop: _Loop, part, *, is_monitored: bool) -> _Loop:
        batch, step_key = part
        figures = loop.figures
        if is_monitored:
            after, value, measured = monitored_step(self.setup, loop.carry, batch, step_key)
            row = (loop.position - self.first_monitored) // self.setup.monitor_every
            figures = jax.tree.map(lambda kept, new: kept.at[row].set(new), figures, measured)
        else:
            after, value = one_step(self.setup, loop.carry, batch, step_key)
        losses = loop.losses.at[loop.position - self.start].set(value)
        return _Loop(loop.position + 1, after, losses, figures)

    def take_step_monitored_if_due(self, loop: _Loop, part) -> _Loop:
        """Take one step. A branch copies the carry, so not every step goes through one."""
        if not self.setup.monitor_every:
            return self.take_step(loop, part, is_monitored=False)
        monitored, plain = (partial(self.take_step, is_monitored=is_monitored) for is_monitored in (True, False))
        return lax.cond(loop.position % self.setup.monitor_every == 0, monitored, plain, loop, part)

    def take_steps_until(self, loop: _Loop, end: Array, part_at: Callable[[Array], Any]) -> _Loop:
        """Take blocks of one step that may be monitored, followed by the steps up to the next such one."""

        def plain_steps(loop, end):
            def step(loop):
                return self.take_step(loop, part_at(loop.position), is_monitored=False)

            return lax.while_loop(_is_before(end), step, loop)

        def block(loop):
            every = self.setup.monitor_every
            block_end = jnp.minimum(end, (loop.position // every + 1) * every)
            return plain_steps(self.take_step_monitored_if_due(loop, part_at(loop.position)), block_end)

        return lax.while_loop(_is_before(end), block, loop) if self.setup.monitor_every else plain_steps(loop, end)


def _is_before(end: Array) -> Callable[[_Loop], Array]:
    # Losses are looked at after the range: a test of each costs small networks a tenth of their speed.
    return lambda loop: loop.position < end


@partial(jax.jit, static_argnames=("capacity", "setup"))
def run_steps(
    carry: Carry, data: Batch, key: PRNGKeyArray, start: Array, stop: Array, *, capacity: int, setup: TrainingSetup
) -> StepsResult:
    """Run the steps ``start`` to ``stop``, counted over all epochs.

    One program serves every range of at most ``capacity`` steps, so that the arithmetic of a step does not depend on
    where a run is divided. The carry is not donated: after a loss that is not finite, the steps are repeated from it.
    """
    plan, every = Plan(data.x.shape[0], setup.batch_size), setup.monitor_every
    steps = _Range(setup, start, -(-start // every) * every if every else start)

    def epoch(loop):
        number = loop.position // plan.steps
        drawn, first = _draw(plan, key, number), number * plan.steps
        last = jnp.minimum(stop, first + plan.full_steps)
        loop = steps.take_steps_until(
            loop, last, lambda at: (_full_batch(plan, data, drawn, at - first), drawn.key_of(at - first))
        )
        if not plan.remainder:
            return loop
        is_due = (loop.position < stop) & (loop.position == first + plan.full_steps)
        short = (_short_batch(plan, data, drawn), drawn.key_of(plan.full_steps))
        return lax.cond(is_due, steps.take_step_monitored_if_due, lambda loop, part: loop, loop, short)

    initial = _initial_loop(setup, plan, carry, data, key, start, capacity)
    if plan.steps == 1:
        loop = steps.take_steps_until(initial, stop, lambda at: (data, _draw(plan, key, at).key_of(0)))
    else:
        loop = lax.while_loop(_is_before(stop), epoch, initial)
    carry = loop.carry if setup.placement is None else setup.placement.keep(loop.carry)
    return StepsResult(carry, loop.losses, loop.figures, loop.position)


def _initial_loop(setup, plan, carry, data, key, start, capacity) -> _Loop:
    """Return the loop before its first step, with arrays allocated for the results of its steps."""
    batch = jax.tree.map(lambda array: array[: plan.batch_size], data)
    loss = jax.eval_shape(partial(one_step, setup), carry, batch, key)[1]
    losses = jnp.zeros(capacity, loss.dtype)
    figures: Figures | tuple[()] = ()
    if setup.monitor_every:
        measured = jax.eval_shape(partial(monitored_step, setup), carry, batch, key)[2]
        count = capacity // setup.monitor_every + 1
        figures = jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), measured)
    return _Loop(start, carry, losses, figures)


@partial(jax.jit, static_argnames=("setup", "is_monitored"))
def run_batch(
    carry: Carry, batch: Batch, key: PRNGKeyArray, position: Array, *, setup: TrainingSetup, is_monitored: bool = False
) -> tuple[Carry, Scalar, Figures | tuple[()]]:
    """Run one step on a given batch. Its key is folded from the run's key and the step's number."""
    step_key = jax.random.fold_in(key, position)
    if is_monitored:
        return monitored_step(setup, carry, batch, step_key)
    return *one_step(setup, carry, batch, step_key), ()


@partial(jax.jit, static_argnames="setup")
def batch_and_key(
    data: Batch, key: PRNGKeyArray, position: Array, *, setup: TrainingSetup
) -> tuple[Batch, PRNGKeyArray]:
    """Return the batch and the key of ``run_steps`` at a position. A shorter last batch is padded at its end."""
    plan = Plan(data.x.shape[0], setup.batch_size)
    drawn, step = _draw(plan, key, position // plan.steps), position % plan.steps
    if drawn.order is None:
        return data, drawn.key_of(0)
    rows = lax.dynamic_slice_in_dim(jnp.pad(drawn.order, (0, plan.batch_size)), step * plan.batch_size, plan.batch_size)
    return _gather(data, rows), drawn.key_of(step)


def _draw(plan: Plan, key: PRNGKeyArray, number: Array) -> _EpochDraw:
    shuffle_key, steps_key = jax.random.split(jax.random.fold_in(key, number))
    return _EpochDraw(None if plan.steps == 1 else random_order(shuffle_key, plan.samples), steps_key)


def _full_batch(plan, data, drawn, step) -> Batch:
    if drawn.order is None:
        return data
    return _gather(data, lax.dynamic_slice_in_dim(drawn.order, step * plan.batch_size, plan.batch_size))


def _short_batch(plan, data, drawn) -> Batch:
    return _gather(data, drawn.order[plan.full_steps * plan.batch_size :])


def _gather(data, rows) -> Batch:
    return jax.tree.map(lambda array: array.at[rows].get(mode="promise_in_bounds"), data)
