"""Answers that try to be graded right without being right, or to do harm: none passes, and none harms.

Each attack returns the right values behind it, so that only what the grader does about it keeps it from being right.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from funcnn import practice
from funcnn.practice import process, worker

RIGHT = "return da * (z > 0)"
VICTIM = str(Path(tempfile.gettempdir()) / f"practice-attack-{os.getpid()}")
REFUSED = {
    "exit": ("raised", "import sys; sys.exit(0)"),
    "hard exit": ("exit", "import os; os._exit(0)"),
    "endless recursion": ("raised", "return backward(z, da)"),
    "memory": ("raised", "import numpy as np; np.ones((10**10,))"),
    "fork": ("forbidden", "import os; os.fork()"),
    "subprocess": ("forbidden", "import subprocess; subprocess.run(['true'])"),
    "bare subprocess": ("forbidden", "import _posixsubprocess"),
    "loaded subprocess": ("forbidden", "import subprocess; subprocess._fork_exec(*range(23))"),
    "shell": ("forbidden", "import os; os.system('true')"),
    "exec": ("forbidden", "import os; os.execv('/bin/true', ['true'])"),
    "socket": ("forbidden", "import socket; socket.create_connection(('127.0.0.1', 9), 1)"),
    "write a file": ("forbidden", f"open({VICTIM!r}, 'w')"),
    "remove a file": ("forbidden", f"import os; os.remove({VICTIM!r})"),
    "read a secret": ("forbidden", "open('/etc/passwd')"),
    "list a folder": ("forbidden", "import os; os.listdir('/')"),
    "import the solution": ("forbidden", "import funcnn.practice"),
    "read the solution": ("forbidden", f"open({str(Path(practice.__file__).with_name('solutions.bin'))!r}, 'rb')"),
    "native code": ("forbidden", "import ctypes; ctypes.CDLL(None)"),
    "kill the parent": ("forbidden", "import os; os.kill(os.getppid(), 0)"),
    "stop itself": ("forbidden", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"),
    "read the parent": ("forbidden", "import os; open(f'/proc/{os.getppid()}/mem', 'rb')"),
    "find the guard": ("forbidden", "import gc; gc.get_objects()"),
    "raise the limits": ("forbidden", "import resource; resource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6))"),
    "change the argument": ("changed_argument", "da *= z > 0"),
    "hide the change": ("changed_argument", "import numpy as np; np.array_equal = lambda *a, **k: True; da *= z > 0"),
    "writable again": ("raised", "da.flags.writeable = True; da *= 2"),
    "patch json": ("forged", "import json; json.dumps = lambda *a, **k: '{\"ok\": true}'"),
    "drop the inputs": ("forged", "import sys; sys._getframe(2).f_locals['request']['inputs'].clear()"),
    "a list of itself": ("raised", "a = []; a.append(a); return a"),
    "huge result": ("structure", "import numpy as np; return np.zeros(10**7)"),
    "autodiff without its name": ("forbidden", "import importlib; importlib.import_module('ja' + 'x')"),
    "another autodiff": ("forbidden", "import optax"),
}
HARMLESS = {
    "patch numpy": "import numpy as np; np.allclose = np.isclose = np.array_equal = lambda *a, **k: True",
    "patch builtins": "import builtins; builtins.open = builtins.print = builtins.len = None",
    "huge output": "print('x' * 10**7)",
    "a terminal's commands": "print('\\x1b]0;owned\\x07\\x1b[2J')",
    "an exit in a thread": "import threading; threading.Thread(target=exit).start()",
    "another guard": "import sys; sys.addaudithook(print)",
    "files in its folder": "open('left', 'w').write('x')",
    "other descriptors": "import os; [os.close(f) for f in range(50, 99) if not f]",
    "an exit hook": "import atexit, os; atexit.register(os._exit, 7)",
}


def attack(body, last=RIGHT):
    return practice.grade("relu-backward", "".join(f"{line}\n    " for line in ("def backward(z, da):", body, last)))


def is_unharmed():
    """Return whether the grader still does its work, and the file that attacks aim at is as it was."""
    whole = Path(VICTIM).read_text(encoding="utf-8") == "whole"
    return whole and attack("pass").ok and attack("pass", "return da").cause == "activation_derivative"


@pytest.fixture
def victim():
    Path(VICTIM).write_text("whole", encoding="utf-8")
    yield
    Path(VICTIM).unlink(missing_ok=True)


@pytest.mark.practice_answers
@pytest.mark.parametrize("name", REFUSED)
def test_an_attack_is_refused(name, victim):
    cause, body = REFUSED[name]
    result = attack(body)
    assert not result.ok
    assert result.cause == cause, result
    assert result.message
    assert is_unharmed()


@pytest.mark.practice_answers
@pytest.mark.parametrize("name", HARMLESS)
def test_an_attack_is_without_effect(name, victim):
    result = attack(HARMLESS[name])
    assert result.ok, result
    assert len(result.printed) <= 4000
    assert "\x1b" not in result.printed
    assert not attack(HARMLESS[name], "return da").ok
    assert is_unharmed()


@pytest.mark.practice_answers
@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "import time; time.sleep(1000)",
        "import threading, itertools; threading.Thread(target=lambda: sum(itertools.count())).start()",
    ],
)
def test_an_answer_without_an_end_is_stopped(body, victim):
    assert attack(body).cause == "time"
    assert is_unharmed()


@pytest.mark.practice_answers
def test_no_process_of_an_answer_is_left(victim):
    attack("import threading; threading.Thread(target=lambda: [None for _ in iter(int, 1)]).start()")
    servers = {server.process.pid for (owner, _), server in process._SERVERS.items() if owner == os.getpid()}
    children = Path("/proc/self/task").glob("*/children")
    if servers and (below := [Path(f"/proc/{pid}/task/{pid}/children") for pid in servers]) and below[0].exists():
        assert not any(file.read_text().split() for file in below)
        assert servers <= {int(pid) for file in children for pid in file.read_text().split()}


CONFINED = """
import runpy, socket, sys
worker = runpy.run_path(sys.argv[1])
print(worker["confine"](sys.argv[2], ()))
for path in ("/etc/passwd", sys.argv[3]):
    try:
        open(path, "a" if path == sys.argv[3] else "r")
        print("opened", path)
    except PermissionError:
        pass
open(sys.argv[2] + "/own", "w").write("x")
"""


@pytest.mark.practice_answers
def test_the_kernel_refuses_what_the_guard_does_not_see(victim, tmp_path):
    """The guard hears what Python opens; here there is none."""
    command = [sys.executable, "-I", "-c", CONFINED, worker.__file__, str(tmp_path), VICTIM]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    if shown[0] == "False":
        pytest.skip("the kernel has no Landlock")
    assert shown == ["True"]


@pytest.mark.practice_answers
def test_autodiff_is_refused_however_it_is_named():
    for text in (
        "import jax\ndef backward(z, da):\n    return jax.vjp(jax.nn.relu, z)[1](da)[0]\n",
        "from jax import vjp as f\nimport jax\ndef backward(z, da):\n    return f(jax.nn.relu, z)[1](da)[0]\n",
        "import jax\ndef backward(z, da):\n    return getattr(jax, 'v' + 'jp')(jax.nn.relu, z)[1](da)[0]\n",
        "import jax\nfrom jax.interpreters import ad\ndef backward(z, da):\n"
        "    return getattr(ad, 'j' + 'vp')(jax.nn.relu, (z,), (da,))[1]\n",
    ):
        result = practice.grade("relu-backward", text)
        assert not result.ok
        assert result.cause in ("autodiff", "raised")


def test_text_and_functions_are_graded_alike():
    import numpy as np

    assert practice.grade("relu-backward", lambda z, da: np.where(z > 0, da, 0)).ok
    result = practice.grade(
        "mean-squared-error-backward", "def backward(p, t):\n    print('ok')\n    return (p - t) / p.size"
    )
    assert (result.ok, result.cause, result.printed[:2]) == (False, "scaled", "ok")
    assert practice.grade("relu-backward", "def backward(z, da)\n    return da").cause == "syntax"
    assert practice.grade("relu-backward", "def other(z, da):\n    return da").cause == "missing"
    assert practice.grade("relu-backward", "def backward(z, da):\n    da *= z > 0\n    return da").cause == (
        "changed_argument"
    )
    lock = __import__("threading").Lock()
    with pytest.raises(TypeError, match="can be sent to another process"):
        practice.grade("relu-backward", lambda z, da: lock and da)
