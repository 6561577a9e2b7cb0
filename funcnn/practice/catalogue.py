"""The exercises in the chapter's order, and a teacher's own."""

import difflib
import functools
import importlib
import importlib.util
import traceback
from pathlib import Path

from funcnn.practice.task import Task

SECTIONS = (
    "perceptron", "activations", "forward_propagation", "losses", "backpropagation", "gradient_descent",
    "vanishing_gradients",
)  # fmt: skip


def tasks(folder: str | Path | None = None) -> tuple[Task, ...]:
    """Return the exercises in the order of the chapter, and after them those of a folder.

    Args:
        folder: a folder of Python files, each with a tuple ``TASKS`` of exercises from ``funcnn.practice.builders``.
            The files are run as they are: name only folders that you trust.

    Raises:
        ValueError: the folder has no exercise, or a name that is taken.

    Example:
        >>> import funcnn as fnn
        >>> [task.name for task in fnn.practice.tasks() if task.kind == "write"][0]
        'neuron-forward'
    """
    if folder is None:
        return _tasks_of_the_chapter()
    own = [task for file in sorted(Path(folder).glob("[!_]*.py")) for task in _read(file)]
    if not own:
        raise ValueError(
            f"tasks(folder): expected Python files with a tuple TASKS in {folder}, found none. "
            "Write one, with a name that doesn't begin with _."
        )
    names = [task.name for task in (*tasks(), *own)]
    if taken := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"tasks(folder): expected names that are not taken, got {', '.join(taken)}. Rename them.")
    return (*tasks(), *own)


@functools.cache
def _tasks_of_the_chapter() -> tuple[Task, ...]:
    # Here, and not above: the tool that writes the archive of the solutions imports this package without it.
    modules = [importlib.import_module(f"funcnn.practice.sections.{name}") for name in SECTIONS]
    return tuple(task for module in modules for task in module.TASKS)


def _read(file: Path) -> tuple[Task, ...]:
    specification = importlib.util.spec_from_file_location(f"practice_tasks_{file.stem}", file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
    except Exception as error:  # whatever the file raises
        raise ValueError(
            f"tasks(folder): expected a file that Python can import, got {type(error).__name__} in "
            f"{file}{_line_in(file, error)}: {error}. Repair it, or begin its name with _."
        ) from error
    found = getattr(module, "TASKS", None)
    if not isinstance(found, tuple) or not all(isinstance(task, Task) for task in found):
        came = "none" if found is None else f"{found!r:.80}"
        raise ValueError(
            f"tasks(folder): expected a tuple TASKS of exercises in {file}, got {came}. "
            "Build them by write, repair and predict of funcnn.practice.builders."
        )
    return found


def _line_in(file: Path, error: Exception) -> str:
    """Return the line of a file that raised, as words; nothing where it is unknown."""
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        places.append((error.filename or "", error.lineno))
    lines = [line for name, line in places if Path(name) == file.absolute()]
    return f", line {lines[-1]}" if lines else ""


def find_task(name: str, folder: str | Path | None = None) -> Task:
    """Return the exercise of this name.

    Raises:
        ValueError: there is none.
    """
    by_name = {task.name: task for task in tasks(folder)}
    if name in by_name:
        return by_name[name]
    near = difflib.get_close_matches(name, by_name, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"expected the name of an exercise, got {name!r}.{hint} practice.tasks() lists them.")
