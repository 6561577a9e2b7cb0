"""For teachers: the exercises as notebooks, and the grades of a class as a table."""

import csv
import html
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from funcnn.practice.grading import grade_task
from funcnn.practice.task import Task, is_untouched

Form: TypeAlias = Literal["plain", "nbgrader", "otter"]
"""What a notebook is for: students as it is, or one of the two programs that make theirs from it."""


def export(folder: Path, tasks: Sequence[Task], form: Form = "plain") -> list[Path]:
    """Write a notebook for each section; return the files.

    Args:
        folder: where they are written.
        tasks: the exercises.
        form: ``"plain"`` for stubs with tests; ``"nbgrader"`` and ``"otter"`` for the masters from which ``nbgrader
            generate_assignment`` and ``otter assign`` make the students' notebooks: these have the solutions.

    Raises:
        ValueError: a notebook that is there has other content, such as a teacher's changes. Nothing is written then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts: dict[Path, str] = {}
    for section, members in itertools.groupby(tasks, key=lambda task: task.section):
        name = section.lower().replace(" ", "-")
        cells = [_cell("markdown", f"# {section}", f"title-{len(texts)}")]
        if form == "otter":
            cells.insert(0, _cell("raw", f"# ASSIGNMENT CONFIG\nname: {name}\ninit_cell: true", f"config-{len(texts)}"))
        for task in members:
            cells += _otter_cells(task) if form == "otter" else _cells(task, form == "nbgrader")
        notebook = {
            "cells": cells, "nbformat": 4, "nbformat_minor": 5,
            "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        }  # fmt: skip
        texts[folder / f"{name}.ipynb"] = json.dumps(notebook, indent=1, ensure_ascii=False)
    for file, text in texts.items():
        if file.exists() and file.read_text(encoding="utf-8") != text:
            raise ValueError(
                f"export: expected no other notebook at {file}, got one with other content. "
                "Name another folder with --to, or remove it."
            )
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
    return list(texts)


def _cell(kind: str, text: str, name: str, metadata: dict | None = None) -> dict:
    cell = {"cell_type": kind, "id": name[:64], "metadata": metadata or {}, "source": text.splitlines(keepends=True)}
    return cell if kind != "code" else cell | {"outputs": [], "execution_count": None}


def _cells(task: Task, nbgrader: bool) -> list[dict]:
    code = _marked_solution(task, "###") if nbgrader else task.stub

    def marks(name, **changes):
        if not nbgrader:
            return {}
        return {
            "nbgrader": {"grade_id": name, "schema_version": 3, "grade": False, "solution": False, "locked": False}
            | changes
        }

    return [
        _cell("markdown", _text(task) if nbgrader else f"## {task.title}\n\n{task.statement}", f"text-{task.name}"),
        _cell("code", code, f"code-{task.name}", marks(f"code-{task.name}", solution=True)),
        _cell("code", _check(task), f"test-{task.name}", marks(f"test-{task.name}", grade=True, locked=True, points=1)),
    ]


def _check(task: Task) -> str:
    """Return the code that grades the function of a notebook."""
    return (
        f'from funcnn import practice\n\nresult = practice.grade("{task.name}", {task.entry})\n'
        "assert result.ok, result.message\nresult.message"
    )


def _marked_solution(task: Task, mark: str) -> str:
    """Return the solution between the marks whose inside students don't get."""
    if task.kind == "repair":
        return f"{mark} BEGIN SOLUTION\n{task.solution}{mark} END SOLUTION\n"
    head, body = task.solution.split(f"def {task.entry}", 1)
    line, body = body.split(":\n", 1)
    return f"{head}def {task.entry}{line}:\n    {mark} BEGIN SOLUTION\n{body.rstrip()}\n    {mark} END SOLUTION\n"


def _text(task: Task) -> str:
    """Return the statement, with the code of a repair, whose place in the notebook the solution takes."""
    code = f"\n\n```python\n{task.stub}```" if task.kind == "repair" else ""
    return f"## {task.title}\n\n{task.statement}{code}"


def _otter_cells(task: Task) -> list[dict]:
    """Return a question of ``otter assign``: raw cells between which the solution and the tests stand."""
    name = task.name
    # The tests run behind all questions, several of which define a function of the same name.
    alias = name.replace("-", "_")
    check = _check(task).replace(f", {task.entry})", f", {alias})").removesuffix("\nresult.message")
    return [
        _cell("raw", f"# BEGIN QUESTION\nname: {name}\npoints: 1", f"question-{name}"),
        _cell("markdown", _text(task), f"text-{name}"),
        _cell("raw", "# BEGIN SOLUTION", f"begin-{name}"),
        _cell("code", f"{_marked_solution(task, '#')}\n{alias} = {task.entry}", f"code-{name}"),
        _cell("raw", "# END SOLUTION", f"end-{name}"),
        _cell("raw", "# BEGIN TESTS", f"begin-tests-{name}"),
        _cell("code", check, f"test-{name}"),
        _cell("raw", "# END TESTS", f"end-tests-{name}"),
        _cell("raw", "# END QUESTION", f"end-question-{name}"),
    ]


def report(folder: Path, tasks: Sequence[Task]) -> list[Path]:
    """Grade ``folder/STUDENT/EXERCISE.py``; write grades.csv and grades.html into the folder and return them.

    Raises:
        ValueError: the folder has no folder of a student.
    """
    students = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    if not students:
        raise ValueError(
            f"report(FOLDER): expected a folder for each student in {folder}, found none. "
            "Put the files of each student into a folder of the student's name."
        )
    columns = [task for task in tasks if any((student / _file(task)).exists() for student in students)]
    rows = [[student.name, *(_grade_of(student / _file(task), task) for task in columns)] for student in students]
    table = folder / "grades.csv"
    header = ["student", *(task.name for task in columns)]
    with table.open("w", newline="", encoding="utf-8") as stream:
        # A name that begins with = is a formula to a spreadsheet.
        csv.writer(stream).writerows(
            [header, *([f"'{cell}" if cell[:1] in "=+-@" else cell for cell in row] for row in rows)]
        )
    page = folder / "grades.html"
    page.write_text(_page([header, *rows]), encoding="utf-8")
    return [table, page]


def _file(task: Task) -> str:
    return f"{task.name.replace('-', '_')}.py"


def _grade_of(file: Path, task: Task) -> str:
    if not file.exists():
        return "absent"
    answer = file.read_text(encoding="utf-8", errors="replace")
    if is_untouched(task, answer):
        return "not started"
    result = grade_task(task, answer)
    return "right" if result.ok else str(result.cause)


def _page(rows: list[list[str]]) -> str:
    def row(tag, cells):
        parts = (f"<{tag}{' class=right' if cell == 'right' else ''}>{html.escape(cell)}</{tag}>" for cell in cells)
        return f"<tr>{''.join(parts)}</tr>"

    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Grades</title>'
        "<style>body{font-family:sans-serif}td,th{border:1px solid #bbb;padding:.3em}table{border-collapse:collapse}"
        ".right{background:#dfd}</style>"
        f"<table>{row('th', rows[0])}{''.join(row('td', cells) for cells in rows[1:])}</table></html>\n"
    )
