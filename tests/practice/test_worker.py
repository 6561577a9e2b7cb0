"""The program of the processes that run answers, called here: what it admits, rebuilds, runs and encodes."""

import os
import pickle
import socket
import subprocess
import sys
import sysconfig
import threading
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnn.practice import process, worker
from funcnn.practice.process import Array, Unreadable

LIBRARIES = tuple(os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "purelib"))
HIDDEN = os.path.realpath(Path(worker.__file__).parents[1])


@pytest.fixture
def guard(tmp_path):
    """The guard of an answer whose folder is ``tmp_path``, not installed; its library has a hidden folder."""
    library, folder = tmp_path / "library", tmp_path / "folder"
    (library / "hidden").mkdir(parents=True)
    folder.mkdir()
    (folder / "outside").symlink_to("/etc/passwd")
    hook = worker.guard(str(folder), str(library / "hidden"), (str(library),), frozenset({"json", "numpy"}))
    return lambda event, *arguments: hook(event, [str(part).format(tmp_path) if isinstance(part, str) else part
                                                  for part in arguments])  # fmt: skip


@pytest.mark.parametrize(
    "event",
    [
        ("import", "json.decoder"),
        ("open", "{}/folder/mine", "w", os.O_WRONLY | os.O_CREAT),
        ("open", b"/dev/null", "r", os.O_RDONLY),
        ("open", "{}/library/module.py", "rb", os.O_RDONLY),
        ("open", "{}/library/module.so", None, os.O_RDONLY),
        ("os.listdir", "{}/library"),
        ("compile", "x", "answer"),
    ],
)
def test_the_guard_admits_what_an_answer_computes_with(event, guard):
    assert guard(*event) is None


@pytest.mark.parametrize(
    "event",
    [
        ("open", "{}/library/module.py", "w", os.O_WRONLY),
        ("open", "{}/library/module.py", None, os.O_RDWR),
        ("open", "{}/library/hidden/solutions.bin", "rb", os.O_RDONLY),
        ("open", "{}/folder/outside", "r", os.O_RDONLY),
        ("open", "{}/folder/../other", "r", os.O_RDONLY),
        ("open", 3, "w", os.O_WRONLY),
        ("os.listdir", "/"),
        ("os.system", "true"),
        ("socket.connect", None),
    ],
)
def test_the_guard_refuses_every_other_file_and_event(event, guard):
    with pytest.raises(PermissionError, match="an answer o"):
        guard(*event)


def test_the_guard_refuses_other_modules(guard):
    with pytest.raises(ModuleNotFoundError, match=r"NumPy, SciPy and JAX, and not funcnn\.losses"):
        guard("import", "funcnn.losses")


def test_the_first_characters_of_what_is_printed_are_kept():
    printed = worker.Printed()
    print("x" * 3000, file=printed)
    assert printed.write("y" * 3000) == 3000
    assert printed.write("z") == 1
    assert printed.getvalue() == "x" * 3000 + "\n" + "y" * 999


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        ("word", "word"),
        ("x" * 2000, "x" * 1000),
        (2, ("int64", 2.0)),
        (1.5, ("float64", 1.5)),
        (np.float32(0.5), ("float32", 0.5)),
        (np.array([[True, False]]), ("bool", [[1.0, 0.0]])),
        (np.array([1 + 2j]), ("complex128", [1.0])),
        (jnp.array([0.5, 2.0], jnp.bfloat16), ("bfloat16", [0.5, 2.0])),
        ([[1, 2], [3, 4]], ("float64", [[1.0, 2.0], [3.0, 4.0]])),
        (np.array("word"), Unreadable("ndarray")),
        (len, Unreadable("builtin_function_or_method")),
        (np.zeros((400, 300)), Unreadable("an array of shape (400, 300)")),
    ],
)
def test_a_value_arrives_as_the_answer_returned_it(value, expected):
    arrived = process._decode(worker.encode(value))
    if isinstance(expected, tuple) and not isinstance(expected, Unreadable):
        assert isinstance(arrived, Array)
        assert (arrived.dtype, arrived.values.tolist()) == expected
    else:
        assert arrived == expected


def test_tuples_ragged_lists_and_dictionaries_arrive_entry_by_entry():
    ragged = process._decode(worker.encode([[1, 2], [3]]))
    assert [entry.values.tolist() for entry in ragged] == [[1.0, 2.0], [3.0]]
    arrived = process._decode(worker.encode({"loss": 0.5, 1: ("sum", ())}))
    assert arrived["loss"].values == 0.5
    assert arrived["1"] == ("sum", ())


def offset(x):
    return x + SHIFT


SHIFT = 10


def test_a_function_is_rebuilt_with_what_it_refers_to():
    factor = 3

    def power(x, n=2, *, by=1):
        return 1 if n == 0 else x * power(x, n - 1) * by

    def whole(x):
        return offset(np.square(x)) * factor + power(x, by=2)

    again = worker.rebuilt(pickle.loads(pickle.dumps(process.pack_function(whole, {}))), {})
    assert again is not whole
    assert again(2) == whole(2) == 50
    assert again.__globals__["offset"] is not offset


def test_a_function_that_uses_funcnn_is_not_rebuilt(monkeypatch):
    monkeypatch.setitem(globals(), "library", types.ModuleType("funcnn.losses"))
    packed = process.pack_function(lambda x: library.mean(x), {})  # noqa: F821
    with pytest.raises(ImportError, match="funcnn can't be used"):
        worker.rebuilt(packed, {})


def test_disabled_functions_raise_under_every_name(monkeypatch):
    module = types.ModuleType("disabled")
    module.grad, module.sum = lambda x: x, sum
    monkeypatch.setitem(sys.modules, "disabled", module)
    worker.disable(("disabled", "never_imported"), ("grad", "vjp"), "this exercise is by hand")
    with pytest.raises(PermissionError, match="this exercise is by hand"):
        module.grad(1.0)
    assert module.sum is sum
    assert not hasattr(module, "vjp")


def run(source, *inputs, jax=None, prints=False):
    """Return what the program replies for a source text, run here."""
    request = {"source": source, "entry": "f", "inputs": inputs, "prints": prints}
    return worker.run(request, None, np, jax)


def outputs(reply):
    return [process._decode(entry).values.tolist() for entry in reply["outputs"]]


def test_an_answer_runs_on_every_input():
    assert outputs(run("def f(x, y):\n    return x + y", (1.0, 2.0), (np.ones(2), np.ones(2)))) == [3.0, [2.0, 2.0]]
    function = worker.run({"source": None, "inputs": [(np.arange(3.0),)]}, np.cumsum, np, None)
    assert outputs(function) == [[0.0, 1.0, 3.0]]
    assert run("f = 3", (1.0,)) == run("g = abs", (1.0,)) == {"error": "missing"}


def test_an_error_of_an_answer_has_its_line_and_its_input():
    reply = run("def f(x):\n    if x > 1:\n        raise ValueError('too large')\n    return x", (1.0,), (2.0,))
    assert reply == {"error": "raised", "type": "ValueError", "text": "too large", "line": 3, "input": 1}
    assert run("import sys\nsys.exit(0)")["type"] == "SystemExit"
    reply = run("def f(x):\n    return x", (1.0, 2.0))
    assert (reply["type"], reply["line"], reply["input"]) == ("TypeError", None, None)


def test_an_answer_can_not_change_its_arguments():
    x = np.arange(3.0)
    for change in ("x[0] = 1", "x.flags.writeable = True"):
        reply = run(f"def f(x, pair):\n    {change}", (x, (x, 2.0)))
        assert (reply["type"], reply["line"]) == ("ValueError", 2)
    assert outputs(run("def f(x, pair):\n    return pair[0] * pair[1] + x.sum()", (x, (x, 2.0)))) == [[3.0, 5.0, 7.0]]
    assert x.tolist() == [0.0, 1.0, 2.0]
    assert outputs(run("def f(x):\n    return x", (np.ones((0, 2)),))) == [[]]


@pytest.mark.usefixtures("promotion_as_for_users")
@pytest.mark.parametrize(
    ("body", "prints"),
    [
        ("jnp.where(x > 1, x, 0)", False),  # by jit
        ("x.at[x < 2].set(0)", False),  # by jit with the arguments as constants
        ("x * (x > 1) if float(x[0]) < 1 else 1 / 0", False),
        ("np.where(x > 1, x, 0) + jnp.zeros(3)", False),
        ("print(x) or jnp.where(x > 1, x, 0)", True),
        ("np.maximum(np.frombuffer(x.data), 2) * (x > 1)", False),  # which takes NumPy's arrays alone
    ],
)
def test_an_answer_in_jax_runs_in_the_first_way_that_takes_it(body, prints):
    source = f"import jax.numpy as jnp\nimport numpy as np\ndef f(x):\n    return {body}"
    assert outputs(run(source, (np.arange(3.0),), jax=jax, prints=prints)) == [[0.0, 0.0, 2.0]]


@pytest.mark.usefixtures("promotion_as_for_users")
def test_an_error_in_jax_is_that_of_the_last_way():
    reply = run("def f(x):\n    return x.absent", (np.ones(2),), jax=jax)
    assert (reply["type"], reply["line"]) == ("AttributeError", 2)
    assert "numpy.ndarray" in reply["text"]


def test_the_kernel_refuses_files_outside_of_the_folder(tmp_path):
    """A thread of its own is confined, and ends. In one, the call that leaves the network has no effect."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").write_text("whole")
    found = []

    def confined():
        found.append(worker.confine(str(tmp_path / "folder"), (*LIBRARIES, str(tmp_path / "absent"))))
        (tmp_path / "folder" / "own").write_text("x")
        for path in (tmp_path / "other", Path("/etc/passwd")):
            try:
                found.append(path.read_text())
            except PermissionError:
                found.append("refused")
        try:
            (tmp_path / "other").write_text("broken")
        except PermissionError:
            found.append("refused")

    thread = threading.Thread(target=confined)
    thread.start()
    thread.join()
    if found[0] is False:
        pytest.skip("the kernel has no Landlock")
    assert found == [True, "refused", "refused", "refused"]
    assert (tmp_path / "other").read_text() == "whole"


def test_it_is_known_where_the_system_confines_nothing(monkeypatch, tmp_path):
    without_landlock = types.SimpleNamespace(unshare=lambda flags: -1, syscall=lambda *_: -1)
    monkeypatch.setattr("ctypes.CDLL", lambda name: without_landlock)
    assert worker.confine(str(tmp_path), ()) is False
    monkeypatch.setattr(sys, "platform", "darwin")
    assert worker.confine(str(tmp_path), ()) is False


LIMITED = """
import os, resource, runpy, sys
runpy.run_path(sys.argv[1])["limit"](5, sys.argv[2] == "1")
limits = [resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1] for name in ("AS", "FSIZE", "CPU", "CORE")]
print(limits)
try:
    sys.argv[2] == "0" and bytearray(3 * 2**30)
except MemoryError:
    print("no memory")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limits of Linux")
@pytest.mark.parametrize("with_jax", [False, True])
def test_memory_files_and_time_are_limited(with_jax):
    command = [sys.executable, "-c", LIMITED, worker.__file__, str(int(with_jax))]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert shown[0] == str([(16 if with_jax else 2) * 2**30, 10_000_000, 7, 0])
    assert with_jax or shown[1] == "no memory"


class Ended(BaseException):
    """The end of the process of an answer."""


@pytest.fixture
def answer(monkeypatch, tmp_path):
    """Run ``worker.answer`` here; return the reply and, as names, the steps that can't be taken back."""
    steps = []

    def end(code):
        steps.append(("end", code))
        raise Ended

    def note(*names):
        steps.append(names)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(os, "setpgid", lambda *_: None)
    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(sys, "addaudithook", lambda hook: note("guard"))
    monkeypatch.setattr(worker, "confine", lambda folder, libraries: note("confine", folder))
    monkeypatch.setattr(worker, "limit", lambda seconds, with_jax: note("limit", seconds, with_jax))
    monkeypatch.setattr(worker, "disable", lambda modules, names, sentence: note("disable", *modules, *names))

    def run_here(source, *, with_jax=False, by_hand=True, function=b""):
        request = {
            "source": source, "function": function, "entry": "f", "inputs": [(1.0,)], "by_hand": by_hand,
            "imports": ["json.decoder", "scipy.special", "jax.numpy", "absent"], "seconds": 5, "prints": False,
            "folder": str(tmp_path),
        }  # fmt: skip
        (request_from, request_to), (reply_from, reply_to) = os.pipe(), os.pipe()
        with os.fdopen(request_to, "wb") as stream:
            stream.write(pickle.dumps(request))
        monkeypatch.setitem(globals(), "STEPS", steps)
        with np.errstate(), pytest.raises(Ended):
            worker.answer(request_from, reply_to, HIDDEN, LIBRARIES, np, jax if with_jax else None)
        os.close(reply_to)
        with os.fdopen(reply_from, "rb") as stream:
            return steps, process._checked(stream.read())

    return run_here


NOTING = "from tests.practice import test_worker\ndef f(x):\n    print('ran')\n    test_worker.STEPS.append(('ran',))\n"


def test_an_answer_runs_when_files_processes_limits_and_the_guard_are_set(answer, tmp_path):
    steps, reply = answer(f"{NOTING}    return 2 * x")
    assert (reply.error, reply.outputs[0].values, reply.printed) == ("", 2.0, "ran\n")
    assert [step[0] for step in steps] == ["confine", "disable", "limit", "guard", "ran", "end"]
    assert steps[0] == ("confine", str(tmp_path))
    assert "fork_exec" in steps[1]
    assert steps[2] == ("limit", 5, False)
    assert steps[-1] == ("end", 0)


@pytest.mark.parametrize("by_hand", [True, False])
def test_an_answer_in_jax_runs_without_autodiff_where_the_exercise_is_by_hand(by_hand, answer):
    steps, reply = answer(f"{NOTING}    return 2 * x", with_jax=True, by_hand=by_hand)
    assert reply.outputs[0].values == 2.0
    before = {name for step in steps[: steps.index(("ran",))] for name in step if step[0] == "disable"}
    assert {"jax.profiler", "start_server", "fork_exec"} <= before
    assert ({"jax", "grad", "vjp", "jax.interpreters.ad"} <= before) is by_hand
    assert not by_hand or before >= set(worker.AUTODIFF) | set(worker.ROOTS)


def test_a_function_is_built_before_the_guard_and_what_it_raises_is_the_reply(answer):
    packed = pickle.dumps(process.pack_function(lambda x: x - 3, {}))
    assert answer(None, function=packed)[1].outputs[0].values == -2.0
    for spoiled in (packed[:-9], b""):
        assert answer(None, function=spoiled)[1].error == "raised"


@pytest.fixture(params=[False, True], ids=["numpy", "jax"])
def server(monkeypatch, request):
    """A server of answers whose environment has that of the tests in it."""
    start = subprocess.Popen
    with monkeypatch.context() as patched:
        patched.setattr(
            subprocess, "Popen", lambda *args, env, **options: start(*args, env=os.environ | env, **options)
        )
        started = process.Server(with_jax=request.param)
    yield started
    started.stop()


def request_of(source, tmp_path):
    return pickle.dumps({
        "source": source, "function": b"", "entry": "f", "inputs": [(1.0,)], "by_hand": True, "imports": [],
        "seconds": 5, "prints": False, "folder": str(tmp_path),
    })  # fmt: skip


def test_a_server_answers_until_its_parent_closes_the_socket(server, tmp_path):
    data, code = server.exchange(request_of("def f(x):\n    return 2 * x", tmp_path), 60)
    assert (code, process._checked(data).outputs[0].values) == (0, 2.0)
    assert server.exchange(b"no pickle", 60) == (b"", 3)
    data, code = server.exchange(request_of("import funcnn", tmp_path), 60)
    assert process._checked(data).detail.startswith("ModuleNotFoundError")
    server.control.shutdown(socket.SHUT_RDWR)
    assert server.process.wait(60) == 0


@pytest.mark.parametrize("server", [False], indirect=True)
def test_a_server_whose_parent_is_gone_stops_the_answer_that_runs(server):
    (request_from, request_to), (reply_from, reply_to) = os.pipe(), os.pipe()
    socket.send_fds(server.control, [b"r"], [request_from, reply_to])
    for descriptor in (request_from, reply_to):
        os.close(descriptor)
    server._received(8)
    server.control.close()
    assert server.process.wait(60) == 0
    with os.fdopen(reply_from, "rb") as stream, os.fdopen(request_to, "wb"):
        assert stream.read() == b""
