"""The processes that run answers: their start, their input and time limit, and the checks of their replies."""

import ast
import atexit
import contextlib
import inspect
import json
import marshal
import os
import pickle
import signal
import socket
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


class Reply(NamedTuple):
    """What the process of an answer replied.

    Fields:
        outputs: one for each input.
        error, detail: why there are none.
        printed: what the answer printed.
        number: the position of the input at which it raised.
    """

    outputs: tuple[Any, ...] = ()
    error: str = ""
    detail: str = ""
    printed: str = ""
    number: int | None = None


class Unreadable(NamedTuple):
    """A value that is neither a number, an array, a word nor a tuple of them; ``what`` describes it."""

    what: str


class Array(NamedTuple):
    """An array in float64, with the name of the dtype that it had."""

    values: np.ndarray
    dtype: str


class Server:
    """A process that has imported NumPy, or NumPy and JAX, and forks one for each answer.

    Starting it takes as long as the imports, so it stays until this process ends.
    """

    def __init__(self, with_jax: bool):
        mine, theirs = socket.socketpair()
        environment = {
            "PATH": os.defpath, "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "XLA_FLAGS": "--xla_backend_optimization_level=0",
        }  # fmt: skip
        program, hidden = Path(__file__).with_name("worker.py"), os.path.realpath(Path(__file__).parents[1])
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-B", str(program), str(theirs.fileno()), hidden, str(int(with_jax))],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
                start_new_session=True, pass_fds=[theirs.fileno()],
            )  # fmt: skip
        mine.settimeout(120)
        self.control, self.lock = mine, threading.Lock()

    def stop(self) -> None:
        """End the process."""
        self.control.close()
        self.process.kill()
        self.process.wait()

    def exchange(self, request: bytes, seconds: int) -> tuple[bytes, int | None]:
        """Return what the process of one answer replied, and its exit code; ``None`` where it ran out of time."""
        request_from, request_to = os.pipe()
        reply_from, reply_to = os.pipe()
        try:
            socket.send_fds(self.control, [b"r"], [request_from, reply_to])
        finally:
            os.close(request_from)
            os.close(reply_to)
        with os.fdopen(request_to, "wb") as stream, os.fdopen(reply_from, "rb") as replies:
            pid = int.from_bytes(self._received(8), "little")
            late = threading.Event()

            def stop():
                late.set()
                _kill(pid)

            timer = threading.Timer(seconds, stop)
            timer.start()
            try:
                with contextlib.suppress(BrokenPipeError):
                    stream.write(request)
                    stream.close()
                data = replies.read(MAX_REPLY + 1)
            finally:
                timer.cancel()
                timer.join()
                _kill(pid)
                self.control.sendall(b"d")
                code = int.from_bytes(self._received(8), "little", signed=True)
        return data, None if late.is_set() or code == -signal.SIGXCPU else code

    def _received(self, count: int) -> bytes:
        data = self.control.recv(count, socket.MSG_WAITALL)
        if len(data) < count:
            raise ConnectionError("the server of answers ended")
        return data


_SERVERS: dict[tuple[int, bool], Server] = {}
_LOCK = threading.Lock()


def server(with_jax: bool) -> Server:
    """Return the server of this process, started where it isn't running."""
    with _LOCK:
        found = _SERVERS.get((os.getpid(), with_jax))
        if found is None or found.process.poll() is not None:
            found = _SERVERS[os.getpid(), with_jax] = Server(with_jax)
            atexit.register(found.stop)
        return found


def run_answer(
    answer: str | Callable, entry: str, inputs: Sequence[tuple], *, by_hand: bool, seconds: int = SECONDS
) -> Reply:
    """Run an answer on each of the inputs in a process of its own.

    The process has no funcnn, no network, no files outside a temporary folder, no processes, limited memory and time.
    """
    source = answer if isinstance(answer, str) else None
    function = b"" if isinstance(answer, str) else _pickled(answer)
    uses_jax = "jax" in source if source is not None else b"jax" in function
    allowed = seconds + (5 if uses_jax else 0)
    with tempfile.TemporaryDirectory(prefix="practice-") as folder:
        request = {
            "source": source, "function": function, "entry": entry, "inputs": list(inputs), "by_hand": by_hand,
            "imports": _imports(source or ""), "seconds": allowed, "folder": os.path.realpath(folder),
            "prints": "print" in source if source is not None else b"print" in function,
        }  # fmt: skip
        running = server(uses_jax)
        with running.lock:
            try:
                data, code = running.exchange(pickle.dumps(request), allowed + 3)
            except OSError:
                running.stop()
                return Reply(error="exit", detail="the server")
            except BaseException:  # Ctrl-C in the middle of an exchange: the next one begins with a new server
                running.stop()
                raise
    if code is None:
        return Reply(error="time")
    if not data:
        return Reply(error="exit", detail=str(code))
    return _checked(data)


def _imports(source: str) -> list[str]:
    """Return the names of the modules that a source text imports, as far as its statements show."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _pickled(function: Callable) -> bytes:
    packed = pack_function(function, {})
    try:
        return pickle.dumps(packed)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"grade(answer): expected a function whose globals can be sent to another process, got one that uses "
            f"something else ({error}). Pass its source text."
        ) from error


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _checked(data: bytes) -> Reply:
    """Return the reply that the bytes hold; anything that isn't one is an error."""
    try:
        reply = json.loads(data)
        printed = _printable(str(reply.get("printed", ""))[:4000])
        if "error" in reply:
            if reply["error"] != "raised":
                return Reply(error="missing", printed=printed)
            line = f" in line {int(reply['line'])}" if reply.get("line") else ""
            detail = _printable(f"{str(reply['type'])[:80]}{line}: {str(reply['text'])[:1000]}")
            number = reply.get("input")
            return Reply((), "raised", detail, printed, number if type(number) is int and number >= 0 else None)
        return Reply(tuple(_decode(value) for value in reply["outputs"]), printed=printed)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Reply(error="forged")


def _printable(text: str) -> str:
    """Return text without the control characters that a terminal obeys."""
    return "".join(letter for letter in text if letter in "\n\t" or letter.isprintable())


def _decode(entry: dict) -> Any:
    if entry["kind"] == "plain":
        if not isinstance(entry["value"], bool | str | None):
            raise ValueError("a process of an answer sends numbers as arrays")
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
        raise TypeError(
            f"grade(answer): expected source text or a Python function, got {type(function).__name__}. "
            "Pass a function that is written with def, or its text."
        )
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
