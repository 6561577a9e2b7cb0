"""The command line of the exercises: hints, solutions, wrong calls, saved files, and what teachers use."""

import io
import json
import sys
import types
from pathlib import Path

import pytest

from funcnn import practice
from funcnn.practice import command, watching

RIGHT = "def backward(z, da):\n    print('computing')\n    return da * (z > 0)\n"
NAMES = [task.name for task in practice.tasks()]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder as the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def all_done():
    command._update_progress(done=NAMES)


def test_when_every_exercise_is_done_there_is_no_next_one(here, capsys):
    all_done()
    assert command.main([]) == command.main(["hint"]) == 0
    shown = capsys.readouterr().out
    assert f"{len(NAMES)} of {len(NAMES)} done.\nEvery exercise is done.\n" in shown
    assert "Next" not in shown


def test_a_hint_without_a_name_is_that_of_the_next_exercise(here, capsys):
    command._update_progress(done=NAMES[:3])
    assert command.main(["hint"]) == 0
    assert capsys.readouterr().out.startswith(f"{NAMES[3]}, hint 1 of ")


@pytest.mark.parametrize(("reply", "status"), [("y\n", 0), ("Yes\n", 0), ("\n", 1), ("n\n", 1), ("", 1)])
def test_a_solution_is_shown_after_a_yes(reply, status, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(reply))
    assert command.main(["solution", "relu-backward"]) == status
    shown = capsys.readouterr().out
    assert shown.startswith("Show the solution of relu-backward? [y/N] ")
    assert ("def backward" in shown) is (status == 0)


def test_what_an_answer_prints_is_shown_before_its_grade(here, capsys):
    Path("relu_backward.py").write_text(RIGHT)
    assert command.main(["grade", "relu_backward.py"]) == 0
    assert capsys.readouterr().out.startswith("Printed:\ncomputing\n")


def test_a_file_that_is_absent_is_2_with_a_sentence(here, capsys):
    for file in ("relu-backward", "elsewhere/relu_backward.py"):
        assert command.main(["grade", file]) == 2
        error_text = capsys.readouterr().err
        assert "grade FILE: expected a file, found none at" in error_text
        assert "`python -m funcnn practice` writes the files" in error_text


def test_a_folder_without_exercises_is_2_with_a_sentence(here, capsys):
    Path("own").mkdir()
    assert command.main(["--tasks", "own", "list"]) == 2
    assert "expected Python files with a tuple TASKS in own, found none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\ndef (\n", "got SyntaxError in own/mine.py, line 2: "),
        (
            "x = 1\n\nimport absent_here\n",
            "got ModuleNotFoundError in own/mine.py, line 3: No module named 'absent_here'",
        ),
        ("def f():\n    raise OSError('full')\n\nf()\n", "got OSError in own/mine.py, line 2: full. Repair it"),
    ],
    ids=["syntax", "import", "raised inside"],
)
def test_a_file_of_exercises_that_python_cannot_import_is_2_with_its_line(here, text, expected, capsys):
    Path("own").mkdir()
    Path("own", "mine.py").write_text(text)
    assert command.main(["--tasks", "own", "list"]) == 2
    assert expected in capsys.readouterr().err


def stand_in(monkeypatch, *groups):
    """Put a stand-in in the place of watchfiles, which yields these sets of changes and ends."""
    change = types.SimpleNamespace(added=1, deleted=3)
    module = types.SimpleNamespace(Change=change, watch=lambda folder, raise_interrupt: iter(groups))
    monkeypatch.setitem(sys.modules, "watchfiles", module)


def test_saved_files_are_graded_until_ctrl_c(here, monkeypatch, capsys):
    pytest.importorskip("rich")
    answer = command.FOLDER / "relu_backward.py"
    stand_in(monkeypatch, {(1, str(answer)), (1, str(command.FOLDER / command.PROGRESS))}, {(3, str(answer))})
    command.FOLDER.mkdir()
    answer.write_text(RIGHT)
    assert command.main(["watch"]) == 0
    shown = capsys.readouterr().out
    assert "Ctrl-C ends" in shown
    assert shown.count("relu-backward: right") == 1
    assert f"1 of {len(NAMES)} done, graded in" in shown
    assert f"Next: {command.file_of(practice.tasks()[0])}" in shown
    assert json.loads((command.FOLDER / command.PROGRESS).read_text())["done"] == ["relu-backward"]


def test_the_last_saved_exercise_has_none_after_it(here, monkeypatch, capsys):
    pytest.importorskip("rich")
    all_done()
    answer = command.FOLDER / "relu_backward.py"
    answer.write_text(RIGHT.replace("    print('computing')\n", ""))
    stand_in(monkeypatch, {(1, str(answer))})
    assert command.main(["watch"]) == 0
    shown = capsys.readouterr().out
    assert "Every exercise is done." in shown
    assert "printed" not in shown


def test_without_watchfiles_it_says_what_to_install(here, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    assert command.main(["watch"]) == 2
    assert "watch: expected watchfiles, which isn't installed. Install it: pip install 'funcnn[practice]'." in (
        capsys.readouterr().err
    )
    with pytest.raises(ModuleNotFoundError):
        watching.saved(command.FOLDER)


def test_notebooks_are_written_into_the_folder_that_is_named(here, capsys):
    assert command.main(["export", "--to", "made"]) == 0
    made = sorted(str(path) for path in Path("made").glob("*.ipynb"))
    assert sorted(capsys.readouterr().out.splitlines()) == made
    assert len(made) == 7
    assert "SOLUTION" not in Path(made[0]).read_text()
    assert command.main(["export", "--to", "made"]) == 0
    capsys.readouterr()
    assert command.main(["export", "--otter", "--to", "made"]) == 2
    assert "Name another folder with --to, or remove it" in capsys.readouterr().err
    assert "SOLUTION" not in Path(made[0]).read_text()
    assert command.main(["export", "--otter"]) == 0
    assert "BEGIN SOLUTION" in Path("masters", Path(made[0]).name).read_text()


def test_exercises_of_ones_own_are_not_exported(here, capsys):
    assert command.main(["--tasks", "own", "export"]) == 2
    assert "export: expected no --tasks" in capsys.readouterr().err
    assert not Path("notebooks").exists()


def test_a_report_has_a_row_for_each_student_and_absent_where_a_file_is(here, capsys):
    for student, files in {"=ada": {"relu_backward": RIGHT}, "bob": {"sgd_step": "def step(:\n"}}.items():
        (here / "class" / student).mkdir(parents=True)
        for name, text in files.items():
            (here / "class" / student / f"{name}.py").write_text(text)
    assert command.main(["report", "class"]) == 0
    assert capsys.readouterr().out.splitlines() == ["class/grades.csv", "class/grades.html"]
    rows = Path("class/grades.csv").read_text().splitlines()
    assert sorted(rows[0].split(",")) == ["relu-backward", "sgd-step", "student"]
    relu = rows[0].split(",").index("relu-backward")
    ada, bob = (row.split(",") for row in rows[1:])
    assert (ada[0], ada[relu], ada[3 - relu]) == ("'=ada", "right", "absent")
    assert (bob[0], bob[relu], bob[3 - relu]) == ("bob", "absent", "syntax")
    assert "<td class=right>right</td>" in Path("class/grades.html").read_text()


def test_a_report_says_that_a_stub_is_not_started(here, capsys):
    """Of a repair too, whose stub runs; and it is begun where a line of code is another one."""
    tasks = {task.name: task for task in practice.tasks()}
    repair = next(task for task in tasks.values() if task.kind == "repair")
    files = {name: command.file_text(tasks[name]) for name in ("relu-backward", repair.name)}
    begun = files["relu-backward"].replace("    raise", "    unused = z\n    raise")
    for student, relu in {"ada": files["relu-backward"], "bob": begun, "eve": begun + "("}.items():
        folder = here / "class" / student
        folder.mkdir(parents=True)
        for name, text in (files | {"relu-backward": relu}).items():
            (folder / f"{name.replace('-', '_')}.py").write_text(text)
    assert command.main(["report", "class"]) == 0
    header, *rows = (row.split(",") for row in Path("class/grades.csv").read_text().splitlines())
    relu, other = header.index("relu-backward"), header.index(repair.name)
    assert [row[relu] for row in rows] == ["not started", "unfinished", "syntax"]
    assert [row[other] for row in rows] == ["not started"] * 3
    assert "<td>not started</td>" in Path("class/grades.html").read_text()


def test_a_class_without_students_is_2_with_a_sentence(here, capsys):
    Path("class").mkdir()
    assert command.main(["report", "class"]) == 2
    assert "expected a folder for each student in class, found none" in capsys.readouterr().err
