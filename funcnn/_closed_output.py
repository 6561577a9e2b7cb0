"""Output whose reader leaves early, as ``head`` does."""

import contextlib
import os
import sys
from collections.abc import Iterator

CLOSED = 141
"""The exit status that shells report for a program that a closed pipe ends: 128 and the number of SIGPIPE."""


@contextlib.contextmanager
def silent_where_closed() -> Iterator[None]:
    """End the program without a message where the reader of its output has closed it."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes standard output once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CLOSED)
