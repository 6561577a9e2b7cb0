"""The files that are written during training: lines of JSON, and event files of TensorBoard.

Both are written in the calling thread and only appended to, so that an error is known at once and never waited for.
"""

import json
import os
import time
from pathlib import Path

import numpy as np

from funcnn._optional import import_optional
from funcnn.training.callbacks import JSONLines, TensorBoard
from funcnn.training.results import Progress


class JSONLinesFile:
    """A file of lines. A line that could not be written whole is removed, and written again before the next one.

    Args:
        writer: the settings.
        epoch: epochs done. Their lines stay; what follows them is removed.
    """

    def __init__(self, writer: JSONLines, epoch: int):
        self._path, self._pending = Path(writer.path), b""
        with self._path.open("ab+") as file:
            file.seek(0)
            self._size = _size_of_lines(file.read(), epoch)
            file.truncate(self._size)

    def write(self, progress: Progress) -> None:
        """Append the line of an epoch.

        Raises:
            OSError: it cannot be written now.
        """
        validation = {name: _or_null(figure) for name, figure in progress.validation.items()}
        record = {"epoch": progress.epoch, "step": progress.step, "loss": progress.loss,
                  "validation": validation, "seconds": round(progress.seconds, 3)}  # fmt: skip
        self._pending += json.dumps(record).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        if not self._pending:
            return
        with self._path.open("ab", buffering=0) as file:
            if file.tell() > self._size:  # part of a line, from a write that failed
                file.truncate(self._size)
            left = memoryview(self._pending)
            while left:
                left = left[file.write(left) :]
        self._size += len(self._pending)
        self._pending = b""

    close = flush


def _size_of_lines(content: bytes, epoch: int) -> int:
    """Return the size of the whole lines up to an epoch."""
    size = 0
    for line in content.splitlines(keepends=True):
        if not line.endswith(b"\n") or _epoch_of(line) > epoch:
            break
        size += len(line)
    return size


def _or_null(figure: float) -> float | None:
    """Return ``None`` for a figure that is not finite: JSON cannot hold it."""
    return figure if np.isfinite(figure) else None


def _epoch_of(line: bytes) -> float:
    try:
        return float(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):  # a line that a crash left incomplete
        return np.inf


class EventFile:
    """An event file of TensorBoard, with scalars by step. TensorBoard leaves out earlier scalars of later steps.

    Its records are written one by one. ``tensorboardX.SummaryWriter`` writes in a thread, for whose end it waits
    forever where the disk is full.
    """

    def __init__(self, writer: TensorBoard, step: int):
        events = import_optional("tensorboardX.event_file_writer", "TensorBoard(folder)", "training")
        self._protocol = import_optional("tensorboardX.proto.event_pb2", "TensorBoard(folder)", "training")
        self._summary = import_optional("tensorboardX.proto.summary_pb2", "TensorBoard(folder)", "training").Summary
        folder = Path(writer.folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._output = events.EventsWriter(os.fspath(folder / "events"), f".{time.time_ns()}")
        if step:
            start = self._protocol.SessionLog(status=self._protocol.SessionLog.START)
            self._add(step=step + 1, session_log=start)

    def write(self, progress: Progress) -> None:
        """Append the scalars of an epoch.

        Raises:
            OSError: they cannot be written now. They stay in the buffer, and are written with the next ones.
        """
        figures = {"loss": progress.loss}
        figures |= {f"validation/{name}": value for name, value in progress.validation.items()}
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._add(step=progress.step, summary=self._summary(value=values))
        self._output.flush()

    def _add(self, **fields) -> None:
        self._output.write_event(self._protocol.Event(wall_time=time.time(), **fields))

    def close(self) -> None:
        self._output.close()
