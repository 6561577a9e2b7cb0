"""Where the batches of a run come from: arrays in memory, or an iterable that is read while the device computes."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from funcnn.training.steps import Carry, Figures, Plan, Recipe, batch_of, run_batch, run_steps
from funcnn.types import Batch, Scalar

READ_AHEAD = 2
"""Batches on their way to the device while it computes."""

WINDOW = 16
"""Batches kept until their losses are known to be finite, so that a step can be done again."""


_NO_MORE = object()


class Stretch(NamedTuple):
    """What some steps left.

    Fields:
        losses, sizes: of every step's batch.
        ends: the positions where epochs ended.
        watched: the numbers of the watched steps.
        figures: theirs, ``(watched, layers)`` each.
    """

    carry: Carry
    losses: np.ndarray
    sizes: np.ndarray
    ends: tuple[int, ...]
    watched: np.ndarray
    figures: Figures | tuple[()]


class ArrayFeed:
    """Batches gathered from arrays on the device; a whole stretch of steps is one call."""

    def __init__(self, data: Batch, key: PRNGKeyArray, recipe: Recipe, longest: int | None):
        self.plan = Plan(data.x.shape[0], recipe.batch_size)
        self.steps = self.plan.steps
        self._data, self._key, self._recipe, self._longest = data, key, recipe, longest

    def run(self, carry: Carry, position: int, stop: int) -> Stretch:
        """Steps ``position`` to ``stop``, or up to the first loss that isn't finite."""
        stop = min(stop, position + self._longest) if self._longest else stop
        capacity = self._longest or stop - position
        ran = run_steps(
            carry, self._data, self._key, np.int32(position), np.int32(stop), capacity=capacity, recipe=self._recipe
        )
        reached, every = int(ran.position), self._recipe.watched
        numbers = np.arange(position, reached) % self.steps
        sizes = np.where(numbers < self.plan.full_steps, self.plan.batch_size, self.plan.left_over)
        ends = range((position // self.steps + 1) * self.steps, reached + 1, self.steps)
        watched = np.arange(-(-position // every) * every, reached, every) if every else np.zeros(0, int)
        figures = jax.tree.map(lambda kept: np.asarray(kept)[: len(watched)], ran.figures)
        return Stretch(ran.carry, np.asarray(ran.losses)[: reached - position], sizes, tuple(ends), watched, figures)

    def again(self, carry: Carry, position: int, stop: int) -> Carry:
        """The carry after steps that ``run`` has done before."""
        return self.run(carry, position, stop).carry if stop > position else carry

    def batch_at(self, position: int) -> tuple[Batch, PRNGKeyArray]:
        batch, key = batch_of(self._data, self._key, np.int32(position), recipe=self._recipe)
        size = self.plan.size_of(position % self.steps)
        return jax.tree.map(lambda array: array[:size], batch), key

    def reading(self, position: int) -> Any:
        """What has to be known, beside the position, to go on: nothing."""
        return None


class StreamFeed:
    """Batches from an iterable, read anew for every epoch, a few ahead of the device.

    The iterable may be larger than memory. ``source`` is the iterable, or ``(epoch) -> iterable`` with epochs from 0.
    """

    def __init__(
        self,
        source: Iterable | Callable[[int], Iterable],
        key: PRNGKeyArray,
        recipe: Recipe,
        checked: Callable[[Any], Batch],
    ):
        self._source, self._key, self._recipe, self._checked = source, key, recipe, checked
        self.steps = None
        self._epoch, self._begins = 0, 0
        self._ahead: deque[tuple[Batch, Any]] = deque()
        self._window: list[Batch] = []
        self._batches: Any = None
        self._readings: list[Any] = [None]

    def run(self, carry: Carry, position: int, stop: int) -> Stretch:
        """At most ``WINDOW`` steps, none beyond the end of the epoch."""
        self._window, self._begins, self._readings = [], position, self._readings[-1:]
        losses: list[Scalar] = []
        watched: list[int] = []
        figures: list[Figures] = []
        while position + len(losses) < stop and len(losses) < WINDOW and self._fill():
            batch, reading = self._ahead.popleft()
            self._window.append(batch)
            self._readings.append(reading)
            carry, value, measured = self._step(carry, batch, position + len(losses))
            if measured:
                watched.append(position + len(losses))
                figures.append(measured)
            losses.append(value)
        if not losses:
            raise ValueError(
                f"fit(data): expected an iterable of batches in every epoch, got none in epoch {self._epoch + 1}. "
                "Pass a list, a loader, or a function of the epoch that makes an iterable."
            )
        sizes = np.array([len(batch.x) for batch in self._window], int)
        values = np.array([np.asarray(value) for value in losses], losses[0].dtype)
        is_last = not self._fill()
        ends = (position + len(losses),) if is_last else ()
        if is_last:
            self._batches, self._readings[-1] = None, None
            self._epoch += 1
        stacked = jax.tree.map(lambda *parts: np.stack(parts), *figures) if figures else ()
        return Stretch(carry, values, sizes, ends, np.array(watched, int), stacked)

    def _step(self, carry, batch, number):
        every = self._recipe.watched
        is_watched = bool(every) and number % every == 0
        return run_batch(carry, batch, self._key, np.int32(number), recipe=self._recipe, is_watched=is_watched)

    def again(self, carry: Carry, position: int, stop: int) -> Carry:
        """The carry after steps of the newest stretch."""
        for number in range(position, stop):
            batch = self._window[number - self._begins]
            carry, _, _ = self._step(carry, batch, number)
        return carry

    def batch_at(self, position: int) -> tuple[Batch, PRNGKeyArray]:
        return self._window[position - self._begins], jax.random.fold_in(self._key, position)

    def reading(self, position: int) -> Any:
        """The iterator's own state before a step of the newest stretch or behind it, where it tells one (grain's)."""
        return self._readings[position - self._begins]

    def skip_to(self, epoch: int, step: int, reading: Any) -> None:
        """Go on where a run was left: by the iterator's own state, or by reading the batches before once more."""
        self._epoch = epoch
        if step:
            self._begin()
            if reading is not None and hasattr(self._batches, "set_state"):
                self._batches.set_state(reading)
            else:
                deque(itertools.islice(self._batches, step), maxlen=0)
            self._readings = [reading]

    def first(self) -> Batch:
        """The batch that comes first, checked; it stays in line.

        Raises:
            ValueError: there is none.
        """
        if not self._fill():
            raise ValueError("fit(data): expected an iterable of batches (x, y), got an empty one.")
        return self._ahead[0][0]

    def any_batch(self) -> Batch:
        """A batch of a run that is done: the first of the first epoch."""
        return self._checked(next(iter(self._of_epoch(0))))

    def _begin(self) -> None:
        self._batches = iter(self._of_epoch(self._epoch))

    def _of_epoch(self, epoch: int) -> Iterable:
        if not callable(self._source):
            return self._source
        made = self._source(epoch)
        if not isinstance(made, Iterable):
            raise TypeError(
                f"fit(data): expected (epoch) -> iterable of batches, got one that returns {type(made).__name__}."
            )
        return made

    def _fill(self) -> bool:
        """Read ahead; whether there is another batch in this epoch."""
        if self._batches is None:
            self._begin()
        while len(self._ahead) < READ_AHEAD:
            found = next(self._batches, _NO_MORE)
            if found is _NO_MORE:
                break
            batch = self._checked(found)
            placement = self._recipe.placement
            placed = jax.device_put(batch) if placement is None else placement.assemble(batch)
            tell = getattr(self._batches, "get_state", None)
            self._ahead.append((placed, None if tell is None else tell()))
        return bool(self._ahead)


def is_stream(data: Any) -> bool:
    """Whether data is an iterable of batches, or a function that makes one, and not a pair of arrays."""
    return callable(data) or (
        isinstance(data, Iterable) and not isinstance(data, tuple | str | dict | jax.Array | np.ndarray)
    )
