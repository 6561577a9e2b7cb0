"""Errors that end a run of ``fit``, and the result so far that they carry."""

from typing import Any


class RunError(Exception):
    """A run of ``fit`` ended before its last step, or its checkpoints cannot be used.

    Fields:
        trained: the result up to the last whole step; ``None`` where no step of the run has been taken.
    """

    trained: Any = None


class CheckpointError(RunError, ValueError):
    """A checkpoint cannot be used or written. The message gives the reason."""


class DamagedCheckpointError(CheckpointError):
    """The content of a checkpoint is not what was written."""


class OtherRunError(CheckpointError):
    """The checkpoints of a folder are those of another run."""


def interruption(step: int) -> str:
    """Return the message of the error that a signal raises after a step."""
    return f"training was interrupted after step {step}" if step else "training was interrupted before its first step"


def attach_result(error: BaseException, trained: Any) -> None:
    """Set ``error.trained`` and add a note about it. An error that carries a result already is left as it is."""
    if getattr(error, "trained", None) is not None:
        return
    try:
        error.trained = trained  # type: ignore[attr-defined]
    except AttributeError:  # a class with an attribute of that name that can't be set
        return
    error.add_note("fit: the result up to the last whole step is in this error's .trained.")
