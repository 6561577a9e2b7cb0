"""The program of the processes that run answers: NumPy or JAX, a guard, calls, and the values as JSON and raw bytes.

``python -I worker.py DESCRIPTOR HIDDEN JAX`` is a server that has imported NumPy, and JAX with it where JAX is 1. For
each request, which comes over the socket of that descriptor, it forks a process that runs one answer; the server
itself never runs one. No part of funcnn is imported in either. A request is a pickle that the parent wrote; a reply is
JSON, which the parent checks. Nothing that these processes reply is a verdict.

What is not protected: an answer that corrupts the memory of its own process, through NumPy's strides or prebuilt ctypes
functions, can leave the guard. It then has the rights of the user who started it. Grade answers from strangers in a
container.
"""

import array
import builtins
import contextlib
import importlib
import io
import json
import marshal
import os
import pickle
import signal
import socket
import struct
import sys
import sysconfig
import traceback
import types
from pathlib import Path

AUTODIFF = (
    "grad", "value_and_grad", "vjp", "jvp", "jacfwd", "jacrev", "jacobian", "hessian", "linearize", "linear_transpose",
)  # fmt: skip
ROOTS = ("jvp", "vjp", "linearize", "direct_linearize", "linearize_jaxpr", "jvpfun", "jvp_subtrace", "backward_pass")
"""What all of them are made of, in jax.interpreters.ad."""

LIBRARIES = {"numpy", "scipy", "jax", "jaxlib", "ml_dtypes", "opt_einsum", "einops"}
# fork_exec raises no audit event.
ADMITTED = (sys.stdlib_module_names | LIBRARIES) - {"_posixsubprocess"}
GIBIBYTE = 2**30
MAX_PRINTED = 4000
MAX_ENTRIES = 100_000


def guard(folder: str, hidden: str, libraries: tuple[str, ...], admitted: frozenset[str]):
    """Return an audit hook that admits computing, files of the folder and of installed libraries, and some modules."""
    harmless = frozenset({
        "import", "compile", "exec", "builtins.id", "builtins.input", "sys._getframe", "array.__new__",
        "marshal.loads", "pickle.find_class", "_thread.start_new_thread", "object.__getattr__",
        "time.sleep", "sys.excepthook", "sys.unraisablehook", "cpython.PyInterpreterState_Clear", "os.listdir",
        "cpython._PySys_ClearAuditHooks", "sys.setrecursionlimit", "ctypes.addressof", "sys._getframemodulename",
    })  # fmt: skip

    # Everything is a default argument and immutable: the frame of an error that this raises gives no hold on the hook.
    def hook(
        event, arguments, *, harmless=harmless, folder=folder, hidden=hidden, libraries=libraries, admitted=admitted,
        real=os.path.realpath, kind=type, text=str, binary=bytes, refused=PermissionError, no=ModuleNotFoundError,
        write=os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    ):  # fmt: skip
        if event == "import":
            if arguments[0].split(".")[0] not in admitted:
                raise no(f"an answer imports Python's own modules, NumPy, SciPy and JAX, and not {arguments[0]}")
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


def disable(module_names, names, sentence):
    """Replace functions of modules that are imported by one that raises."""

    def refused(*_, **__):
        raise PermissionError(sentence)

    for module in [sys.modules[name] for name in module_names if name in sys.modules]:
        for name in names:
            if hasattr(module, name):
                setattr(module, name, refused)


def serve(control, hidden, with_jax):
    """Fork a process for each request until the parent closes the socket."""
    sys.modules["funcnn"] = None  # type: ignore[assignment]  # an ImportError for whoever imports it
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    sys.path[:] = [entry for entry in sys.path if not os.path.realpath(entry).startswith(hidden)]
    np = importlib.import_module("numpy")
    for name in ("ma", "linalg", "fft", "polynomial", "random"):  # which NumPy imports at their first use
        importlib.import_module(f"numpy.{name}")
    libraries = tuple(
        os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")
    )
    # No array is made before the fork: JAX's backend has threads, and threads don't survive it.
    jax = importlib.import_module("jax") if with_jax else None
    if with_jax:
        importlib.import_module("jax.numpy")
    while True:
        message, ancillary, _, _ = control.recvmsg(1, socket.CMSG_SPACE(8))
        if not message:
            os._exit(0)
        request, reply = array.array("i", ancillary[0][2])
        pid = os.fork()
        if pid == 0:
            control.close()
            try:
                answer(request, reply, hidden, libraries, np, jax)
            finally:
                os._exit(3)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        os.close(request)
        os.close(reply)
        control.sendall(pid.to_bytes(8, "little"))
        # The parent reads the reply and stops the process; only then does its number become free.
        if not control.recv(1):
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(OSError):
            control.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "little", signed=True))


def confine(folder, libraries):
    """Leave the network, and all files but the folder and what is read of the system; return whether it was possible.

    The guard does the same for what Python calls; this holds for native code too.
    """
    if sys.platform != "linux":
        return False
    call = importlib.import_module("ctypes").CDLL(None)
    call.unshare(0x10000000 | 0x40000000)  # CLONE_NEWUSER | CLONE_NEWNET
    everything, reading, of_a_file = (1 << 13) - 1, 0b1101, 0b110  # Landlock's rights of its first version
    rules = call.syscall(444, struct.pack("Q", everything), 8, 0)  # landlock_create_ruleset
    if rules < 0:
        return False
    readable = (*libraries, sys.base_prefix, "/usr/lib", "/lib", "/lib64", "/proc", "/sys")
    allowed = [(folder, everything), *((path, reading) for path in readable)]
    for path, rights in (*allowed, ("/dev/null", of_a_file), ("/dev/urandom", of_a_file)):
        if Path(path).exists():
            opened = os.open(path, os.O_PATH)
            call.syscall(445, rules, 1, struct.pack("=Qi", rights, opened), 0)  # landlock_add_rule
            os.close(opened)
    call.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    confined = call.syscall(446, rules, 0) == 0  # landlock_restrict_self
    os.close(rules)
    return confined


def limit(seconds, with_jax):
    """Limit memory, files, time and processes."""
    resource = importlib.import_module("resource")  # absent on Windows, where this file is imported too
    resource.setrlimit(resource.RLIMIT_AS, ((16 if with_jax else 2) * GIBIBYTE,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds + 1, seconds + 2))  # SIGXCPU at the first, SIGKILL at the second
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not with_jax:  # whose compiler starts threads, which count too
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def answer(request_from, reply_to, hidden, libraries, np, jax):
    """Run an answer on every input, and write the reply."""
    os.setpgid(0, 0)
    with os.fdopen(request_from, "rb") as stream:
        request = pickle.load(stream)
    folder = request["folder"]
    os.chdir(folder)
    sys.stdout = sys.stderr = printed = Printed()
    np.seterr(all="ignore")
    confine(folder, libraries)
    if jax is not None:
        if request["by_hand"]:
            sentence = "this exercise is by hand: automatic differentiation is not available in it"
            disable(("jax", "jax._src.api", "jax.ad", "jax.experimental.jet"), AUTODIFF, sentence)
            disable(("jax.interpreters.ad", "jax._src.interpreters.ad"), ROOTS, sentence)
        disable(
            ("jax.profiler", "jax._src.profiler", "jax.distributed", "jax._src.distributed"),
            ("start_trace", "start_server", "trace", "initialize", "save_device_memory_profile"),
            "an answer only computes: profiling and networks are not available to it",
        )
        jax.numpy.ones((2, 2)).block_until_ready()
    # Imports set attributes of functions, which the guard refuses.
    for name in request["imports"]:
        if name.split(".")[0] in LIBRARIES - (set() if jax else {"jax", "jaxlib"}):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    function, failure = None, {}
    # Built before the guard, which refuses to make functions out of code.
    try:
        if request["source"] is None:
            function = rebuilt(pickle.loads(request["function"]), {})
    except Exception as error:
        failure = {"error": "raised", "type": type(error).__name__, "text": str(error)[:1000], "line": None}
    disable(("subprocess", "_posixsubprocess"), ("_fork_exec", "fork_exec"), "an answer starts no processes")
    limit(request["seconds"], jax is not None)
    admitted = ADMITTED if jax is not None else ADMITTED - {"jax", "jaxlib"}
    sys.addaudithook(guard(folder, hidden, libraries, frozenset(admitted)))
    reply = failure or run(request, function, np, jax)
    reply["printed"] = io.StringIO.getvalue(printed)
    data = json.dumps(reply).encode()
    while data:
        data = data[os.write(reply_to, data) :]
    os._exit(0)


def run(request, function, np, jax):
    """Return the outputs for each input, or what went wrong."""
    outputs = []
    try:
        if request["source"] is not None:
            scope = {"__name__": "answer"}
            exec(compile(request["source"], "answer", "exec"), scope)
            function = scope.get(request["entry"])
        if not callable(function):
            return {"error": "missing"}
        ways = [(function, None)]
        if jax is not None:
            ways = [(function, jax.numpy), (function, None)]
            if not request["prints"]:  # compiling each operation takes seconds, which an answer that prints needs
                # A mask of booleans as an index is known only where the arguments are numbers.
                ways = [
                    (jax.jit(function), jax.numpy),
                    (lambda *numbers: jax.jit(lambda: function(*numbers))(), None),
                    *ways,
                ]
        for arguments in request["inputs"]:
            while True:
                try:
                    outputs.append(call(ways[0][0], arguments, np, ways[0][1]))
                    break
                except Exception:
                    if len(ways) == 1:
                        raise
                    del ways[0]
        return {"outputs": outputs}
    except BaseException as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "answer"]
        return {
            "error": "raised",
            "type": type(error).__name__,
            "text": str(error)[:1000],
            "line": frames[-1].lineno if frames else None,
            "input": len(outputs) if frames else None,
        }


def call(function, arguments, np, jnp):
    """Return the encoded output of one call, whose arguments can't be changed in place."""

    def frozen(array):
        # Memory of bytes, which no flag makes writable.
        return np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape) if array.size else array

    def each(tree):
        if isinstance(tree, tuple):
            return tuple(each(entry) for entry in tree)
        if not isinstance(tree, np.ndarray):
            return tree
        return frozen(tree) if jnp is None else jnp.asarray(frozen(tree))

    return encode(function(*each(arguments)))


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], sys.argv[3] == "1")
