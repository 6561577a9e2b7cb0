"""The grade of an answer: run apart, compared here with values that its process never sees, and explained."""

import ast
import math
import time
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from funcnn.practice.catalogue import find_task
from funcnn.practice.comparison import Difference, all_right, find_difference, flatten, shapes_given, split, values_of
from funcnn.practice.explaining import find_cause
from funcnn.practice.process import SECONDS, Reply, run_answer
from funcnn.practice.task import Task, load, with_mistake
from funcnn.practice.worker import AUTODIFF


class Grade(NamedTuple):
    """The grade of an answer.

    Fields:
        ok: whether the answer is right.
        cause: what is wrong, in a word; ``None`` for a right answer.
        message: what to consider; for a right answer, one thing worth knowing.
        seconds: how long grading took.
        printed: what the answer printed, its first 4000 characters.
    """

    ok: bool
    cause: str | None
    message: str
    seconds: float
    printed: str = ""


def grade(task_name: str, answer: str | Callable) -> Grade:
    r"""Grade an answer to an exercise.

    The answer runs in a process of its own: a few seconds, limited memory, no network, no other processes, no files
    outside a temporary folder, no funcnn. Its outputs on random and on special inputs are compared here with the right
    ones. What it prints is shown in ``printed`` and decides nothing.

    Args:
        task_name: the name of the exercise, as ``tasks`` lists it.
        answer: source text that defines the function of the statement, in NumPy or JAX, or that function.

    Returns:
        The grade.

    Raises:
        ValueError: no exercise has this name.
        TypeError: the answer is neither text nor a Python function.

    Example:
        >>> import funcnn as fnn
        >>> right = fnn.practice.grade("relu-backward", "def backward(z, da):\n    return da * (z > 0)")
        >>> right.ok
        True
        >>> fnn.practice.grade("relu-backward", "def backward(z, da):\n    return da * z").ok
        False
    """
    return grade_task(find_task(task_name), answer)


def grade_task(task: Task, answer: str | Callable) -> Grade:
    """Grade an answer to a task, which may be one's own."""
    start = time.perf_counter()
    ok, cause, message, printed = _judge(task, answer)
    return Grade(ok, cause, message, time.perf_counter() - start, printed)


def _judge(task: Task, answer: str | Callable) -> tuple[bool, str | None, str, str]:
    if (refused := _refusal(task, answer)) is not None:
        return False, *refused, ""
    layouts = task.inputs(np.random.default_rng(2024))
    right = load(task.solution, task.entry)
    printed, shown = "", None
    for inputs in layouts:
        reply = run_answer(answer, task.entry, inputs, by_hand=task.by_hand)
        printed = reply.printed
        found = _failure(task, reply, inputs) or _judge_values(task, reply, inputs, right)
        if found is None:
            return True, None, f"Right. {task.fact}", printed
        # An answer that takes the other form of the labels raises on one form: what it returns on the other explains.
        if shown is None or (shown.cause == "raised" and found.cause != "raised"):
            shown = found
        if found.cause in ("time", "exit", "autodiff"):
            break
    assert shown is not None
    return False, shown.cause, " ".join(part for part in (shown.sentence, shown.place) if part), printed


def _refusal(task: Task, answer: str | Callable) -> tuple[str, str] | None:
    """Return a cause and a message for an answer that isn't run."""
    if isinstance(answer, str):
        try:
            tree = ast.parse(answer)
            compile(answer, "answer", "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
            return "syntax", f"Python can't read the file{line}: {getattr(error, 'msg', error)}."
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_jax(node.value)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jax":
                names |= {alias.name for alias in node.names}
    elif isinstance(answer, types.FunctionType):
        names = set(answer.__code__.co_names) if "jax" in answer.__code__.co_names else set()
    else:
        raise TypeError(
            f"grade(answer): expected source text or a Python function, got {type(answer).__name__}. "
            "Pass a function that is written with def, or its text."
        )
    if task.by_hand and (used := names & set(AUTODIFF)):
        return "autodiff", _no_autodiff(sorted(used)[0])
    return None


def _is_jax(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "jax"


def _no_autodiff(name: str) -> str:
    return f"This exercise is by hand, and jax.{name} differentiates for you: write the formula with array operations."


def _failure(task: Task, reply: Reply, inputs: list[tuple]) -> Difference | None:
    """Return why there are no values to compare."""
    if reply.error == "time":
        return Difference("time", f"The answer ran longer than {SECONDS} seconds and was stopped: does a loop end?")
    if reply.error == "exit":
        return Difference(
            "exit",
            "The process of the answer ended before the function returned: does it leave by exit, or "
            "take too much memory?",
        )
    if reply.error == "missing":
        return Difference("missing", f"No function {task.entry} is defined. Expected: def {task.signature}")
    if reply.error == "raised":
        if "read-only" in reply.detail:
            line = reply.detail.partition(":")[0].removeprefix("ValueError")
            return Difference(
                "changed_argument",
                f"The function changes an array that it was given{line}, or a view of one. Work on a copy: the caller "
                "still needs its own.",
            )
        if "automatic differentiation" in reply.detail:
            return Difference(
                "autodiff",
                "This exercise is by hand: automatic differentiation isn't available in it. Write the "
                "formula with array operations.",
            )
        if "PermissionError" in reply.detail or "an answer imports" in reply.detail:
            return Difference("forbidden", f"This is not available to an answer. {reply.detail}")
        if reply.detail.startswith("NotImplementedError"):
            line = reply.detail.partition(":")[0].removeprefix("NotImplementedError")
            return Difference("unfinished", f"The stub isn't filled in yet: replace `raise NotImplementedError`{line}.")
        number, place = reply.number, ""
        if number is not None and number < len(inputs) and not reply.detail.startswith("NameError"):
            place = shapes_given(inputs[number], task.signature)
        if f"{task.entry}() takes" in reply.detail or f"{task.entry}() missing" in reply.detail:
            place = f"Expected: def {task.signature}"
        return Difference("raised", f"The answer raised {reply.detail.rstrip().rstrip('.')}.", place)
    if reply.error or len(reply.outputs) != len(inputs):
        return Difference("forged", "The process of the answer returned something other than the function's values.")
    return None


def _judge_values(task: Task, reply: Reply, inputs: list[tuple], right: Callable) -> Difference | None:
    with np.errstate(all="ignore"):
        rights = [right(*arguments) for arguments in inputs]
    answers = [split(answer, value) for answer, value in zip(reply.outputs, rights, strict=True)]
    if all_right(answers, rights, task.tolerance):
        return None
    difference = find_difference(answers, rights, inputs, task.outputs, task.signature, task.tolerance)
    if task.kind == "predict" and difference.output is not None:
        difference = _without_value(difference, answers[0], rights[0])
    return _known_mistake(task, answers, inputs, difference) or _explained(task, answers, inputs, difference)


def _without_value(difference: Difference, answer: Any, right: Any) -> Difference:
    """Return the difference of a number without the right one, which its place and its factor have in them."""
    mine = float(values_of(flatten(answer)[0]))
    if math.isclose(mine, -right, rel_tol=1e-3):
        return Difference("sign", f"{mine:.6g} has the other sign.")
    size = "large" if mine > right else "small"
    return Difference("unknown", f"{mine:.6g} is too {size}. Compute it step by step in Python, or take a hint.")


def _explained(task: Task, answers: list[Any], inputs: list[tuple], difference: Difference) -> Difference:
    """Return the difference with the cause that the gradient checker finds, where the values show none."""
    if task.reference is None or difference.output is None or difference.cause not in ("unknown", "element"):
        return difference
    given = tuple(values_of(leaf) for leaf in flatten(answers[0]))
    name = task.outputs[difference.output]
    found = find_cause(task.reference, inputs[0], given if len(given) > 1 else given[0], difference.output, name)
    # With a cotangent among the arguments, the loss is the sum of y dy: the answer has no derivative of a loss in it.
    if found is not None and found[0] == "loss_derivative" and any(d in task.signature for d in ("da", "dp", "dy")):
        return difference
    return difference if found is None else Difference(*found, difference.place, difference.output)


def _known_mistake(task: Task, answers: list[Any], inputs: list[tuple], difference: Difference) -> Difference | None:
    """Return the mistake of the task's list that gives the answer's values."""
    for mistake in task.mistakes:
        planted = load(with_mistake(task, mistake), task.entry)
        with np.errstate(all="ignore"):
            try:
                values = [planted(*arguments) for arguments in inputs]
            except Exception:
                continue
        if all_right(answers, values, task.tolerance):
            return difference._replace(cause=mistake.cause, sentence=mistake.sentence)
    return None
