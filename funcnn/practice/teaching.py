"""For teachers: the exercises as notebooks, and the grades of a class as a table."""

import csv
import html
import itertools
import json
from pathlib import Path

from funcnn.practice.catalogue import tasks
from funcnn.practice.grading import grade
from funcnn.practice.task import Task


def export(folder: Path, *, nbgrader: bool = False) -> list[Path]:
    """Write a notebook for each section; return the files.

    With ``nbgrader``, cells carry its metadata, and the solution stands between its marks, from which it makes the
    students' version.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for section, members in itertools.groupby(tasks(), key=lambda task: task.section):
        cells = [_cell("markdown", f"# {section}", f"title-{len(files)}")]
        for task in members:
            cells += _cells(task, nbgrader)
        notebook = {
            "cells": cells, "nbformat": 4, "nbformat_minor": 5,
            "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        }  # fmt: skip
        file = folder / f"{section.lower().replace(' ', '-')}.ipynb"
        file.write_text(json.dumps(notebook, indent=1, ensure_ascii=False), encoding="utf-8")
        files.append(file)
    return files


def _cell(kind: str, text: str, name: str, metadata: dict | None = None) -> dict:
    cell = {"cell_type": kind, "id": name[:64], "metadata": metadata or {}, "source": text.splitlines(keepends=True)}
    return cell if kind == "markdown" else cell | {"outputs": [], "execution_count": None}


def _cells(task: Task, nbgrader: bool) -> list[dict]:
    code = task.stub
    if nbgrader and task.kind == "repair":
        code = f"### BEGIN SOLUTION\n{task.solution}### END SOLUTION\n"
    elif nbgrader:
        code = task.solution.replace(":\n", ":\n    ### BEGIN SOLUTION\n", 1).rstrip() + "\n    ### END SOLUTION\n"
    check = (
        f'from funcnn import practice\n\nresult = practice.grade("{task.name}", {task.entry})\n'
        "assert result.ok, result.message\nresult.message"
    )

    def marks(name, **changes):
        if not nbgrader:
            return {}
        return {
            "nbgrader": {"grade_id": name, "schema_version": 3, "grade": False, "solution": False, "locked": False}
            | changes
        }

    return [
        _cell("markdown", f"## {task.title}\n\n{task.statement}", f"text-{task.name}"),
        _cell("code", code, f"code-{task.name}", marks(f"code-{task.name}", solution=True)),
        _cell("code", check, f"test-{task.name}", marks(f"test-{task.name}", grade=True, locked=True, points=1)),
    ]


def report(folder: Path) -> list[Path]:
    """Grade ``folder/STUDENT/EXERCISE.py``; write grades.csv and grades.html into the folder and return them.

    Raises:
        ValueError: the folder has no folder of a student.
    """
    students = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    if not students:
        raise ValueError(f"report(FOLDER): expected a folder for each student in {folder}, found none.")
    columns = [task for task in tasks() if any((student / _file(task)).exists() for student in students)]
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
    result = grade(task.name, file.read_text(encoding="utf-8", errors="replace"))
    return "right" if result.ok else str(result.cause)


def _page(rows: list[list[str]]) -> str:
    lines = ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Grades</title>'
        "<style>body{font-family:sans-serif}td{border:1px solid "
        "#bbb;padding:.3em}table{border-collapse:collapse}</style>"
        f"<table>{''.join(lines)}</table></html>\n"
    )
