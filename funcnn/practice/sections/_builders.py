"""Builders of exercises: each fills a Task from what its kind needs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from funcnn.practice.task import Mistake, Task, document, load, with_mistake

SHAPES = ((4, 3), (1, 5), (5, 2), (3, 3), (2, 7))


def batches(make: Callable, *special: tuple) -> Callable[[Any], tuple[list[tuple], ...]]:
    """Return inputs of several shapes, ``make(random, batch, features)``, and special ones after them."""
    return lambda random: ([make(random, *shape) for shape in SHAPES] + list(special),)


def write(
    name: str, title: str, section: str, statement: str, solution: str, *, inputs: Callable, hints: Sequence[str],
    fact: str, outputs: Sequence[str], mistakes: Sequence[Mistake] = (), example: tuple | None = None,
    kind: Any = "write", by_hand: bool = True,
) -> Task:  # fmt: skip
    """Return an exercise that asks for code from a statement; the example's values are computed here."""
    solution = document(solution) + "\n"
    task = Task(
        name, title, section, kind, "", "", tuple(hints), solution, fact, tuple(outputs), inputs, tuple(mistakes), by_hand,
    )  # fmt: skip
    text = document(statement)
    if example is not None:
        value = load(solution, task.entry)(*example)
        given = ", ".join(_shown(argument) for argument in example)
        text += f"\n\nExample: {task.entry}({given}) is {_shown(value)}."
    stub = f"import numpy as np\n\n\ndef {task.signature}:\n    raise NotImplementedError\n"
    return replace(task, statement=text, stub=stub)


def repair(name: str, title: str, task: Task, index: int, *, kind: Any = "repair") -> Task:
    """Return an exercise that shows the solution with one of its mistakes, under a statement of what it should do."""
    planted = with_mistake(task, task.mistakes[index])
    text = f"The code below runs, and its result is wrong: one line has a mistake. Find it and repair it.\n\n{task.statement}"
    hints = (
        "Run it on a batch of two samples and two features, and work the same numbers by hand.",
        task.mistakes[index].sentence,
        *task.hints[-1:],
    )
    changes: dict[str, Any] = {
        "name": name,
        "title": title,
        "kind": kind,
        "statement": text,
        "stub": planted,
        "hints": hints,
    }
    return replace(task, **changes)


def predict(
    name: str, title: str, section: str, statement: str, solution: str, *, fact: str, hints: Sequence[str],
    output: str = "answer", mistakes: Sequence[Mistake] = (), tolerance: float = 5e-3,
) -> Task:  # fmt: skip
    """Return an exercise that asks for a number or a choice; the right one is computed by the solution."""
    text = (
        document(statement)
        + "\n\nReturn the answer from the function answer(). Two significant digits are not enough, four are."
    )
    return Task(
        name, title, section, "predict", text, "def answer():\n    raise NotImplementedError\n", tuple(hints),
        document(solution) + "\n", fact, (output,), lambda _: ([()],), tuple(mistakes), True, tolerance,
    )  # fmt: skip


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(_shown(entry) for entry in value)})"
    return (
        np.array2string(np.asarray(value), precision=4, separator=", ").replace("\n", "")
        if not isinstance(value, str)
        else value
    )
