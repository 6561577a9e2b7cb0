"""Two real processes on this machine, over loopback: the result of one, and what happens when one of them dies."""

import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import funcnn as fnn
from tests.distributed import worker

ENVIRONMENT = {"JAX_ENABLE_X64": "1", "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
PATIENCE = 240


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def started(folder, *command):
    """Two processes of one command, which gets its number, how many there are, and a port."""
    port = free_port()
    processes = []
    for number in range(2):
        with (folder / f"output{number}").open("w") as output:
            words = [part.format(process=number, port=port) for part in command]
            processes.append(
                subprocess.Popen(
                    [sys.executable, *words],
                    cwd=folder,
                    env=os.environ | ENVIRONMENT,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )
    return processes


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
    return {name: worker.train(None, from_memory=name == "in memory") for name in ("streamed", "in memory")}


def assert_same(folder, alone):
    for name, trained in alone.items():
        params, state = fnn.load(folder / f"{name}.safetensors", worker.MODEL)
        assert gap(params, trained.params) <= 1e-10
        # Batch normalization's statistics are those of the whole batch, not of a process's part.
        assert gap(state, trained.state) <= 1e-10


def gap(first, second):
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)


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
    assert [processes[0].wait(PATIENCE) != 0, processes[1].wait(PATIENCE)] == [True, -signal.SIGKILL]
    assert not (tmp_path / "in memory.safetensors").exists()
    finished(workers(tmp_path), tmp_path)
    assert_same(tmp_path, alone)


def test_digits_distributed(tmp_path):
    processes = started(
        tmp_path, "-m", "experiments.digits", "--distributed", "--coordinator", "127.0.0.1:{port}", "--processes", "2",
        "--process", "{process}", "--seeds", "2",
    )  # fmt: skip
    finished(processes, tmp_path)
    output = (tmp_path / "output0").read_text()
    assert "holds" in output
    assert "holds" not in (tmp_path / "output1").read_text()
    assert (tmp_path / "report" / "digits.html").is_file()
