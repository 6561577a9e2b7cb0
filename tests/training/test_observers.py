"""Whoever looks on at a run: logs that go on and are repaired, and what fails without an end of training."""

import json
import re
import sys
import time

import pytest

import funcnn as fnn
from funcnn.training import observers, writers
from tests.training.runs import bits, run

STOPS = [lambda progress: None]


def test_failing_observers_are_reported_once(tmp_path, monkeypatch):
    log = tmp_path / "log.jsonl"
    settings = {"callbacks": [fnn.JSONLines(log), fnn.TensorBoard(tmp_path / "board")]}
    fails = iter([False, True, True, False, False, False])

    def write(self, progress):
        if next(fails):
            with log.open("ab") as file:  # part of a line is on disk
                file.write(b'{"epoch"')
            self._pending += json.dumps({"epoch": progress.epoch}).encode() + b"\n"
            raise OSError(28, "No space left on device")
        return whole(self, progress)

    whole = writers.JSONLinesFile.write
    monkeypatch.setattr(writers.JSONLinesFile, "write", write)
    monkeypatch.setattr(writers.EventFile, "write", lambda self, progress: 1 // 0)
    with pytest.warns(UserWarning, match="Training goes on without it") as warned:
        trained = run(**settings)
    assert len(warned) == 2
    assert bits(trained) == bits(run(callbacks=STOPS))
    assert [json.loads(line)["epoch"] for line in log.read_text().splitlines()] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("left", ['{"epoch": 3, "step": 9}\n{"epoch": 4, "st', '{"epoch": 3, "st\n', '["epoch"]\n'])
def test_logs_are_appended_and_repaired(tmp_path, left):
    log, saved = tmp_path / "log.jsonl", tmp_path / "run"
    run(epochs=2, checkpoints=saved, callbacks=[fnn.JSONLines(log)])
    before = log.read_bytes()
    with log.open("ab") as file:
        file.write(left.encode())
    node = log.stat().st_ino
    run(epochs=3, checkpoints=saved, callbacks=[fnn.JSONLines(log)])
    assert log.stat().st_ino == node
    assert log.read_bytes().startswith(before)
    assert [json.loads(line)["epoch"] for line in log.read_text().splitlines()] == [1, 2, 3]


def test_a_log_that_cannot_be_opened_is_reported(tmp_path):
    log = tmp_path / "log.jsonl"
    log.symlink_to(tmp_path / "gone" / "log.jsonl")
    with pytest.warns(UserWarning, match=r"expected JSONLines.* got FileNotFoundError.*Training goes on without it"):
        trained = run(callbacks=[fnn.JSONLines(log)])
    assert bits(trained) == bits(run(callbacks=STOPS))


@pytest.mark.parametrize(("steps", "done"), [(3, "4 of 6 steps"), (None, "4 steps")])
def test_progress_prints_lines_where_there_is_no_terminal(capsys, steps, done):
    with observers.progress_bar(2, steps, 0, 0, seconds=0.01) as observe:
        observe(observers.LoopEvent(4, 1, 0.25, None))
        line, printed = rf"^{done} after \d+ seconds: epoch 1/2  loss 0.25$", ""
        deadline = time.monotonic() + 20
        while not re.search(line, printed, re.MULTILINE) and time.monotonic() < deadline:
            time.sleep(0.01)
            printed += capsys.readouterr().out
    assert re.search(line, printed, re.MULTILINE)


def test_progress_begins_and_ends_with_its_counts(capsys):
    run(epochs=2, progress=True)
    # An older rich ends with an empty line.
    first, last = filter(None, capsys.readouterr().out.splitlines())
    assert first == "0 of 6 steps after 0 seconds: epoch 0/2"
    assert last.startswith("6 of 6 steps after ")
    assert ": epoch 2/2  loss " in last


def test_progress_begins_with_a_line_and_writes_a_loss_of_minus_zero_as_0(capsys):
    with observers.progress_bar(2, 3, 3, 1) as observe:
        assert capsys.readouterr().out == "3 of 6 steps after 0 seconds: epoch 1/2\n"
        observe(observers.LoopEvent(6, 2, -0.0, None))
    assert capsys.readouterr().out.rstrip("\n").endswith(": epoch 2/2  loss 0")


def test_a_log_has_no_lines_for_parts_of_an_epoch(tmp_path):
    log = tmp_path / "log.jsonl"
    run(epochs=2, callbacks=[fnn.JSONLines(log)], checkpoints=fnn.Checkpoints(tmp_path / "run", every=2))
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [3, 6]


@pytest.mark.parametrize(
    ("module", "settings", "asked"),
    [
        ("rich.progress", {"progress": True}, r"fit\(progress\)"),
        ("tensorboardX.event_file_writer", {"callbacks": [fnn.TensorBoard("board")]}, r"TensorBoard\(folder\)"),
    ],
)
def test_a_library_that_is_missing_ends_the_run_with_what_to_install(monkeypatch, tmp_path, module, settings, asked):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf"{asked}.*pip install 'funcnn\[training\]'"):
        run(**settings)
