"""Answers that try to be graded right without being right, or to do harm: none passes."""

import pytest

from funcnn import practice

BODY = {
    "exit": "import sys\n    sys.exit(0)",
    "hard exit": "import os\n    os._exit(0)",
    "endless recursion": "return backward(z, da)",
    "memory": "import numpy as np\n    return np.ones((10**10,))",
    "huge output": "print('x' * 10**8)\n    return da",
    "huge result": "import numpy as np\n    return np.zeros(10**7)",
    "fork": "import os\n    os.fork()\n    return da * (z > 0)",
    "subprocess": "import subprocess\n    subprocess.run(['true'])\n    return da * (z > 0)",
    "shell": "import os\n    os.system('true')\n    return da * (z > 0)",
    "socket": "import socket\n    socket.create_connection(('127.0.0.1', 9), 1)\n    return da * (z > 0)",
    "write a file": "open('../practice-attack', 'w')\n    return da * (z > 0)",
    "remove a file": "import os\n    os.remove('../practice-attack')\n    return da * (z > 0)",
    "read a secret": "open('/etc/passwd')\n    return da * (z > 0)",
    "import the solution": "import funcnn.practice\n    return da * (z > 0)",
    "native code": "import ctypes\n    ctypes.CDLL(None)\n    return da * (z > 0)",
    "kill the parent": "import os\n    os.kill(os.getppid(), 0)\n    return da * (z > 0)",
    "read the parent": "import os\n    open(f'/proc/{os.getppid()}/mem', 'rb')\n    return da * (z > 0)",
    "find the guard": "import gc\n    gc.get_objects()\n    return da * (z > 0)",
    "change the argument": "da *= z > 0\n    return da",
    "patch numpy": "import numpy as np\n    np.allclose = np.isclose = np.array_equal = lambda *a, **k: "
    "True\n    return da",
    "equal to everything": "class A(float):\n        def __eq__(self, o): return True\n    return A(1)",
    "forge the reply": (
        'import os\n    for f in range(3, 20):\n        try: os.write(f, b\'{"outputs": [], "ok": true}\')\n'
        "        except OSError: pass\n    os._exit(0)"
    ),
    "patch json": "import json\n    json.dumps = lambda *a, **k: '{\"ok\": true}'\n    return da",
    "raise SystemExit in a thread": "import threading\n    threading.Thread(target=exit).start()\n    return da",
}
SOLUTION_READER = """
import numpy, pathlib, sys
def backward(z, da):
    for folder in sys.path:
        for file in pathlib.Path(folder).glob("funcnn/practice/sections/*.py"):
            file.read_text()
    open(FILE).read()
    return da * (z > 0)
"""


@pytest.mark.practice_answers
@pytest.mark.parametrize("name", BODY)
def test_no_attack_passes(name):
    result = practice.grade("relu-backward", f"def backward(z, da):\n    {BODY[name]}\n")
    assert not result.ok, result
    assert result.message
    assert len(result.printed) <= 4000


@pytest.mark.practice_answers
def test_the_files_of_the_solutions_are_out_of_reach():
    file = practice.__file__.replace("__init__", "sections/activations")
    result = practice.grade("relu-backward", SOLUTION_READER.replace("FILE", repr(file)))
    assert result.cause == "forbidden", result


@pytest.mark.practice_answers
def test_an_endless_loop_is_stopped():
    result = practice.grade("relu-backward", "def backward(z, da):\n    while True: pass\n")
    assert result.cause == "time"


@pytest.mark.practice_answers
def test_autodiff_is_refused_however_it_is_named():
    for source in (
        "import jax\ndef backward(z, da):\n    return jax.vjp(jax.nn.relu, z)[1](da)[0]\n",
        "from jax import vjp as f\nimport jax\ndef backward(z, da):\n    return f(jax.nn.relu, z)[1](da)[0]\n",
        "import jax\ndef backward(z, da):\n    return getattr(jax, 'v' + 'jp')(jax.nn.relu, z)[1](da)[0]\n",
    ):
        assert practice.grade("relu-backward", source).cause == "autodiff"


def test_text_and_functions_are_graded_alike():
    import numpy as np

    assert practice.grade("relu-backward", lambda z, da: np.where(z > 0, da, 0)).ok
    result = practice.grade(
        "mean-squared-error-backward", "def backward(p, t):\n    print('ok')\n    return (p - t) / p.size"
    )
    assert (result.ok, result.cause, result.printed[:2]) == (False, "scaled", "ok")
    assert practice.grade("relu-backward", "def backward(z, da)\n    return da").cause == "syntax"
    assert practice.grade("relu-backward", "def other(z, da):\n    return da").cause == "missing"
