"""Files that are saved, and the screen that shows their grades."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from funcnn._optional import import_optional
from funcnn.practice.grading import Grade

_CALL = "watch"


def saved(folder: Path) -> Iterator[Path]:
    """Yield each file of a folder that is saved, until Ctrl-C."""
    watchfiles = import_optional("watchfiles", _CALL, "practice")
    import_optional("rich", _CALL, "practice")  # which the first grade needs
    return paths(watchfiles.watch(folder, raise_interrupt=False), watchfiles.Change.deleted)


def paths(changes: Iterable[set[tuple[Any, str]]], deleted: Any) -> Iterator[Path]:
    """Yield the files of sets of changes that are there, each set's in the order of their names."""
    for group in changes:
        yield from sorted({Path(path).resolve() for change, path in group if change != deleted})


def show(name: str, grade: Grade, done: int, total: int, following: str | None) -> None:
    """Clear the screen and show a grade, what the answer printed, and the progress."""
    rich = import_optional("rich.console", _CALL, "practice")
    panel = import_optional("rich.panel", _CALL, "practice")
    bar = import_optional("rich.progress_bar", _CALL, "practice")
    text = import_optional("rich.text", _CALL, "practice")
    console = rich.Console()
    console.clear()
    if grade.printed:
        console.print(panel.Panel(text.Text(grade.printed.rstrip()), title="printed", border_style="dim"))
    title = f"{name}: right" if grade.ok else f"{name}: not yet ({grade.cause})"
    color = "green" if grade.ok else "yellow"
    console.print(panel.Panel(text.Text(grade.message), title=title, title_align="left", border_style=color))
    console.print(bar.ProgressBar(total=total, completed=done, width=40, complete_style="green"), end=" ")
    console.print(f"{done} of {total} done, graded in {grade.seconds:.1f} s.", highlight=False)
    if following is None:
        console.print("Every exercise is done.")
    elif grade.ok:
        console.print(f"Next: {following}", highlight=False)
    else:
        console.print(f"A hint: python -m funcnn practice hint {name}", highlight=False)
