"""The folder of a run has one owner: its lock, who may take it over, and what is done where there are no locks."""

import errno
import importlib.util
import json
import os
import socket
import subprocess
import sys

import pytest

import funcnn as fnn
from funcnn.training import run_folder
from funcnn.training.run_folder import LOCK, Owner
from tests.training.runs import run

fcntl = pytest.importorskip("fcntl")


def test_a_folder_has_one_owner(tmp_path):
    def inside(progress):
        with pytest.raises(fnn.CheckpointError, match=rf"process {os.getpid()} on host .* is training"):
            run(epochs=1, checkpoints=tmp_path)
        assert (tmp_path / LOCK).exists()

    (tmp_path / "mine.txt").write_text("kept")
    (tmp_path / "000000000001").mkdir()
    run(epochs=5, checkpoints=fnn.Checkpoints(tmp_path, keep=1), callbacks=[inside])
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt", "000000000001", "000000000015"}


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    code = "import sys,time; from funcnn.training.run_folder import Owner; from pathlib import Path\n"
    code += "Owner(Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline().strip() == "held"
        with pytest.raises(fnn.CheckpointError, match=f"process {process.pid} on host"):
            Owner(tmp_path).acquire()
        process.kill()
        process.wait()
    assert (tmp_path / LOCK).exists()
    owner = Owner(tmp_path)
    owner.acquire()
    owner.release()
    assert not (tmp_path / LOCK).exists()


@pytest.fixture
def lock_held(tmp_path):
    """Lock the file of the folder, with a text of who owns it, as another process does."""
    files = []

    def hold(text):
        files.append(os.open(tmp_path / LOCK, os.O_RDWR | os.O_CREAT))
        os.write(files[-1], text.encode())
        fcntl.flock(files[-1], fcntl.LOCK_EX)

    yield hold
    for file in files:
        os.close(file)


def ended_process():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_a_lock_that_a_child_of_a_killed_process_still_holds_is_replaced(tmp_path, lock_held):
    lock_held(json.dumps({"pid": ended_process(), "host": socket.gethostname()}))
    before = (tmp_path / LOCK).stat().st_ino
    owner = Owner(tmp_path)
    owner.acquire()
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert (tmp_path / LOCK).stat().st_ino != before
    with pytest.raises(fnn.CheckpointError, match=f"process {os.getpid()} on host"):
        Owner(tmp_path).acquire()
    owner.release()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (json.dumps({"pid": 2**22 + 1, "host": "elsewhere"}), f"process {2**22 + 1} on host elsewhere is training"),
        ('{"pid": 12', "process unknown on host unknown is training"),
        ("[12]", "process unknown on host unknown is training"),
    ],
    ids=["another host", "cut off", "another form"],
)
def test_a_lock_whose_owner_cannot_be_looked_up_is_respected(tmp_path, lock_held, text, named):
    """A process of another host may run, whatever runs here under its number."""
    lock_held(text)
    with pytest.raises(fnn.CheckpointError, match=named):
        Owner(tmp_path).acquire()
    assert (tmp_path / LOCK).read_text() == text


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    owner = Owner(tmp_path)
    with pytest.warns(UserWarning, match=r"has no locks .*not supported.*another run .* would not be noticed"):
        owner.acquire()
    owner.release()
    assert not (tmp_path / LOCK).exists()


def test_a_system_without_locks_does_without(tmp_path, monkeypatch):
    """Windows has no ``fcntl``."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    spec = importlib.util.spec_from_file_location("run_folder_without_locks", run_folder.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    owner = module.Owner(tmp_path)
    owner.acquire()
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    owner.release()
    assert not (tmp_path / LOCK).exists()


def test_what_a_killed_process_left_of_a_checkpoint_is_removed(tmp_path):
    """Orbax writes into a folder of another name until a checkpoint is complete."""
    unfinished = tmp_path / "000000000003.orbax-checkpoint-tmp"
    (unfinished / "arrays").mkdir(parents=True)
    (tmp_path / "000000000003.orbax-checkpoint-notes").mkdir()
    run(epochs=1, checkpoints=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"000000000003.orbax-checkpoint-notes", "000000000003"}
