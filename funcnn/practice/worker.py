"""The program of the process that runs an answer: NumPy, a guard, calls, and the values as JSON and raw bytes.

It runs as a script of its own, with no part of funcnn imported: ``python -I worker.py FOLDER``. The request comes on
the standard input as a pickle, which the parent wrote; the reply is JSON, which the parent checks. Nothing that this
process replies is a verdict.

What is not protected: an answer that corrupts the memory of its own process, through NumPy's strides or prebuilt ctypes
functions, can leave the guard. It then has the rights of the user who started it. Grade strangers in a container.
"""

import builtins
import importlib
import io
import json
import marshal
import os
import pickle
import resource
import sys
import sysconfig
import traceback
import types
from typing import Any

AUTODIFF = (
    "grad", "value_and_grad", "vjp", "jvp", "jacfwd", "jacrev", "jacobian", "hessian", "linearize", "linear_transpose",
)  # fmt: skip
MAX_PRINTED = 4000
MAX_ENTRIES = 100_000


def guard(folder: str, hidden: str, libraries: tuple[str, ...]):
    """Return an audit hook that admits computing, and files of the folder and of installed libraries."""
    harmless = frozenset({
        "import", "compile", "exec", "builtins.id", "builtins.input", "sys._getframe", "array.__new__",
        "marshal.loads", "pickle.find_class", "_thread.start_new_thread", "object.__getattr__",
        "time.sleep", "sys.excepthook", "sys.unraisablehook", "cpython.PyInterpreterState_Clear", "os.listdir",
        "cpython._PySys_ClearAuditHooks", "sys.setrecursionlimit", "ctypes.addressof", "sys._getframemodulename",
    })  # fmt: skip

    # Everything is a default argument and immutable: the frame of an error that this raises gives no hold on the hook.
    def hook(
        event, arguments, *, harmless=harmless, folder=folder, hidden=hidden, libraries=libraries, path=os.fspath,
        real=os.path.realpath, join=os.path.join, cwd=os.getcwd, kind=type, integer=int, text=str, binary=bytes,
        refused=PermissionError, no=ImportError, write=os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    ):  # fmt: skip
        if event == "import":
            if arguments[0] == "funcnn" or arguments[0][:7] == "funcnn.":
                raise no("an answer stands on its own: funcnn can't be imported in it")
            return
        if event == "open" or event == "os.listdir":
            name = arguments[0]
            if kind(name) is binary:
                name = name.decode()
            if kind(name) is text:
                whole = real(name)
                if whole[: len(folder)] == folder or whole in ("/dev/null", "/dev/urandom"):
                    return
                writes = event == "open" and (
                    (kind(arguments[1]) is text and arguments[1][:1] != "r") or arguments[2] & write
                )
                if not writes and whole[: len(hidden)] != hidden and whole.startswith(libraries):
                    return
            raise refused(f"an answer opens no files outside its temporary folder, and not {name!r}")
        if event not in harmless:
            raise refused(f"an answer only computes: {event} is not available to it")

    return hook


class Printed(io.StringIO):
    """A standard output that keeps the first characters only."""

    def write(self, text):
        if self.tell() < MAX_PRINTED:
            super().write(str(text)[: MAX_PRINTED - self.tell()])
        return len(text)


def encode(value):
    """Return a value as JSON data: arrays, numbers, words, and tuples, lists and dictionaries of them."""
    import numpy as np

    if value is None or isinstance(value, (bool, str)):
        return {"kind": "plain", "value": value if not isinstance(value, str) else value[:1000]}
    if isinstance(value, (list, tuple)):
        # A plain nested list of numbers is an array, as np.asarray has it.
        flat = list(value)
        if flat and all(isinstance(entry, (int, float, list)) for entry in flat):
            try:
                return encode(np.asarray(flat, dtype=np.float64))
            except ValueError:
                pass
        return {"kind": "tuple", "items": [encode(entry) for entry in flat[:1000]]}
    if isinstance(value, dict):
        return {"kind": "dict", "items": {str(key): encode(entry) for key, entry in list(value.items())[:1000]}}
    array = np.asarray(value)
    if array.dtype.kind not in "fiubc" and str(array.dtype) not in ("bfloat16",):
        return {"kind": "other", "type": type(value).__name__}
    if array.size > MAX_ENTRIES:
        return {"kind": "large", "shape": list(array.shape)}
    dtype = str(array.dtype)
    if array.dtype.kind not in "fiub":
        array = array.astype(np.float64) if array.dtype.kind != "c" else array.real.astype(np.float64)
    array = array.astype(np.float64)
    return {"kind": "array", "dtype": dtype, "shape": list(array.shape), "hex": array.tobytes().hex()}


def rebuilt(packed, names):
    """Return a function from its code, its globals and the values in its closure."""
    if packed["name"] in names:
        return names[packed["name"]]
    scope = {"__builtins__": builtins}
    cells = tuple(types.CellType() for _ in packed["closure"])
    function = types.FunctionType(marshal.loads(packed["code"]), scope, packed["name"], None, cells)
    names[packed["name"]] = function
    for cell, entry in zip(cells, packed["closure"], strict=True):
        cell.cell_contents = value(entry, names)
    scope.update({name: value(entry, names) for name, entry in packed["globals"].items()})
    function.__defaults__ = packed["defaults"]
    function.__kwdefaults__ = packed["keywords"]
    return function


def value(entry, names):
    kind, what = entry
    if kind == "module":
        if what.split(".")[0] == "funcnn":
            raise ImportError("an answer stands on its own: funcnn can't be used in it")
        return importlib.import_module(what)
    return rebuilt(what, names) if kind == "function" else what


def poison_autodiff(jax):
    """Replace what differentiates by functions that raise."""

    def refused(*_, **__):
        raise PermissionError("this exercise is by hand: automatic differentiation is not available in it")

    places = [jax] + [
        module for name, module in sys.modules.items() if name in ("jax._src.api", "jax.ad", "jax.experimental.jet")
    ]
    for place in places:
        for name in AUTODIFF:
            if hasattr(place, name):
                setattr(place, name, refused)


def main():
    """Read the request, run the answer on every input, write the reply."""
    folder = os.path.realpath(sys.argv[1])
    sys.modules["funcnn"] = None  # type: ignore[assignment]  # an ImportError for whoever imports it
    request = pickle.load(sys.stdin.buffer)
    reply_to = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    sys.stdout = sys.stderr = printed = Printed()
    sys.path[:] = [entry for entry in sys.path if not os.path.realpath(entry).startswith(request["hidden"])]
    import numpy as np

    np.seterr(all="ignore")
    jnp: Any = None
    if request["jax"]:
        jax = importlib.import_module("jax")
        jnp = importlib.import_module("jax.numpy")
        jnp.tanh(jnp.ones((2, 2))).block_until_ready()
        if request["by_hand"]:
            poison_autodiff(jax)
    failure: dict[str, Any] = {}
    # Built before the guard, which refuses to make functions out of code.
    try:
        function = rebuilt(request["function"], {}) if request["source"] is None else None
    except Exception as error:
        function = None
        failure = {"error": "raised", "type": type(error).__name__, "text": str(error), "line": None}
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_AS, (request["memory"],) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (request["seconds"] + 1,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libraries = tuple(
        os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")
    )
    sys.addaudithook(guard(folder, request["hidden"], libraries))
    reply = failure or run(request, function, np, jnp)
    reply["printed"] = io.StringIO.getvalue(printed)
    data = json.dumps(reply).encode()
    while data:
        data = data[os.write(reply_to, data) :]
    os._exit(0)


def run(request, function, np, jnp):
    """Return the outputs for each input, or what went wrong."""
    try:
        if request["source"] is not None:
            scope = {"__name__": "answer"}
            exec(compile(request["source"], "answer", "exec"), scope)
            function = scope.get(request["entry"])
        if not callable(function):
            return {"error": "missing"}
        outputs = []
        for arguments in request["inputs"]:
            try:
                outputs.append(call(function, arguments, np, jnp))
            except Exception:
                if jnp is None:
                    raise
                outputs.append(call(function, arguments, np, None))
        return {"outputs": outputs}
    except BaseException as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "answer"]
        return {
            "error": "raised",
            "type": type(error).__name__,
            "text": str(error)[:1000],
            "line": frames[-1].lineno if frames else None,
        }


def is_same(given, before, np):
    """Return whether arguments are what they were."""
    if isinstance(before, tuple):
        return all(is_same(one, other, np) for one, other in zip(given, before, strict=True))
    return not isinstance(before, np.ndarray) or np.array_equal(given, before, equal_nan=True)


def call(function, arguments, np, jnp):
    """Return the encoded output of one call, and whether it changed its arguments."""

    def each(tree, change):
        if isinstance(tree, tuple):
            return tuple(each(entry, change) for entry in tree)
        return change(tree) if isinstance(tree, np.ndarray) else tree

    given = each(arguments, np.copy)
    if jnp is not None:
        given = each(given, jnp.asarray)
    output = encode(function(*given))
    changed = jnp is None and not is_same(given, arguments, np)
    return {"value": output, "changed": changed}


if __name__ == "__main__":
    main()
