"""A check of a caller's file in a process of its own, which reports the result through a file.

A checked file is a program: it may end its process with any status, fork, or write to any stream. So the process that
runs it sends its status through a file at the end of the check, and without that the check has failed.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from funcnn._closed_output import CLOSED

FAILED = 2
"""The exit status of a check that gave no report."""

WATCH_SECONDS = 0.5


def run_apart(arguments: Sequence[str], name: str) -> int:
    """Run the command line in another process and return its status; ``FAILED`` where it ended before its report.

    Args:
        arguments: of the command line.
        name: the checked file, for the error.
    """
    with tempfile.TemporaryDirectory() as folder:
        status = Path(folder, "status")
        worker = subprocess.Popen([sys.executable, "-m", "funcnn.gradcheck.command", str(status), *arguments])
        try:
            ended = worker.wait()
        except BaseException:  # Ctrl-C: the process has it as well, and may ignore it.
            worker.kill()
            worker.wait()
            raise
        text = status.read_text(encoding="utf-8") if status.exists() else ""
    if text in ("0", "1", "2", str(CLOSED)):
        return int(text)
    with contextlib.suppress(OSError):  # The reader may have closed the pipe.
        sys.stderr.write(
            f"python -m funcnn gradcheck: {name}: expected a process that runs to the end of the check, got one that "
            f"ended before its report, with status {ended}. Take out of the file what ends it, such as os._exit.\n"
        )
        sys.stderr.flush()
    return FAILED


def work(status: Path, check: Callable[[], int]) -> NoReturn:
    """Run a check in this process, write its status to a file, and end the process.

    Standard output is the report's alone: what the checked file writes to the descriptor goes to standard error. A
    copy of the process that the file has made by forking ends without a report.
    """
    process, parent = os.getpid(), os.getppid()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    report = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors="backslashreplace")
    os.dup2(2, 1)
    sys.stdout = report
    sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        found = check()
        if os.getpid() == process:
            report.flush()
            sys.stderr.flush()
    except BrokenPipeError:  # the reader of the report has left
        found = CLOSED
    if os.getpid() != process:
        os._exit(FAILED)
    temporary = status.with_suffix(".part")
    temporary.write_text(str(found), encoding="utf-8")
    temporary.replace(status)
    # Threads and exit handlers of the file have no part in the result.
    os._exit(found)


def _end_with(parent: int) -> None:
    """End this process when the one that started it has ended, however that was."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(FAILED)
