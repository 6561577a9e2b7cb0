"""The processes of answers, as the grader sees them: their ends, replies that aren't replies, functions as data."""

import functools
import json
import os
import signal
import threading

import numpy as np
import pytest

from funcnn import practice
from funcnn.practice import process

RIGHT = "def backward(z, da):\n    return da * (z > 0)"


def kill_soon(server):
    """End a server in the middle of an exchange."""
    server.process.send_signal(signal.SIGSTOP)
    threading.Timer(0.3, server.process.kill).start()


def take_descriptors(server):
    """Make a server fail: it can't receive the request."""
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("limits of other processes are Linux's")
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (3, 3))


@pytest.mark.parametrize("end", [kill_soon, take_descriptors])
def test_where_the_server_ends_the_answer_gets_exit_and_the_next_one_a_new_server(end):
    old = process.server(False)
    end(old)
    result = practice.grade("relu-backward", RIGHT)
    assert (result.ok, result.cause) == (False, "exit")
    assert old.process.poll() is not None
    assert practice.grade("relu-backward", RIGHT).ok
    assert process.server(False) is not old


def test_ctrl_c_ends_the_answer_and_the_next_one_is_graded():
    old = process.server(False)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))

    def grade_until_ctrl_c():
        timer.start()
        practice.grade("relu-backward", "def backward(z, da):\n    while True: pass")

    with pytest.raises(KeyboardInterrupt):
        grade_until_ctrl_c()
    timer.join()
    assert old.process.poll() is not None
    assert practice.grade("relu-backward", RIGHT).ok


def test_a_process_that_ends_without_a_reply_is_told_from_one_that_runs_out_of_time():
    assert practice.grade("relu-backward", "import os\nos._exit(0)").cause == "exit"
    reply = process.run_answer("def f():\n    while True: pass", "f", [()], by_hand=True, seconds=0)
    assert reply == process.Reply(error="time")


@pytest.mark.parametrize(
    "data",
    [
        b"no json",
        b"3",
        b"{}",
        b'{"outputs": 3}',
        b'{"outputs": [{"kind": "array", "hex": "00", "shape": [1], "dtype": "float64"}]}',
        b'{"outputs": [{"kind": "array", "hex": "zz", "shape": [0], "dtype": "float64"}]}',
        b'{"outputs": [{"kind": "other"}]}',
        b'{"outputs": [{"kind": "plain", "value": 3}]}',
        b'{"outputs": [{"kind": "plain", "value": {"a": []}}]}',
        b'{"error": "raised", "line": "one"}',
        b'{"error": "raised"}',
        b'{"outputs": ' + b"[" * 100_000,
    ],
)
def test_what_is_no_reply_is_forged(data):
    assert process._checked(data) == process.Reply(error="forged")


def test_a_reply_has_no_commands_of_a_terminal_and_no_position_that_is_none():
    raised = {"error": "raised", "type": "E\x1b[2J", "text": "a\x07b", "line": 2, "printed": "\x1b]0;owned\n"}
    for number, expected in ((3, 3), (-1, None), (True, None), ("0", None)):
        reply = process._checked(json.dumps(raised | {"input": number}).encode())
        assert reply == process.Reply((), "raised", "E[2J in line 2: ab", "]0;owned\n", expected)


def graded(answer):
    return practice.grade("relu-backward", answer)


def test_a_function_is_graded_with_the_functions_it_calls():
    def positive(z, depth=2):
        return positive(z, depth - 1) if depth else z > 0

    def right(z, da):
        return da * positive(z)

    @functools.wraps(right)
    def wrapped(z, da):
        return right(z, da)

    assert graded(right).ok
    assert graded(wrapped).ok
    assert not graded(lambda z, da: da * ~positive(z)).ok
    for other in (np.maximum, functools.partial(right), 3):
        with pytest.raises(TypeError, match="expected source text or a Python function, got"):
            graded(other)
    with pytest.raises(TypeError, match="expected source text or a Python function, got builtin_function_or_method"):
        process.pack_function(len, {})
