"""Builders of exercises: each fills a Task from what its kind needs."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from funcnn.practice import archive
from funcnn.practice.task import Answers, Mistake, Task, document, load, with_mistake

SHAPES = ((4, 3), (1, 5), (5, 2), (3, 3), (2, 7))


def batches(make: Callable, *special: tuple) -> Callable[[Any], tuple[list[tuple], ...]]:
    """Return inputs of several shapes, ``make(random, batch, features)``, and special ones after them."""
    return lambda random: ([make(random, *shape) for shape in SHAPES] + list(special),)


def _answers(name: str, solution: str | None, mistakes: Sequence[Mistake]) -> Callable[[], Answers]:
    """Return the function that returns the solution: one that is given, or the one that the archive has."""
    if solution is None:
        return lambda: archive.solutions()[name]
    return functools.partial(Answers, document(solution) + "\n", tuple(mistakes))


def write(
    name: str, title: str, section: str, statement: str, signature: str, *, inputs: Callable, hints: Sequence[str],
    fact: str, outputs: Sequence[str], example: tuple | None = None, kind: Literal["write", "derive"] = "write",
    by_hand: bool = True, reference: Callable | None = None, solution: str | None = None,
    mistakes: Sequence[Mistake] = (),
) -> Task:  # fmt: skip
    """Return an exercise that asks for code from a statement; the example's values are computed here.

    Args:
        name, title, section, hints, fact, outputs, inputs, by_hand, kind, reference: the fields of ``Task``.
        statement: the equations and the shapes, without the example.
        signature: the function, such as ``"backward(a, da)"``.
        example: arguments whose result the statement shows.
        solution, mistakes: a right answer and common mistakes in it; ``None`` for those of the package.
    """
    answers = _answers(name, solution, mistakes)
    text = document(statement)
    if example is not None:
        value = load(answers().solution, signature.split("(", 1)[0])(*example)
        names = signature.split("(", 1)[1].rstrip(")").split(", ")
        given = "\n".join(
            f"    {argument} = {_shown(entry)}" for argument, entry in zip(names, example, strict=True)
        )  # fmt: skip
        result = "\n".join(
            f"    {output} = {_shown(entry)}"
            for output, entry in zip(outputs, value if isinstance(value, tuple) else (value,), strict=True)
        )  # fmt: skip
        text += f"\n\nExample: for\n\n{given}\n\nthe result is\n\n{result}"
    stub = f"import numpy as np\n\n\ndef {signature}:\n    raise NotImplementedError\n"
    return Task(
        name, title, section, kind, text, stub, tuple(hints), signature, fact, tuple(outputs), inputs, answers, name,
        by_hand, reference=reference,
    )  # fmt: skip


def repair(name: str, title: str, task: Task, index: int) -> Task:
    """Return an exercise that shows the solution with one of its mistakes, under a statement of what it should do."""
    mistake = task.mistakes[index]
    text = (
        "The code below runs, and its result is wrong: one line or two have a mistake. Find it and repair it. What "
        f"the code should do:\n\n{task.statement}"
    )
    hints = (
        "Run the code on the example of the statement, print each value, and compare it with the value by hand.",
        mistake.sentence,
        *task.hints[-1:],
    )
    return Task(
        name, title, task.section, "repair", text, with_mistake(task, mistake), hints, task.signature, task.fact,
        task.outputs, task.inputs, task.answers, task.base, task.by_hand, task.tolerance,
        task.reference,
    )  # fmt: skip


def predict(
    name: str, title: str, section: str, statement: str, *, fact: str, hints: Sequence[str], output: str = "answer",
    tolerance: float = 5e-3, solution: str | None = None, mistakes: Sequence[Mistake] = (),
) -> Task:  # fmt: skip
    """Return an exercise that asks for a number or a choice; the right one is computed by the solution."""
    answers = _answers(name, solution, mistakes)
    value = load(answers().solution, "answer")()
    if isinstance(value, str):
        form = "one of the words in quotes, as a string"
    elif isinstance(value, int):
        form = "a whole number"
    else:
        form = "a number with at least four significant digits, or an expression that computes it"
    text = f"{document(statement)}\n\nReturn from answer() {form}."
    stub = "import numpy as np\n\n\ndef answer():\n    raise NotImplementedError\n"
    return Task(
        name, title, section, "predict", text, stub, tuple(hints), "answer()", fact, (output,), lambda _: ([()],),
        answers, name, True, tolerance,
    )  # fmt: skip


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(_shown(entry) for entry in value)})"
    if isinstance(value, str):
        return value
    return np.array2string(np.asarray(value), precision=4, separator=", ").replace("\n", "")
