"""An exercise: its statement, its stub, its hints, and how answers are judged."""

import ast
import functools
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["write", "repair", "predict", "derive"]
"""What an exercise asks for: code from a statement, code without its mistake, a number or a choice, a Jacobian."""


class Mistake(NamedTuple):
    """One way to get the solution wrong: its text with ``old`` replaced by ``new``.

    Fields:
        cause: a name from ``funcnn.gradcheck.report.Cause`` where one fits.
        old, new: what the text of the solution has, and what stands there instead.
        sentence: what to consider, without the right formula.
    """

    cause: str
    old: str
    new: str
    sentence: str


class Answers(NamedTuple):
    """What an exercise doesn't show: the text of a right answer, and common mistakes in it."""

    solution: str
    mistakes: tuple[Mistake, ...] = ()


@dataclass(frozen=True)
class Task:
    """An exercise.

    Fields:
        name: words joined by hyphens, as on the command line.
        title: a line for a table of contents.
        section: the section of the chapter.
        kind: write, repair, predict or derive.
        statement: the equations, the shapes and an example.
        stub: the file to start from; for a repair, code with a mistake.
        hints: from a first idea to nearly the whole answer.
        signature: the function with its arguments, as a caller writes it.
        fact: one thing worth knowing about a right answer.
        outputs: names of what the function returns.
        inputs: ``(random generator) -> lists of arguments``; an answer has to be right on one whole list.
        answers: ``() -> Answers``.
        base: the exercise whose solution has the mistake that is to be repaired; otherwise ``name``.
        by_hand: whether automatic differentiation is refused.
        tolerance: the relative difference that is right.
        reference: for a backward pass, ``(*arguments) -> (loss, variables)`` in JAX: what is asked for is the gradient
            of ``loss(variables)``.
    """

    name: str
    title: str
    section: str
    kind: Kind
    statement: str
    stub: str
    hints: tuple[str, ...]
    signature: str
    fact: str
    outputs: tuple[str, ...]
    inputs: Callable[[Any], tuple[list[tuple], ...]] = field(repr=False)
    answers: Callable[[], Answers] = field(repr=False)
    base: str = ""
    by_hand: bool = True
    tolerance: float = 1e-6
    reference: Callable[..., tuple[Callable, Any]] | None = field(default=None, repr=False)

    @property
    def entry(self) -> str:
        """The name of the function that an answer defines."""
        return self.signature.split("(", 1)[0]

    @property
    def solution(self) -> str:
        """The source text of a right answer."""
        return self.answers().solution

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        """The common mistakes, by which a wrong answer is explained."""
        return self.answers().mistakes


@functools.cache
def load(source: str, entry: str) -> Callable:
    """Return the function that trusted source text defines: a solution or a planted mistake."""
    scope: dict[str, Any] = {"__name__": "solution"}
    exec(compile(source, "solution", "exec"), scope)
    return scope[entry]


def with_mistake(task: Task, mistake: Mistake) -> str:
    """Return the solution's text with the mistake in it.

    Raises:
        ValueError: the text to replace isn't in the solution.
    """
    if mistake.old not in task.solution:
        raise ValueError(
            f"Mistake(old): expected text of the solution of {task.name}, got {mistake.old!r}. "
            "Copy it from the solution."
        )
    return task.solution.replace(mistake.old, mistake.new)


def is_untouched(task: Task, answer: str) -> bool:
    """Whether the text of an answer is the stub's, whatever its statement, comments and blank lines."""
    try:
        return _code(answer) == _code(task.stub)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _code(text: str) -> list[str]:
    """Return the statements of source text, without a docstring at its beginning."""
    statements = ast.parse(text).body
    first = statements[0] if statements else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        statements = statements[1:]
    return [ast.dump(statement) for statement in statements]


def document(text: str) -> str:
    """Return text without its common indentation and outer blank lines."""
    return textwrap.dedent(text).strip()
