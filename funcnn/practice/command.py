"""``python -m funcnn practice``: exercises as files, graded from the command line."""

import argparse
import json
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

from funcnn.practice import teaching
from funcnn.practice.catalogue import find_task, tasks
from funcnn.practice.grading import Grade, grade
from funcnn.practice.task import Task

FOLDER = Path("practice")
PROGRESS = ".progress.json"


def main(arguments: list[str]) -> int:
    """Run a command; return 0 where what was graded is right, 1 where it isn't, 2 for a wrong call."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"python -m funcnn practice: {error}\n")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m funcnn practice", description=__doc__)
    parser.set_defaults(run=_write)
    commands = parser.add_subparsers()

    def add(name, run, text, *positional):
        command = commands.add_parser(name, help=text)
        command.set_defaults(run=run)
        for argument in positional:
            command.add_argument(argument)
        return command

    add("write", _write, "write one file for each exercise; those that are there stay")
    add("list", _list, "list the exercises, and which are done")
    add("progress", _progress, "show how many are done")
    add("hint", _hint, "show the next hint", "name")
    add("solution", _solution, "show the solution, after a question", "name").add_argument("--yes", action="store_true")
    add("reset", _reset, "write the stub of an exercise anew", "name")
    add("watch", _watch, "grade a file whenever it is saved")
    graded = add("grade", _grade, "grade files")
    graded.add_argument("files", nargs="+")
    graded.add_argument("--json", action="store_true", help="print the grades as JSON")
    graded.add_argument("--junit", metavar="FILE", help="write the grades as JUnit XML")
    exported = add("export", _export, "write notebooks, one for each section")
    exported.add_argument("--notebook", action="store_true", help="cells with the graded tests (the default)")
    exported.add_argument(
        "--nbgrader", action="store_true", help="cells marked for nbgrader, solutions between its marks"
    )
    exported.add_argument("--to", default="notebooks", metavar="FOLDER")
    add("report", _report, "grade a folder of students' folders, as CSV and HTML", "folder")
    return parser


def file_of(task: Task) -> Path:
    """Return the file of an exercise."""
    return FOLDER / f"{task.name.replace('-', '_')}.py"


def name_of(file: Path) -> str:
    """Return the name of the exercise of a file."""
    return file.stem.replace("_", "-")


def file_text(task: Task) -> str:
    """Return the file of an exercise: the statement as a docstring, the stub below."""
    return f'"""{task.title} ({task.section}, {task.kind})\n\n{task.statement}\n"""\n\n{task.stub}'


def _write(options) -> int:
    FOLDER.mkdir(exist_ok=True)
    new = [task for task in tasks() if not file_of(task).exists()]
    for task in new:
        file_of(task).write_text(file_text(task), encoding="utf-8")
    print(f"{len(new)} new exercises in {FOLDER}/, {len(tasks())} in all.")
    following = _next()
    if following is not None:
        print(f"Next: open {file_of(following)}, and run `python -m funcnn practice watch` beside it.")
    return 0


def _next() -> Task | None:
    done = _read_progress().get("done", [])
    return next((task for task in tasks() if task.name not in done), None)


def _read_progress() -> dict:
    try:
        return json.loads((FOLDER / PROGRESS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def _update_progress(**changes) -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / PROGRESS).write_text(json.dumps(_read_progress() | changes), encoding="utf-8")


def _mark(name: str, ok: bool) -> None:
    done = [other for other in _read_progress().get("done", []) if other != name]
    _update_progress(done=[*done, name] if ok else done)


def _list(options) -> int:
    done, section = _read_progress().get("done", []), ""
    for task in tasks():
        if task.section != section:
            section = task.section
            print(f"\n{section}")
        print(f"  {'done' if task.name in done else '    '}  {task.name:34} {task.kind:8} {task.title}")
    return 0


def _progress(options) -> int:
    done, following = set(_read_progress().get("done", [])), _next()
    print(f"{len(done)} of {len(tasks())} done." + (f" Next: {file_of(following)}" if following else ""))
    return 0


def _hint(options) -> int:
    task = find_task(name_of(Path(options.name)))
    hints = _read_progress().get("hints", {})
    shown = min(hints.get(task.name, 0) + 1, len(task.hints))
    _update_progress(hints=hints | {task.name: shown})
    print(f"Hint {shown} of {len(task.hints)}: {task.hints[shown - 1]}")
    return 0


def _solution(options) -> int:
    task = find_task(name_of(Path(options.name)))
    if not options.yes and input(f"Show the solution of {task.name}? [y/N] ").strip().lower() not in ("y", "yes"):
        return 1
    print(task.solution)
    return 0


def _reset(options) -> int:
    task = find_task(name_of(Path(options.name)))
    FOLDER.mkdir(exist_ok=True)
    file = file_of(task)
    if file.exists():
        file.replace(file.with_suffix(".py.before"))
    file.write_text(file_text(task), encoding="utf-8")
    _mark(task.name, False)
    print(f"{file} is the stub again; what it was is in {file.with_suffix('.py.before')}.")
    return 0


def _grade_file(file: Path) -> Grade:
    if not file.exists():
        raise FileNotFoundError(
            f"grade(FILE): expected a file, found none at {file}. `write` makes the exercises' files."
        )
    name = name_of(file)
    result = grade(name, file.read_text(encoding="utf-8"))
    _mark(name, result.ok)
    return result


def _grade(options) -> int:
    grades = {name_of(Path(file)): _grade_file(Path(file)) for file in options.files}
    if options.json:
        print(json.dumps({name: result._asdict() for name, result in grades.items()}, indent=2))
    else:
        for name, result in grades.items():
            _show(name, result)
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
    """Grade each file that was saved since the last look, until interrupted."""
    _write(options)
    seen = {file: file.stat().st_mtime_ns for file in FOLDER.glob("*.py")}
    try:
        while True:
            for task in tasks():
                file = file_of(task)
                if file.exists() and (saved := file.stat().st_mtime_ns) != seen.get(file):
                    seen[file] = saved
                    print("\033[2J\033[H", end="")
                    _show(task.name, _grade_file(file))
                    _progress(options)
            time.sleep(0.2)
    except KeyboardInterrupt:
        return 0


def _export(options) -> int:
    for file in teaching.export(Path(options.to), nbgrader=options.nbgrader):
        print(file)
    return 0


def _report(options) -> int:
    for file in teaching.report(Path(options.folder)):
        print(file)
    return 0
