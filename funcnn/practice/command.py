"""Exercises in backpropagation as files in the folder practice/, graded from the command line."""

import argparse
import json
import sys
import textwrap
import xml.etree.ElementTree as ET
from pathlib import Path

from funcnn.practice import catalogue, teaching, watching
from funcnn.practice.grading import Grade, grade_task
from funcnn.practice.task import Task

FOLDER = Path("practice")
PROGRESS = ".progress.json"


def main(arguments: list[str]) -> int:
    """Run a command; return 0 where what was graded is right, 1 where it isn't, 2 for a wrong call."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except BrokenPipeError:  # the reader of the output has left
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        sys.stderr.write(f"python -m funcnn practice: {_no_file(error)}\n")
        return 2
    except (ValueError, OSError, ModuleNotFoundError) as error:
        sys.stderr.write(f"python -m funcnn practice: {error}\n")
        return 2


def _no_file(error: OSError) -> str:
    """Return the message of a path that isn't there, whether it was raised here or by the system."""
    kind = "folder" if isinstance(error, NotADirectoryError) else "file or a folder"
    return f"expected a {kind}, found none at {error.filename}." if error.filename else str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m funcnn practice", description=__doc__)
    parser.set_defaults(run=_write)
    parser.add_argument(
        "--tasks", metavar="FOLDER", help="exercises of your own, besides the chapter's: files with a tuple TASKS"
    )
    commands = parser.add_subparsers(metavar="COMMAND")

    def add(name, run, text):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    add("write", _write, "write one file for each exercise; those that are there stay (the default)")
    add("watch", _watch, "grade a file whenever it is saved")
    graded = add("grade", _grade, "grade files")
    graded.add_argument("files", nargs="+", metavar="FILE", help="a file, or the name of an exercise")
    graded.add_argument("--json", action="store_true", help="print the grades as JSON")
    graded.add_argument("--junit", metavar="FILE", help="write the grades as JUnit XML")
    add("hint", _hint, "show the next hint").add_argument(
        "name", nargs="?", help="the name of an exercise, or its file; the next exercise by default"
    )
    shown = add("solution", _solution, "show the solution, after a question")
    shown.add_argument("name", help="the name of an exercise, or its file")
    shown.add_argument("--yes", action="store_true", help="show it without the question")
    add("list", _list, "list the exercises, and which are done")
    add("progress", _progress, "show how many are done, and which is next")
    add("reset", _reset, "write the stub of an exercise anew; your file is kept as .py.before").add_argument(
        "name", help="the name of an exercise, or its file"
    )
    exported = add("export", _export, "write notebooks of the chapter's exercises, one for each section")
    form = exported.add_mutually_exclusive_group()
    form.add_argument("--notebook", action="store_const", const="plain", dest="form", help="stubs and tests (default)")
    form.add_argument(
        "--nbgrader", action="store_const", const="nbgrader", dest="form", help="for nbgrader, with solutions"
    )
    form.add_argument(
        "--otter", action="store_const", const="otter", dest="form", help="for otter assign, with solutions"
    )
    exported.add_argument(
        "--to", metavar="FOLDER", help="where to write them (default: notebooks, or masters for those with solutions)"
    )
    add("report", _report, "grade a folder of students' folders, as CSV and HTML").add_argument(
        "folder", metavar="FOLDER", help="with a folder for each student, which has the files of the exercises"
    )
    return parser


def _tasks(options) -> tuple[Task, ...]:
    return catalogue.tasks(options.tasks)


def _task(options, name: str) -> Task:
    """Return the exercise of a name, or of a file named after it."""
    try:
        return catalogue.find_task(name_of(Path(name)), options.tasks)
    except ValueError as error:
        text = str(error).replace("practice.tasks() lists them", "`python -m funcnn practice list` shows them")
        raise ValueError(text) from None


def file_of(task: Task) -> Path:
    """Return the file of an exercise."""
    return FOLDER / f"{task.name.replace('-', '_')}.py"


def name_of(file: Path) -> str:
    """Return the name of the exercise of a file."""
    return file.stem.replace("_", "-")


def file_text(task: Task) -> str:
    """Return the file of an exercise: the statement as a docstring, the stub below."""
    paragraphs = task.statement.split("\n\n")
    text = "\n\n".join(part if part[:1] == " " else textwrap.fill(part, 100) for part in paragraphs)
    return f'"""{task.title} ({task.section}, {task.kind})\n\n{text}\n"""\n\n{task.stub}'


def _write_files(options) -> None:
    """Write the files of exercises that have none."""
    FOLDER.mkdir(exist_ok=True)
    new = [task for task in _tasks(options) if not file_of(task).exists()]
    for task in new:
        file_of(task).write_text(file_text(task), encoding="utf-8")
    if new:
        print(f"Wrote {len(new)} exercises into {FOLDER}/, one file each. Run this command again to continue later.")


def _write(options) -> int:
    _write_files(options)
    _progress(options)
    if (following := _next(options)) is not None:
        print("Open it in an editor, and run `python -m funcnn practice watch` beside it: it grades what you save.")
        print(f"To grade it once: `python -m funcnn practice grade {file_of(following)}`.")
        print("Stuck? `python -m funcnn practice hint`. All exercises: `python -m funcnn practice list`.")
    return 0


def _next(options) -> Task | None:
    done = _read_progress().get("done", [])
    return next((task for task in _tasks(options) if task.name not in done), None)


def _read_progress() -> dict:
    try:
        return json.loads((FOLDER / PROGRESS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def _update_progress(**changes) -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / PROGRESS).write_text(json.dumps(_read_progress() | changes), encoding="utf-8")


def _mark(name: str, done: bool) -> None:
    """Keep that an exercise is done, or that it starts anew."""
    others = [other for other in _read_progress().get("done", []) if other != name]
    _update_progress(done=[*others, name] if done else others)


def _list(options) -> int:
    done, section = _read_progress().get("done", []), ""
    for task in _tasks(options):
        if task.section != section:
            section = task.section
            print(f"\n{section}")
        print(f"  {'done' if task.name in done else '    '}  {task.name:34} {task.kind:8} {task.title}")
    return 0


def _counts(options) -> tuple[int, int]:
    """Return how many exercises are done, and how many there are."""
    names = {task.name for task in _tasks(options)}
    return len(names.intersection(_read_progress().get("done", []))), len(names)


def _progress(options) -> int:
    (done, total), following = _counts(options), _next(options)
    print(f"{done} of {total} done." + (f" Next: {file_of(following)}" if following else ""))
    return 0


def _hint(options) -> int:
    task = _task(options, options.name) if options.name else _next(options)
    if task is None:
        print("Every exercise is done.")
        return 0
    hints = _read_progress().get("hints", {})
    shown = min(hints.get(task.name, 0) + 1, len(task.hints))
    _update_progress(hints=hints | {task.name: shown})
    print(f"{task.name}, hint {shown} of {len(task.hints)}: {task.hints[shown - 1]}")
    if shown == len(task.hints):
        print(f"That is the last hint. The solution: `python -m funcnn practice solution {task.name}`.")
    return 0


def _solution(options) -> int:
    task = _task(options, options.name)
    if not options.yes:
        print(f"Show the solution of {task.name}? [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            return 1
    print(task.solution)
    return 0


def _reset(options) -> int:
    task = _task(options, options.name)
    FOLDER.mkdir(exist_ok=True)
    file = file_of(task)
    kept = ""
    if file.exists() and file.read_text(encoding="utf-8", errors="replace") != file_text(task):
        file.replace(file.with_suffix(".py.before"))
        kept = f"; what it was is in {file.with_suffix('.py.before')}"
    file.write_text(file_text(task), encoding="utf-8")
    _mark(task.name, False)
    print(f"{file} is the stub again{kept}.")
    return 0


def _grade_file(options, file: Path) -> tuple[str, Grade]:
    """Return the name of a file's exercise, and its grade, which is kept in the progress."""
    try:
        task = _task(options, file.name)
    except ValueError as error:
        raise ValueError(f"grade FILE: a file is named after its exercise, such as relu_backward.py: {error}") from None
    file = file_of(task) if not file.exists() and not file.suffix else file
    if not file.is_file():
        raise FileNotFoundError(
            f"grade FILE: expected a file, found none at {file}. `python -m funcnn practice` writes the files."
        )
    result = grade_task(task, file.read_text(encoding="utf-8", errors="replace"))
    if result.ok:  # trying another way afterwards takes nothing away
        _mark(task.name, True)
    return task.name, result


def _grade(options) -> int:
    grades = dict(_grade_file(options, Path(file)) for file in options.files)
    if options.json:
        print(json.dumps({name: result._asdict() for name, result in grades.items()}, indent=2))
    else:
        for name, result in grades.items():
            _show(name, result)
        _progress(options)
    if options.junit:
        Path(options.junit).write_text(junit(grades), encoding="utf-8")
    return 0 if all(result.ok for result in grades.values()) else 1


def junit(grades: dict[str, Grade]) -> str:
    """Return grades as JUnit XML."""
    failures = sum(not result.ok for result in grades.values())
    suite = ET.Element("testsuite", name="practice", tests=str(len(grades)), failures=str(failures))
    for name, result in grades.items():
        case = ET.SubElement(suite, "testcase", classname="practice", name=name, time=f"{result.seconds:.3f}")
        if not result.ok:
            ET.SubElement(case, "failure", type=result.cause or "", message=result.message)
    return ET.tostring(suite, encoding="unicode")


def _show(name: str, result: Grade) -> None:
    if result.printed:
        print(f"Printed:\n{result.printed.rstrip()}\n")
    print(f"{name}: {result.message}" if result.ok else f"{name}: not yet ({result.cause}). {result.message}")


def _watch(options) -> int:
    """Grade each file that is saved, until interrupted."""
    _write_files(options)
    _progress(options)
    print("Save a file to have it graded here; Ctrl-C ends.")
    files = {file_of(task).resolve(): file_of(task) for task in _tasks(options)}
    for path in watching.saved(FOLDER):
        if path in files:
            name, result = _grade_file(options, files[path])
            following = _next(options)
            watching.show(name, result, *_counts(options), str(file_of(following)) if following else None)
    return 0


def _export(options) -> int:
    if options.tasks:
        raise ValueError(
            "export: expected no --tasks, for a notebook grades the chapter's exercises alone. Leave it out."
        )
    form: teaching.Form = options.form or "plain"
    folder = Path(options.to or ("notebooks" if form == "plain" else "masters"))
    if folder.is_file():
        raise ValueError(f"export --to: expected a folder, got the file {folder}. Name another folder.")
    for file in teaching.export(folder, catalogue.tasks(), form):
        print(file)
    return 0


def _report(options) -> int:
    for file in teaching.report(Path(options.folder), _tasks(options)):
        print(file)
    return 0
