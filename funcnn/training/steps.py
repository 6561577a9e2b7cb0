"""The compiled loops: one step, whole epochs as a scan, and any stretch of steps as a loop that stops at a NaN.

Every epoch goes through a fresh shuffle; samples that don't fill a batch make a last, short one. What epoch ``e`` draws
is folded from the run's key and ``e``, so a run cut into stretches draws what the whole one draws.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, PRNGKeyArray

from funcnn._checks import check_same_tree
from funcnn.health.measures import LayerMeasures, monitored_value_and_grad, update_ratios
from funcnn.training.placement import Placement
from funcnn.training.shuffle import random_order
from funcnn.types import Batch, GradFn, Layer, Loss, Params, Scalar, State


class Carry(NamedTuple):
    """What a step takes over from the step before."""

    params: Params
    state: State
    opt_state: optax.OptState


class Recipe(NamedTuple):
    """What is fixed while a network trains. Equal recipes are compiled once.

    ``batch_size`` is in samples; ``placement`` says how a mesh of devices shares the work, ``None`` for one device;
    ``watched`` is the distance in steps between two whose layers are measured, 0 for none.
    """

    model: Layer
    loss: Loss
    optimizer: optax.GradientTransformation
    grad: Callable[[Layer, Loss], GradFn]
    batch_size: int
    placement: Placement | None = None
    watched: int = 0


class Plan(NamedTuple):
    """How an epoch is cut into steps: full batches, and the samples left over for a short one."""

    samples: int
    batch_size: int

    @property
    def full_steps(self) -> int:
        return self.samples // self.batch_size

    @property
    def left_over(self) -> int:
        return self.samples % self.batch_size

    @property
    def steps(self) -> int:
        return self.full_steps + bool(self.left_over)

    def size_of(self, step: int) -> int:
        """Samples of an epoch's ``step``-th batch."""
        return self.batch_size if step < self.full_steps else self.left_over


class _Drawn(NamedTuple):
    """What an epoch draws: the order of its samples, and the key of which its steps' keys are folded."""

    order: Array | None
    key: PRNGKeyArray

    def key_of(self, step) -> PRNGKeyArray:
        return jax.random.fold_in(self.key, step)


class Figures(NamedTuple):
    """What every layer did at a watched step; an array of each, ``(layers,)``."""

    measures: LayerMeasures
    update_ratios: Array


def one_step(recipe: Recipe, carry: Carry, batch: Batch, key: PRNGKeyArray | None) -> tuple[Carry, Scalar]:
    """The carry after one update, and the batch's loss before it."""
    value_and_grad = recipe.grad(recipe.model, recipe.loss)
    (value, state), gradients = value_and_grad(carry.params, carry.state, _split(recipe, batch), key=key)
    return _updated(recipe, carry, gradients, state)[0], value


def watched_step(recipe: Recipe, carry: Carry, batch: Batch, key: PRNGKeyArray | None) -> tuple[Carry, Scalar, Figures]:
    """``one_step``, and what every layer did at it."""
    value_and_grad = monitored_value_and_grad(recipe.model, recipe.loss, recipe.grad)
    batch = _split(recipe, batch)
    (value, state), gradients, measures = value_and_grad(carry.params, carry.state, batch, key=key)
    after, updates = _updated(recipe, carry, gradients, state)
    return after, value, Figures(measures, update_ratios(recipe.model, updates, carry.params))


def _split(recipe, batch):
    return batch if recipe.placement is None else recipe.placement.split_batch(batch)


def _updated(recipe, carry, gradients, state):
    check_same_tree("train(grad)", gradients, carry.params, "the parameters")
    updates, opt_state = recipe.optimizer.update(gradients, carry.opt_state, carry.params)
    carry = Carry(optax.apply_updates(carry.params, updates), state, opt_state)
    return (carry if recipe.placement is None else recipe.placement.keep(carry)), updates


@partial(jax.jit, static_argnames=("epochs", "recipe"))
def run_epochs(carry: Carry, data: Batch, key: PRNGKeyArray, *, epochs: int, recipe: Recipe) -> tuple[Carry, Array]:
    """Whole epochs as a scan, which ``vmap`` and ``grad`` take: the carry, and the losses ``(epochs, steps)``."""
    plan = Plan(data.x.shape[0], recipe.batch_size)

    def epoch(carry, number):
        drawn = _draw(plan, key, number)

        def full_step(carry, step):
            return one_step(recipe, carry, _full_batch(plan, data, drawn, step), drawn.key_of(step))

        if plan.steps == 1:
            carry, value = full_step(carry, 0)
            return carry, value[None]
        carry, values = lax.scan(full_step, carry, jnp.arange(plan.full_steps))
        if plan.left_over:
            carry, value = one_step(recipe, carry, _short_batch(plan, data, drawn), drawn.key_of(plan.full_steps))
            values = jnp.append(values, value)
        return carry, values

    return lax.scan(epoch, carry, jnp.arange(epochs))


class _Loop(NamedTuple):
    position: Array
    carry: Carry
    losses: Array
    figures: Figures | tuple[()]


class Ran(NamedTuple):
    """What a stretch of steps left: the losses ``(capacity,)``, the watched steps' figures, the position reached."""

    carry: Carry
    losses: Array
    figures: Figures | tuple[()]
    position: Array


@partial(jax.jit, static_argnames=("capacity", "recipe"))
def run_steps(
    carry: Carry, data: Batch, key: PRNGKeyArray, start: Array, stop: Array, *, capacity: int, recipe: Recipe
) -> Ran:
    """Steps ``start`` to ``stop`` of the run, counted over all epochs, or up to the first loss that isn't finite.

    One program serves every stretch of at most ``capacity`` steps, so that the arithmetic of a step doesn't depend on
    where a run is cut. The carry isn't donated: from it the steps are done again when a loss isn't finite.
    """
    plan = Plan(data.x.shape[0], recipe.batch_size)

    def is_going(loop, end):
        # Asked of the loss itself: a flag beside it would cost the smallest networks a kernel a step.
        newest = loop.losses[jnp.maximum(loop.position - start - 1, 0)]
        return (loop.position < end) & jnp.isfinite(newest)

    def stepped(loop, part, is_watched):
        batch, step_key = part
        figures = loop.figures
        if is_watched:
            after, value, measured = watched_step(recipe, loop.carry, batch, step_key)
            figures = jax.tree.map(
                lambda kept, new: kept.at[(loop.position - first_watched) // recipe.watched].set(new), figures, measured
            )
        else:
            after, value = one_step(recipe, loop.carry, batch, step_key)
        losses = loop.losses.at[loop.position - start].set(value)
        return _Loop(loop.position + 1, after, losses, figures)

    def maybe_watched(loop, part):
        """One step that is watched where its number says so. A branch copies the carry: not for every step."""
        if not recipe.watched:
            return stepped(loop, part, False)
        is_due = loop.position % recipe.watched == 0
        return lax.cond(is_due, partial(stepped, is_watched=True), partial(stepped, is_watched=False), loop, part)

    def steps_until(loop, end, part_at):
        """Blocks of one step that may be watched and, up to the next such one, steps that aren't."""
        if not recipe.watched:
            return lax.while_loop(
                lambda loop: is_going(loop, end), lambda loop: stepped(loop, part_at(loop.position), False), loop
            )

        def block(loop):
            block_end = jnp.minimum(end, (loop.position // recipe.watched + 1) * recipe.watched)
            loop = maybe_watched(loop, part_at(loop.position))
            return lax.while_loop(
                lambda loop: is_going(loop, block_end),
                lambda loop: stepped(loop, part_at(loop.position), False),
                loop,
            )

        return lax.while_loop(lambda loop: is_going(loop, end), block, loop)

    def epoch(loop):
        number = loop.position // plan.steps
        drawn, first = _draw(plan, key, number), number * plan.steps
        last = jnp.minimum(stop, first + plan.full_steps)
        loop = steps_until(
            loop, last, lambda at: (_full_batch(plan, data, drawn, at - first), drawn.key_of(at - first))
        )
        if not plan.left_over:
            return loop
        is_due = is_going(loop, stop) & (loop.position == first + plan.full_steps)
        short = (_short_batch(plan, data, drawn), drawn.key_of(plan.full_steps))
        return lax.cond(is_due, maybe_watched, lambda loop, part: loop, loop, short)

    first_watched = -(-start // recipe.watched) * recipe.watched if recipe.watched else start
    begun = _begun(recipe, plan, carry, data, key, start, capacity)
    if plan.steps == 1:
        loop = steps_until(begun, stop, lambda at: (data, _draw(plan, key, at).key_of(0)))
    else:
        loop = lax.while_loop(lambda loop: is_going(loop, stop), epoch, begun)
    carry = loop.carry if recipe.placement is None else recipe.placement.keep(loop.carry)
    return Ran(carry, loop.losses, loop.figures, loop.position)


def _begun(recipe, plan, carry, data, key, start, capacity) -> _Loop:
    """The loop before its first step, with room for what its steps leave."""
    batch = jax.tree.map(lambda array: array[: plan.batch_size], data)
    loss = jax.eval_shape(partial(one_step, recipe), carry, batch, key)[1]
    # Zeros: the loop asks whether the newest loss is finite before there is one.
    losses = jnp.zeros(capacity, loss.dtype)
    figures: Figures | tuple[()] = ()
    if recipe.watched:
        measured = jax.eval_shape(partial(watched_step, recipe), carry, batch, key)[2]
        most = capacity // recipe.watched + 1
        figures = jax.tree.map(lambda leaf: jnp.zeros((most, *leaf.shape), leaf.dtype), measured)
    return _Loop(start, carry, losses, figures)


@partial(jax.jit, static_argnames=("recipe", "is_watched"))
def run_batch(
    carry: Carry, batch: Batch, key: PRNGKeyArray, position: Array, *, recipe: Recipe, is_watched: bool = False
) -> tuple[Carry, Scalar, Figures | tuple[()]]:
    """One step on a batch that came from outside; its key is folded from the run's key and the step's number."""
    step_key = jax.random.fold_in(key, position)
    if is_watched:
        return watched_step(recipe, carry, batch, step_key)
    return *one_step(recipe, carry, batch, step_key), ()


@partial(jax.jit, static_argnames="recipe")
def batch_of(data: Batch, key: PRNGKeyArray, position: Array, *, recipe: Recipe) -> tuple[Batch, PRNGKeyArray]:
    """The full batch and the key that ``run_steps`` takes at a position; the short one's samples lead it."""
    plan = Plan(data.x.shape[0], recipe.batch_size)
    drawn, step = _draw(plan, key, position // plan.steps), position % plan.steps
    if drawn.order is None:
        return data, drawn.key_of(0)
    rows = lax.dynamic_slice_in_dim(jnp.pad(drawn.order, (0, plan.batch_size)), step * plan.batch_size, plan.batch_size)
    return _gathered(data, rows), drawn.key_of(step)


def _draw(plan: Plan, key: PRNGKeyArray, number: Array) -> _Drawn:
    shuffle_key, steps_key = jax.random.split(jax.random.fold_in(key, number))
    return _Drawn(None if plan.steps == 1 else random_order(shuffle_key, plan.samples), steps_key)


def _full_batch(plan, data, drawn, step) -> Batch:
    if drawn.order is None:
        return data
    return _gathered(data, lax.dynamic_slice_in_dim(drawn.order, step * plan.batch_size, plan.batch_size))


def _short_batch(plan, data, drawn) -> Batch:
    return _gathered(data, drawn.order[plan.full_steps * plan.batch_size :])


def _gathered(data, rows) -> Batch:
    return jax.tree.map(lambda array: array.at[rows].get(mode="promise_in_bounds"), data)
