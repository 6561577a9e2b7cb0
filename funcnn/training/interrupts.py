"""Signals during training: the first Ctrl-C or SIGTERM lets a run save a checkpoint before it ends."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax


@contextlib.contextmanager
def deferred_signals(is_enabled: bool) -> Iterator[Callable[[], int]]:
    """Record the first Ctrl-C or SIGTERM inside the context instead of acting on it. The second one acts.

    Yields a function that returns the number of the recorded signal, 0 for none. Python allows handlers in the main
    thread only: in other threads nothing changes. Nothing changes with several processes either, because they can
    only save together: there a signal acts at once.
    """
    received: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    if not is_enabled or not is_main or jax.process_count() > 1:
        yield lambda: 0
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def record(number, frame):
        received.append(number)
        for each, handler in previous.items():
            signal.signal(each, handler)

    for number in previous:
        signal.signal(number, record)
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
