"""Signals during training: a run ends between two stretches of steps, with its result, at Ctrl-C or SIGTERM."""

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType

import jax

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
        """Raise immediately at a signal that comes inside the context."""
        self.check()
        self._is_at_once = True
        try:
            yield
        finally:
            self._is_at_once = False

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
