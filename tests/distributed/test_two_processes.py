"""Two real processes on this machine, over loopback: the result of one, and what happens when one of them dies."""

import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import funcnn as fnn
from funcnn.gradcheck.precision import enable_x64
from tests.cases import largest_gap
from tests.distributed import worker

PLAIN = {"JAX_ENABLE_X64": "0", "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
PATIENCE = 240


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def started(folder, *command):
    """Two processes of one command, which gets its number, how many there are, and a port."""
    port = free_port()
    files = [(folder / f"output{number}").open("w") for number in range(2)]
    return [
        subprocess.Popen(
            [sys.executable, *(part.format(process=number, port=port) for part in command)],
            env=os.environ | PLAIN, stdout=files[number], stderr=subprocess.STDOUT,
        )
        for number in range(2)
    ]  # fmt: skip


def workers(folder):
    return started(folder, "-m", "tests.distributed.worker", "{process}", "2", "{port}", str(folder))


def words_of(folder):
    return "\n".join((folder / f"output{number}").read_text()[-3000:] for number in range(2))


def finished(processes, folder):
    try:
        codes = [process.wait(PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0], words_of(folder)


@pytest.fixture(scope="module")
def alone():
    with enable_x64(False):
        return {name: worker.train(None, from_memory=name == "in memory") for name in ("streamed", "in memory")}


def assert_same(folder, alone):
    with enable_x64(False):
        for name, trained in alone.items():
            params, state = fnn.load(folder / f"{name}.safetensors", worker.MODEL)
            assert largest_gap(params, trained.params) <= 2e-5
            # Batch normalization's statistics are those of the whole batch, not of a process's part.
            assert largest_gap(state, trained.state) <= 2e-5


def test_two_processes_give_the_result_of_one(tmp_path, alone):
    finished(workers(tmp_path), tmp_path)
    assert_same(tmp_path, alone)


def test_when_one_is_killed_the_other_stops_and_both_go_on_from_the_checkpoint(tmp_path, alone):
    processes = workers(tmp_path)
    place, until = tmp_path / "streamed", time.monotonic() + PATIENCE
    while not (place.is_dir() and any(path.name.isdecimal() for path in place.iterdir())):
        assert time.monotonic() < until, words_of(tmp_path)
        assert all(process.poll() is None for process in processes), words_of(tmp_path)
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGKILL)
    assert processes[0].wait(PATIENCE) != 0
    assert not (tmp_path / "in memory.safetensors").exists()
    finished(workers(tmp_path), tmp_path)
    assert_same(tmp_path, alone)


def test_digits_distributed(tmp_path):
    processes = started(
        tmp_path, "-m", "experiments.digits", "--distributed", "--coordinator", "127.0.0.1:{port}", "--processes", "2",
        "--process", "{process}", "--epochs", "2", "--seeds", "2", "--out", str(tmp_path / "report"),
    )  # fmt: skip
    finished(processes, tmp_path)
    told = (tmp_path / "output0").read_text()
    assert "Mean test accuracy" in told
    assert (tmp_path / "output1").read_text().strip() == "" or "Mean test" not in (tmp_path / "output1").read_text()
    assert np.all([path.stat().st_size > 0 for path in (tmp_path / "report").glob("*.png")])
