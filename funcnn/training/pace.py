"""The number of steps of a compiled stretch. A run can only be interrupted between two stretches.

The measured time of a step is kept for the next run of the same program, which then begins with long stretches. The
result of a run does not depend on it: its steps are the same wherever it is divided.
"""

import threading
from collections.abc import Hashable
from typing import NamedTuple

SECONDS = 0.6
"""The time that a stretch should take: well below a second, because the machine may become slower."""

MOST_SECONDS = 5.0
"""The longest time that a stretch of a large model should take. A signal does not wait for its end."""

BYTES_OF_A_SECOND = 4e7
"""How many bytes of parameters and optimizer state lengthen a stretch by a second. Each stretch copies them, and a CPU
copies a hundred times as many in a second: the copies take a hundredth of the time."""

GROWTH = 8
"""How many times longer than the one before a stretch may be: short stretches are measured inexactly."""

MOST_STEPS = 2**16
"""The most steps of a stretch; their losses are held on the device."""

KEPT = 256
"""Programs whose step times are kept."""

_step_seconds: dict[Hashable, float] = {}
_writing = threading.Lock()


class Pace(NamedTuple):
    """The most steps of the next stretch.

    Fields:
        program: what identifies the compiled step.
        seconds: the time that a stretch should take.
        steps: the most steps of the next stretch.
        is_compiled: whether a stretch of the program has run, so that the next one can be measured.
    """

    program: Hashable
    seconds: float
    steps: int
    is_compiled: bool

    @property
    def is_brief(self) -> bool:
        """Whether the next stretch is known to be shorter than a second."""
        return self.is_compiled and self.steps > 1 and self.seconds < 1

    def after(self, steps: int, seconds: float) -> "Pace":
        """Return the pace after a stretch of ``steps`` steps that took ``seconds``."""
        if not self.is_compiled:  # the time of the first stretch is that of its compilation
            return self._replace(is_compiled=True)
        each = max(seconds / steps, 1e-7)
        with _writing:
            _step_seconds[self.program] = each
            if len(_step_seconds) > KEPT:
                _step_seconds.pop(next(iter(_step_seconds)))
        return self._replace(steps=min(_steps_of(each, self.seconds), GROWTH * max(steps, 1)))


def first_pace(program: Hashable, copied_bytes: int) -> Pace:
    """Return the pace of a run's first stretch: one step where the program is not known.

    Args:
        program: what identifies the compiled step.
        copied_bytes: of the arrays that every stretch copies.
    """
    seconds = min(max(SECONDS, copied_bytes / BYTES_OF_A_SECOND), MOST_SECONDS)
    each = _step_seconds.get(program)
    return Pace(program, seconds, 1, False) if each is None else Pace(program, seconds, _steps_of(each, seconds), True)


def _steps_of(each: float, seconds: float) -> int:
    return int(min(max(seconds / each, 1), MOST_STEPS))
