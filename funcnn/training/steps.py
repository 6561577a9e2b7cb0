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
from funcnn.training.placement import Placement
from funcnn.types import Batch, GradFn, Layer, Loss, Params, Scalar, State


class Carry(NamedTuple):
    """What a step takes over from the step before."""

    params: Params
    state: State
    opt_state: optax.OptState


class Recipe(NamedTuple):
    """What is fixed while a network trains. Equal recipes are compiled once.

    ``batch_size`` is in samples; ``placement`` says how a mesh of devices shares the work, ``None`` for one device.
    """

    model: Layer
    loss: Loss
    optimizer: optax.GradientTransformation
    grad: Callable[[Layer, Loss], GradFn]
    batch_size: int
    placement: Placement | None = None


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
    """What an epoch draws: the order of its samples and a key for each of its steps."""

    order: Array | None
    keys: PRNGKeyArray


def one_step(recipe: Recipe, carry: Carry, batch: Batch, key: PRNGKeyArray | None) -> tuple[Carry, Scalar]:
    """The carry after one update, and the batch's loss before it."""
    if recipe.placement is not None:
        batch = recipe.placement.split_batch(batch)
    value_and_grad = recipe.grad(recipe.model, recipe.loss)
    (value, state), gradients = value_and_grad(carry.params, carry.state, batch, key=key)
    check_same_tree("train(grad)", gradients, carry.params, "the parameters")
    updates, opt_state = recipe.optimizer.update(gradients, carry.opt_state, carry.params)
    carry = Carry(optax.apply_updates(carry.params, updates), state, opt_state)
    return (carry if recipe.placement is None else recipe.placement.keep(carry)), value


@partial(jax.jit, static_argnames=("epochs", "recipe"))
def run_epochs(carry: Carry, data: Batch, key: PRNGKeyArray, *, epochs: int, recipe: Recipe) -> tuple[Carry, Array]:
    """Whole epochs as a scan, which ``vmap`` and ``grad`` take: the carry, and the losses ``(epochs, steps)``."""
    plan = Plan(data.x.shape[0], recipe.batch_size)

    def epoch(carry, number):
        drawn = _draw(plan, key, number)

        def full_step(carry, step):
            return one_step(recipe, carry, _full_batch(plan, data, drawn, step), drawn.keys[step])

        if plan.steps == 1:
            carry, value = full_step(carry, 0)
            return carry, value[None]
        carry, values = lax.scan(full_step, carry, jnp.arange(plan.full_steps))
        if plan.left_over:
            carry, value = one_step(recipe, carry, _short_batch(plan, data, drawn), drawn.keys[plan.full_steps])
            values = jnp.append(values, value)
        return carry, values

    return lax.scan(epoch, carry, jnp.arange(epochs))


class _Loop(NamedTuple):
    position: Array
    carry: Carry
    losses: Array
    finite: Array


@partial(jax.jit, static_argnames=("capacity", "recipe"))
def run_steps(
    carry: Carry, data: Batch, key: PRNGKeyArray, start: Array, stop: Array, *, capacity: int, recipe: Recipe
) -> tuple[Carry, Array, Array]:
    """Steps ``start`` to ``stop`` of the run, counted over all epochs, or up to the first loss that isn't finite.

    One program serves every stretch of at most ``capacity`` steps, so that the arithmetic of a step doesn't depend on
    where a run is cut.

    Returns:
        The carry, the losses ``(capacity,)``, and the position reached.
    """
    plan = Plan(data.x.shape[0], recipe.batch_size)
    loss = jax.eval_shape(partial(one_step, recipe), carry, _first_batch(plan, data), key)[1]

    def is_going(loop):
        return (loop.position < stop) & loop.finite

    def stepped(loop, batch, step_key):
        after, value = one_step(recipe, loop.carry, batch, step_key)
        losses = loop.losses.at[loop.position - start].set(value)
        return _Loop(loop.position + 1, after, losses, jnp.isfinite(value))

    def epoch(loop):
        number = loop.position // plan.steps
        drawn, first = _draw(plan, key, number), number * plan.steps
        if plan.steps == 1:
            return stepped(loop, data, drawn.keys[0])

        def full_step(loop):
            step = loop.position - first
            return stepped(loop, _full_batch(plan, data, drawn, step), drawn.keys[step])

        last = jnp.minimum(stop, first + plan.full_steps)
        loop = lax.while_loop(lambda loop: (loop.position < last) & loop.finite, full_step, loop)
        if not plan.left_over:
            return loop
        is_due = is_going(loop) & (loop.position == first + plan.full_steps)
        short, short_key = _short_batch(plan, data, drawn), drawn.keys[plan.full_steps]
        return lax.cond(is_due, lambda loop: stepped(loop, short, short_key), lambda loop: loop, loop)

    losses = jnp.full(capacity, jnp.nan, loss.dtype)
    loop = lax.while_loop(is_going, epoch, _Loop(start, carry, losses, jnp.array(True)))
    carry = loop.carry if recipe.placement is None else recipe.placement.keep(loop.carry)
    return carry, loop.losses, loop.position


@partial(jax.jit, static_argnames="recipe")
def run_batch(
    carry: Carry, batch: Batch, key: PRNGKeyArray, position: Array, *, recipe: Recipe
) -> tuple[Carry, Scalar]:
    """One step on a batch that came from outside; its key is folded from the run's key and the step's number."""
    return one_step(recipe, carry, batch, jax.random.fold_in(key, position))


@partial(jax.jit, static_argnames="recipe")
def batch_of(data: Batch, key: PRNGKeyArray, position: Array, *, recipe: Recipe) -> tuple[Batch, PRNGKeyArray]:
    """The full batch and the key that ``run_steps`` takes at a position; the short one's samples lead it."""
    plan = Plan(data.x.shape[0], recipe.batch_size)
    drawn, step = _draw(plan, key, position // plan.steps), position % plan.steps
    if plan.steps == 1:
        return data, drawn.keys[0]
    rows = lax.dynamic_slice_in_dim(jnp.pad(drawn.order, (0, plan.batch_size)), step * plan.batch_size, plan.batch_size)
    return jax.tree.map(lambda array: array[rows], data), drawn.keys[step]


def _draw(plan: Plan, key: PRNGKeyArray, number: Array) -> _Drawn:
    shuffle_key, steps_key = jax.random.split(jax.random.fold_in(key, number))
    if plan.steps == 1:
        return _Drawn(None, steps_key[None])
    return _Drawn(jax.random.permutation(shuffle_key, plan.samples), jax.random.split(steps_key, plan.full_steps + 1))


def _full_batch(plan, data, drawn, step) -> Batch:
    if drawn.order is None:
        return data
    rows = lax.dynamic_slice_in_dim(drawn.order, step * plan.batch_size, plan.batch_size)
    return jax.tree.map(lambda array: array[rows], data)


def _short_batch(plan, data, drawn) -> Batch:
    rows = drawn.order[plan.full_steps * plan.batch_size :]
    return jax.tree.map(lambda array: array[rows], data)


def _first_batch(plan, data) -> Batch:
    return jax.tree.map(lambda array: array[: plan.batch_size], data)
