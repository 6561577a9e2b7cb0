"""The batches of a run: from arrays in memory, or from an iterable that is read while the device computes."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from funcnn.training.fingerprint import fingerprints
from funcnn.training.interrupts import Interrupts
from funcnn.training.steps import Carry, Figures, Plan, TrainingSetup, batch_and_key, run_batch, run_steps
from funcnn.types import Batch, Scalar

READ_AHEAD = 2
"""Batches that are sent to the device ahead of the step that uses them."""

WINDOW = 16
"""Batches that are kept until their losses are known to be finite, so that their steps can be repeated."""

MOST_TARGETS = 2**22
"""Entries of the targets of an iterable that are kept for the monitor."""

_END = object()


class Stretch(NamedTuple):
    """The result of a stretch of steps.

    Fields:
        carry: after the last step.
        losses, sizes: loss and samples of every step's batch.
        ends: the positions at which epochs ended.
        monitored: the numbers of the monitored steps.
        figures: their measurements, ``(monitored, layers)`` each.
    """

    carry: Carry
    losses: np.ndarray
    sizes: np.ndarray
    ends: tuple[int, ...]
    monitored: np.ndarray
    figures: Figures | tuple[()]


class ArrayBatches:
    """Batches taken from arrays on the device. A stretch of steps is one compiled call."""

    def __init__(self, data: Batch, key: PRNGKeyArray, setup: TrainingSetup, longest: int, interrupts: Interrupts):
        self._interrupts = interrupts
        self.plan = Plan(data.x.shape[0], setup.batch_size)
        self.steps = self.plan.steps
        self._data, self._key, self._setup, self._longest = data, key, setup, longest
        self.program = (data.x.shape, str(data.x.dtype), data.y.shape, str(data.y.dtype), longest)
        """What the compiled step depends on, beside the setup."""

    def run(self, carry: Carry, position: int, stop: int, *, is_brief: bool = True) -> Stretch:
        """Run the steps ``position`` to ``stop``, at most the longest stretch.

        Args:
            carry: before the first step.
            position, stop: the first step, and the one behind the last.
            is_brief: whether the steps are compiled and known to be shorter than a second. Others are waited for in a
                way that a signal ends.
        """
        stop = min(stop, position + self._longest)
        arguments = (carry, self._data, self._key, np.int32(position), np.int32(stop))
        settings: dict[str, Any] = {"capacity": self._longest, "setup": self._setup}
        if not is_brief:
            self._interrupts.compile(run_steps, *arguments, **settings)
        ran = run_steps(*arguments, **settings)
        if not is_brief:
            self._interrupts.wait_for(ran)
        reached, every = int(ran.position), self._setup.monitor_every
        numbers = np.arange(position, reached) % self.steps
        sizes = np.where(numbers < self.plan.full_steps, self.plan.batch_size, self.plan.remainder)
        ends = range((position // self.steps + 1) * self.steps, reached + 1, self.steps)
        monitored = np.arange(-(-position // every) * every, reached, every) if every else np.zeros(0, int)
        # Copies: a view would keep the whole array of a stretch alive for as long as the history.
        figures = jax.tree.map(lambda kept: np.asarray(kept)[: len(monitored)].copy(), ran.figures)
        losses = np.asarray(ran.losses)[: reached - position].copy()
        return Stretch(ran.carry, losses, sizes, tuple(ends), monitored, figures)

    def replay(self, carry: Carry, position: int, stop: int) -> Carry:
        """Return the carry after steps that ``run`` has done before."""
        return self.run(carry, position, stop).carry if stop > position else carry

    def batch_at(self, position: int) -> tuple[Batch, PRNGKeyArray]:
        batch, key = batch_and_key(self._data, self._key, np.int32(position), setup=self._setup)
        size = self.plan.size_of(position % self.steps)
        return jax.tree.map(lambda array: array[:size], batch), key

    def reader_state(self, position: int) -> Any:
        """Return nothing: arrays have no reader with a state."""
        return None

    def fingerprints(self, position: int, *, may_read: bool) -> None:
        """Return nothing: arrays are compared as a whole."""


class StreamBatches:
    """Batches from an iterable, which is read once in every epoch, a few batches ahead of the device.

    The iterable may be larger than memory.

    Args:
        source: the iterable, or ``(epoch) -> iterable`` with epochs from 0.
        key: the run's key.
        setup: how a step is computed.
        checked: checks a batch and returns it as a ``Batch``.
        interrupts: the signals of the run, which act at once while the iterable is read.
        is_fingerprinted: whether its batches are compared with those of a checkpoint.
    """

    def __init__(
        self,
        source: Iterable | Callable[[int], Iterable],
        key: PRNGKeyArray,
        setup: TrainingSetup,
        checked: Callable[[Any], Batch],
        interrupts: Interrupts,
        *,
        is_fingerprinted: bool,
    ):
        self._source, self._key, self._setup, self._checked = source, key, setup, checked
        self._interrupts, self._is_fingerprinted = interrupts, is_fingerprinted
        self.steps = self.program = None
        self._epoch, self._first_epoch, self._window_start = 0, 0, 0
        self._ahead: deque[tuple[Batch, Any]] = deque()
        self._window: list[Batch] = []
        self._batches: Any = None
        self._reader_states: list[Any] = [None]
        self._firsts: list[str] = []
        self._compiled: set[tuple] = set()
        self.targets: list[np.ndarray] = []
        """The targets of the first epoch's first batches, for the monitor."""

    def run(self, carry: Carry, position: int, stop: int, *, is_brief: bool = True) -> Stretch:
        """Run at most ``WINDOW`` steps, none beyond the end of the epoch.

        Args:
            carry: before the first step.
            position, stop: the first step, and the one behind the last.
            is_brief: whether the steps are known to be shorter than a second. Others are waited for in a way that a
                signal ends, as is the compilation for a batch of another shape than those before.
        """
        self._window, self._window_start, self._reader_states = [], position, self._reader_states[-1:]
        losses: list[Scalar] = []
        monitored: list[int] = []
        figures: list[Figures] = []
        while position + len(losses) < stop and len(losses) < WINDOW and self._fill():
            batch, reader_state = self._ahead.popleft()
            self._window.append(batch)
            self._reader_states.append(reader_state)
            carry, value, measured = self._step(carry, batch, position + len(losses))
            if measured:
                monitored.append(position + len(losses))
                figures.append(measured)
            losses.append(value)
        if not losses:
            raise ValueError(
                f"fit(data): expected an iterable of batches in every epoch, got none in epoch {self._epoch + 1}. "
                "Pass a list, a loader, or a function of the epoch that makes an iterable."
            )
        if not is_brief:
            self._interrupts.wait_for((carry, losses))
        sizes = np.array([len(batch.x) for batch in self._window], int)
        values = np.array([np.asarray(value) for value in losses], losses[0].dtype)
        is_last = not self._fill()
        ends = (position + len(losses),) if is_last else ()
        if is_last:
            self._batches, self._reader_states[-1] = None, None
            self._epoch += 1
        stacked = jax.tree.map(lambda *parts: np.stack(parts), *figures) if figures else ()
        return Stretch(carry, values, sizes, ends, np.array(monitored, int), stacked)

    def _step(self, carry, batch, number):
        every = self._setup.monitor_every
        settings: dict[str, Any] = {"setup": self._setup, "is_monitored": bool(every) and number % every == 0}
        arguments = (carry, batch, self._key, np.int32(number))
        shapes = (*(part.shape for part in batch), settings["is_monitored"])
        if shapes not in self._compiled:
            self._interrupts.compile(run_batch, *arguments, **settings)
            self._compiled.add(shapes)
        return run_batch(*arguments, **settings)

    def replay(self, carry: Carry, position: int, stop: int) -> Carry:
        """Return the carry after steps of the newest stretch."""
        for number in range(position, stop):
            batch = self._window[number - self._window_start]
            carry, _, _ = self._step(carry, batch, number)
        return carry

    def batch_at(self, position: int) -> tuple[Batch, PRNGKeyArray]:
        return self._window[position - self._window_start], jax.random.fold_in(self._key, position)

    def reader_state(self, position: int) -> Any:
        """Return the iterator's own state before or after a step of the newest stretch, where it has one (grain's)."""
        return self._reader_states[position - self._window_start]

    def _keep_targets(self, batch: Batch) -> None:
        if sum(kept.size for kept in self.targets) < MOST_TARGETS:
            self.targets.append(np.asarray(batch.y))

    def skip_to(self, epoch: int, step: int, reader_state: Any) -> None:
        """Continue at a step of an epoch, by the iterator's own state or by reading the batches before it."""
        self._epoch = self._first_epoch = epoch
        self._ahead.clear()
        self._firsts = []
        self._batches, self._reader_states = None, [None]
        if step:
            self._begin()
            if reader_state is not None and hasattr(self._batches, "set_state"):
                self._batches.set_state(reader_state)
            else:
                with self._interrupts.at_once():
                    deque(itertools.islice(self._batches, step), maxlen=0)
            self._reader_states = [reader_state]

    def first(self) -> Batch:
        """Return the next batch, checked, without removing it.

        Raises:
            ValueError: there is none.
        """
        if not self._fill():
            raise ValueError(
                "fit(data): expected an iterable of batches (x, y), got an empty one. Pass at least one batch: "
                "a loader that drops the remainder needs as many samples as a batch has."
            )
        return self._ahead[0][0]

    def any_batch(self) -> Batch:
        """Return the first batch of the first epoch, for a run that is done."""
        return self._checked(next(iter(self._of_epoch(0))))

    def fingerprints(self, position: int, *, may_read: bool) -> dict[str, Any]:
        """Return the fingerprints of the batches that come next, as far as they are read ahead, and of the first ones.

        Args:
            position: before or after a step of the newest stretch.
            may_read: whether to begin the next epoch, where the newest stretch ended one.
        """
        if may_read and not self._ahead:
            self._fill()
        window = self._window[position - self._window_start :]
        batches = [*window, *(batch for batch, _ in self._ahead)][:READ_AHEAD]
        return {"first": self._firsts, "next": [_fingerprint(batch) for batch in batches]}

    def is_as_before(self, kept: dict[str, Any], *, may_read: bool) -> bool:
        """Return whether the batches are those of the run that a checkpoint was written by.

        Args:
            kept: what ``fingerprints`` returned there.
            may_read: whether there are steps left, whose batches may be read.
        """
        self._firsts = list(kept["first"])
        if may_read and kept["next"]:
            self._fill()
            found = [_fingerprint(batch) for batch, _ in self._ahead]
            return found[: len(kept["next"])] == kept["next"]
        if isinstance(self._source, Iterator):  # it can be read only once
            return True
        with self._interrupts.at_once():
            firsts = list(itertools.islice(self._of_epoch(0), len(self._firsts)))
        return [_fingerprint(self._place(self._checked(batch))) for batch in firsts] == self._firsts

    def _place(self, batch: Batch) -> Batch:
        placement = self._setup.placement
        return jax.device_put(batch) if placement is None else placement.assemble(batch)

    def _begin(self) -> None:
        self._batches = iter(self._of_epoch(self._epoch))

    def _of_epoch(self, epoch: int) -> Iterable:
        if not callable(self._source):
            return self._source
        made = self._source(epoch)
        if not isinstance(made, Iterable):
            raise TypeError(
                f"fit(data): expected (epoch) -> iterable of batches, got one that returns {type(made).__name__}. "
                "Return a list, a loader or a generator of (x, y)."
            )
        return made

    def _fill(self) -> bool:
        """Read ahead. Return whether there is another batch in this epoch."""
        if self._batches is None:
            self._begin()
        while len(self._ahead) < READ_AHEAD:
            with self._interrupts.at_once():
                found = next(self._batches, _END)
            if found is _END:
                break
            batch = self._checked(found)
            if self._setup.monitor_every and self._epoch == self._first_epoch:
                self._keep_targets(batch)
            placed = self._place(batch)
            if self._is_fingerprinted and self._first_epoch == self._epoch == 0 and len(self._firsts) < READ_AHEAD:
                self._firsts.append(_fingerprint(placed))
            get_state = getattr(self._batches, "get_state", None)
            self._ahead.append((placed, None if get_state is None else get_state()))
        return bool(self._ahead)


def _fingerprint(batch: Batch) -> str:
    return " ".join(fingerprints(tuple(batch)))


def is_stream(data: Any) -> bool:
    """Return whether data is an iterable of batches, or a function that makes one, rather than a pair of arrays."""
    return callable(data) or (
        isinstance(data, Iterable) and not isinstance(data, tuple | str | dict | jax.Array | np.ndarray)
    )
