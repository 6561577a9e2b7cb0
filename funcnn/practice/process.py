"""The process that runs an answer: started with limits, fed with inputs, its reply read with a bound and checked."""

import contextlib
import inspect
import json
import marshal
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MAX_REPLY = 20_000_000
SECONDS = 5
GIBIBYTE = 2**30


class Reply(NamedTuple):
    """What the process of an answer replied: an output for each input, or an error; and what the answer printed."""

    outputs: tuple[Any, ...] = ()
    changed: bool = False
    error: str = ""
    detail: str = ""
    printed: str = ""


class Unreadable(NamedTuple):
    """A value that is neither a number, an array, a word nor a tuple of them; ``what`` describes it."""

    what: str


class Array(NamedTuple):
    """An array in float64, with the name of the dtype that it had."""

    values: np.ndarray
    dtype: str


def run_answer(
    answer: str | Callable, entry: str, inputs: Sequence[tuple], *, by_hand: bool, seconds: int = SECONDS
) -> Reply:
    """Run an answer on each of the inputs in a process of its own.

    The process has no funcnn, no network, no files outside a temporary folder, no processes, limited memory and time.
    """
    source = answer if isinstance(answer, str) else None
    function = None if isinstance(answer, str) else pack_function(answer, {})
    uses_jax = "jax" in source if source is not None else _uses_jax(function)
    allowed = seconds + (5 if uses_jax else 0)
    request = {
        "source": source, "function": function, "entry": entry, "inputs": list(inputs), "jax": uses_jax,
        "by_hand": by_hand, "seconds": allowed, "memory": (16 if uses_jax else 2) * GIBIBYTE,
        "hidden": os.path.realpath(Path(__file__).parents[1]),
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="practice-") as folder:
        return _communicate(pickle.dumps(request), folder, allowed + 3)


def _communicate(request: bytes, folder: str, seconds: int) -> Reply:
    environment = {
        "PATH": os.defpath, "HOME": folder, "TMPDIR": folder, "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu",
        "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-I", "-B", str(Path(__file__).with_name("worker.py")), folder]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
        start_new_session=True,
    )  # fmt: skip
    late = threading.Event()

    def stop():
        late.set()
        _kill(process.pid)

    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout:
            try:
                process.stdin.write(request)
                process.stdin.close()
            except BrokenPipeError:
                pass
            data = process.stdout.read(MAX_REPLY + 1)
    finally:
        timer.cancel()
        _kill(process.pid)
        process.wait()
    if late.is_set() or process.returncode == -signal.SIGXCPU:
        return Reply(error="time")
    if not data:
        return Reply(error="exit", detail=str(process.returncode))
    return _checked(data)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _checked(data: bytes) -> Reply:
    """Return the reply that the bytes hold; anything that isn't one is an error."""
    try:
        reply = json.loads(data)
        printed = str(reply.get("printed", ""))[:4000]
        if "error" in reply:
            if reply["error"] != "raised":
                return Reply(error="missing", printed=printed)
            line = f" in line {int(reply['line'])}" if reply.get("line") else ""
            return Reply(error="raised", detail=f"{reply['type']}{line}: {reply['text']}", printed=printed)
        outputs = tuple(_decode(entry["value"]) for entry in reply["outputs"])
        return Reply(outputs, any(entry["changed"] for entry in reply["outputs"]), printed=printed)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Reply(error="forged")


def _decode(entry: dict) -> Any:
    if entry["kind"] == "plain":
        return entry["value"]
    if entry["kind"] == "tuple":
        return tuple(_decode(item) for item in entry["items"])
    if entry["kind"] == "dict":
        return {key: _decode(item) for key, item in entry["items"].items()}
    if entry["kind"] == "array":
        values = np.frombuffer(bytes.fromhex(entry["hex"])).reshape([int(size) for size in entry["shape"]])
        return Array(values, str(entry["dtype"])[:20])
    return Unreadable(str(entry.get("type") or f"an array of shape {tuple(entry['shape'])}")[:80])


def pack_function(function: Callable, seen: dict[int, str]) -> dict:
    """Return a Python function as data: its code, and the modules, functions and values that it refers to.

    Raises:
        TypeError: it isn't a Python function.
    """
    function = inspect.unwrap(function)
    if not isinstance(function, types.FunctionType):
        raise TypeError(f"grade(answer): expected source text or a Python function, got {type(function).__name__}")
    if id(function) in seen:
        return {"name": seen[id(function)]}
    seen[id(function)] = f"{function.__name__}#{len(seen)}"
    names = _referenced(function.__code__)
    return {
        "name": seen[id(function)],
        "code": marshal.dumps(function.__code__),
        "globals": {
            name: _pack_value(function.__globals__[name], seen) for name in names if name in function.__globals__
        },
        "closure": [_pack_value(cell.cell_contents, seen) for cell in function.__closure__ or ()],
        "defaults": function.__defaults__,
        "keywords": function.__kwdefaults__,
    }


def _referenced(code: types.CodeType) -> set[str]:
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*(_referenced(constant) for constant in inner))


def _pack_value(value: Any, seen: dict[int, str]) -> tuple[str, Any]:
    if isinstance(value, types.ModuleType):
        return "module", value.__name__
    if isinstance(value, types.FunctionType) and (value.__module__ or "").split(".")[0] not in ("numpy", "jax", "math"):
        return "function", pack_function(value, seen)
    return "value", value


def _uses_jax(packed: dict | None) -> bool:
    return packed is not None and b"jax" in pickle.dumps(packed)
