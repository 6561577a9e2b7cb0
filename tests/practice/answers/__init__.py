"""Answers to the exercises: wrong ones with their causes, and right ones in unusual forms.

Each is the body of a function of the exercise's signature, or an expression that it returns.
"""

import ast
import contextlib

from funcnn.practice.task import Task


def source(task: Task, body: str) -> str:
    """Return the text of an answer."""
    if body.startswith(("def ", "import ", "from ", "class ")):
        return body
    with contextlib.suppress(SyntaxError):
        ast.parse(body, mode="eval")
        body = f"return {body}"
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"import numpy as np\n\n\ndef {task.signature}:\n{lines}"
