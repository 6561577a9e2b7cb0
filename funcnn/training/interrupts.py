"""Signals during training: a run ends between two stretches of steps, with its result, at Ctrl-C or SIGTERM.

What may take longer than a second, a compilation, a long step or a stretch of a large model, is waited for in a way
that a signal ends. It cannot be stopped itself, and goes on in the background. Python joins its thread before the
process exits: a process that exits in the middle of a compilation may crash.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, TypeVar

import jax

from funcnn.training.errors import interruption

SIGNALS = (signal.SIGINT, signal.SIGTERM)

LOOK_SECONDS = 0.1
"""The time between two looks for signals while a thread is waited for. Not every system wakes Python for a signal."""

Result = TypeVar("Result")


class Interrupts:
    """The signals that a run has received.

    Between two stretches of steps, ``check`` raises. Code of the user, which may wait for long, runs inside
    ``at_once``, where a signal raises immediately.
    """

    def __init__(self) -> None:
        self.number = 0
        """The number of the first signal that was received, 0 for none."""
        self._is_at_once = False
        self._previous: dict[int, object] = {}

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Record the first Ctrl-C or SIGTERM inside the context. The second one acts as it does outside.

        Python allows handlers in the main thread only: in other threads nothing changes. Nothing changes with several
        processes either, because they can only save together. A signal that the program ignores stays ignored.
        """
        is_main = threading.current_thread() is threading.main_thread()
        if not is_main or jax.process_count() > 1:
            yield
            return
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        # None is a handler that was not set from Python, and cannot be set again.
        self._previous = {number: kept for number, kept in handlers.items() if kept not in (None, signal.SIG_IGN)}
        for number in self._previous:
            signal.signal(number, self._record)
        try:
            yield
        finally:
            self._restore()

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise immediately at a signal that comes inside the context.

        What is raised while Python runs a destructor or a callback of its garbage collector is lost, so the signal is
        looked for at the end as well.
        """
        self.check()
        before, self._is_at_once = self._is_at_once, True
        try:
            yield
        finally:
            self._is_at_once = before
        self.check()

    @contextlib.contextmanager
    def before_the_loop(self) -> Iterator[None]:
        """Raise immediately at a signal that comes inside the context, before there is a result."""
        try:
            with self.at_once():
                yield
        except (KeyboardInterrupt, SystemExit) as error:
            if self.number:
                error.args = error.args or (interruption(0),)
                error.trained = None  # type: ignore[union-attr]
            raise

    def in_thread(self, function: Callable[[], Result]) -> Result:
        """Return ``function()``, computed in a thread whose end a signal does not wait for.

        Where signals are not deferred, it is computed in the calling thread.
        """
        self.check()
        if not self._previous:
            return function()
        returned: list[Result] = []
        raised: list[BaseException] = []

        def work():
            try:
                returned.append(function())
            except BaseException as error:  # raised again in the calling thread
                raised.append(error)
            finally:
                has_ended.set()

        has_ended = threading.Event()
        with self.at_once():
            threading.Thread(target=work).start()
            # Not join: where a signal interrupts it, Python 3.11 takes the thread for ended, and exits without it.
            while not has_ended.wait(LOOK_SECONDS):
                self.check()
        if raised:
            raise raised[0]
        return returned[0]

    def compile(self, function: Any, *arguments: Any, **settings: Any) -> None:
        """Compile a function of ``jax.jit`` for arguments, so that its next call with such arguments does not.

        It is traced in the calling thread, because the contexts of JAX, such as its default precision, belong to a
        thread. XLA then compiles the traced program in another one.
        """
        self.check()
        if not self._previous:
            return
        with self.at_once():
            lowered = function.lower(*arguments, **settings)
        self.in_thread(lowered.compile)

    def wait_for(self, tree: Any) -> None:
        """Wait until the device has computed the arrays of a tree. A signal ends the waiting."""
        self.in_thread(lambda: jax.block_until_ready(tree))

    def each(self, source: Iterable) -> Iterator:
        """Iterate over a source of the user, whose waiting a signal ends at once."""
        items = iter(source)
        while True:
            with self.at_once():
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    def check(self) -> None:
        """Raise where a signal was received.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
            SystemExit: after SIGTERM, with the status that shells give it, 143.
        """
        if self.number:
            raise KeyboardInterrupt if self.number == signal.SIGINT else SystemExit(128 + self.number)

    def _record(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore()
        if self._is_at_once:
            self.check()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}
