"""The exercises in the chapter's order."""

import difflib
import functools

from funcnn.practice.sections import SECTIONS
from funcnn.practice.task import Task


@functools.cache
def tasks() -> tuple[Task, ...]:
    """Return the exercises in the order of the chapter.

    Example:
        >>> [task.name for task in tasks() if task.kind == "write"][0]
        'neuron-forward'
    """
    return tuple(task for section in SECTIONS for task in section.TASKS)


def find_task(name: str) -> Task:
    """Return the exercise of this name.

    Raises:
        ValueError: there is none.
    """
    by_name = {task.name: task for task in tasks()}
    if name in by_name:
        return by_name[name]
    near = difflib.get_close_matches(name, by_name, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"grade(name): expected the name of an exercise, got {name!r}.{hint} practice.tasks() lists them.")
