"""Saving and loading of parameters and running statistics as safetensors files.

Loading executes no code from the file, unlike a pickle, and other libraries read the format. Metadata contain a version
and a SHA-256 checksum of all tensors. It proves that no byte was damaged after ``save``. It doesn't prove who wrote the
file: whoever changes the tensors can also compute their checksum.
"""

import contextlib
import hashlib
import json
import math
import os
import stat
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from funcnn._checks import check_is_layer, describe
from funcnn._initialization import initial_shapes
from funcnn._optional import import_optional
from funcnn.types import Layer, Params, State

_MARK = "funcnn.weights"
_VERSION = 1
_DTYPES = {
    "BOOL": jnp.bool_,
    "I8": jnp.int8, "I16": jnp.int16, "I32": jnp.int32, "I64": jnp.int64,
    "U8": jnp.uint8, "U16": jnp.uint16, "U32": jnp.uint32, "U64": jnp.uint64,
    "F8_E4M3": jnp.float8_e4m3fn, "F8_E5M2": jnp.float8_e5m2,
    "F16": jnp.float16, "BF16": jnp.bfloat16, "F32": jnp.float32, "F64": jnp.float64,
}  # fmt: skip
_NAMES = {np.dtype(dtype).name for dtype in _DTYPES.values()}
_LARGEST_HEADER, _BYTES_A_TENSOR = 2**20, 2**10
"""The largest header that is read, in bytes; per tensor of the model, where that is more. An entry has about 100."""

_READ_ANYWAY = 2**24
"""The bytes of tensors up to which a file of another model is read, to tell it from a damaged one."""

_MOST_TENSORS = 2**14
"""The tensors that a file of an unknown model may have."""

_MOST_AXES = 32


def save(path: str | os.PathLike[str], params: Params, state: State = ()) -> None:
    """Write parameters and running statistics to one safetensors file, atomically.

    A temporary file in the same folder replaces the old file only when it is complete and flushed to disk. A process
    that is killed before that leaves the old file. Equal weights give equal files. The names of the tensors are their
    paths in the trees, ``params.0.kernel``, ``params.2.inner.1.bias``, ``state.1.mean``. ``safetensors.torch`` reads
    them; a kernel is the transpose of PyTorch's ``Linear.weight``.

    With several processes, all of them make the call and only process 0 writes. The arrays must be whole on each
    process. A process that reads the file must wait for process 0
    (``jax.experimental.multihost_utils.sync_global_devices``).

    Args:
        path: the file; an existing one is replaced.
        params, state: trees of arrays of a dtype that safetensors supports: floating with at least 8 bits, integer or
            bool. All bits are kept.

    Raises:
        ModuleNotFoundError: safetensors isn't installed; ``pip install 'funcnn[training]'``.
        FileNotFoundError, IsADirectoryError: the folder doesn't exist, or path is a folder.
        TypeError: a leaf isn't an array of such a dtype (random keys aren't), or is traced.
        ValueError: two leaves have the same name, or a part of an array is on another process.

    Example:
        >>> import pathlib, tempfile
        >>> from funcnn.layers.linear import linear
        >>> layer = linear(3, 2)
        >>> params, state = layer.init(jax.random.key(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(pathlib.Path(folder, "linear.safetensors"), params, state)
        ...     loaded, _ = load(pathlib.Path(folder, "linear.safetensors"), layer)
        >>> bool((loaded.kernel == params.kernel).all())
        True

    Source:
        The format: https://huggingface.co/docs/safetensors.
    """
    _safetensors("save")
    if hasattr(params, "opt_state"):
        raise TypeError(
            "save(params): expected the parameters, got a whole Trained. Pass trained.params, trained.state."
        )
    file = _file("save(path)", path)
    if not file.parent.is_dir():
        raise FileNotFoundError(f"save(path): expected an existing folder, got {file.parent}. Make it first.")
    leaves = _leaves_by_name("save(params, state)", params, state)
    for name, leaf in leaves.items():
        _check_values("save", name, leaf)
    if jax.process_index() == 0:
        _replace(file, _encode({name: _host_array(leaf) for name, leaf in leaves.items()}))


def load(path: str | os.PathLike[str], model: Layer) -> tuple[Params, State]:
    """Read the parameters and running statistics of a model from a file of ``save`` or of another library.

    The tree structure is the model's, the dtypes are the file's: parameters saved in bfloat16 are loaded in bfloat16.
    Files of other libraries are loaded if their names and shapes match the model's. They have no checksum.

    Args:
        path: a safetensors file.
        model: the layer whose ``init`` returns trees of this structure. It is not executed.

    Returns:
        ``(params, state)``.

    Raises:
        ModuleNotFoundError: safetensors isn't installed; ``pip install 'funcnn[training]'``.
        FileNotFoundError, IsADirectoryError: the file doesn't exist, or path is a folder.
        ValueError: the file is damaged; it belongs to another model (the message contains the first difference); its
            dtypes have 64 bits and JAX's 64-bit types aren't enabled.
        TypeError: model isn't a layer, or has leaves that a safetensors file can't contain.

    Example:
        See ``save``.
    """
    check_is_layer("load(model)", model)
    _safetensors("load")
    file = _file("load(path)", path)
    if not file.is_file():
        raise FileNotFoundError(f"load(path): expected an existing file, got {file}. Is the path right?")
    trees = initial_shapes(model)
    expected = _leaves_by_name("load(model)", *trees)
    for name, like in expected.items():
        _check_dtype("load(model)", name, like)
    tensors = _read(file, expected)
    _check_same_tensors(file, tensors, expected)
    arrays = [jnp.asarray(tensors[name]) for name in expected]
    return jax.tree.unflatten(jax.tree.structure(trees), arrays)


def _safetensors(caller: str):
    import_optional("safetensors.numpy", caller, "training")
    return import_optional("safetensors", caller, "training")


def _file(name: str, path: Any) -> Path:
    """Return the path of the file with symbolic links resolved."""
    if not isinstance(path, str | os.PathLike):
        came = f"{path!r} of type {type(path).__name__}"
        raise TypeError(f"{name}: expected a path, got {came}. Pass a string or a pathlib.Path.")
    file = Path(os.path.realpath(path))
    if file.is_dir():
        raise IsADirectoryError(f"{name}: expected a file, got the folder {file}. Add a name: 'model.safetensors'.")
    return file


def _leaves_by_name(caller: str, params: PyTree, state: PyTree) -> dict[str, Any]:
    """Return the leaves by their paths, ``params.0.kernel``, in the order of ``jax.tree.leaves((params, state))``."""
    named: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path({"params": params, "state": state}):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name in named:
            raise ValueError(
                f"{caller}: expected a name for each leaf, got two called {name!r}. Rename one of the keys."
            )
        named[name] = leaf
    return named


def _check_dtype(caller: str, name: str, leaf: Any) -> None:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        raise TypeError(
            f"{caller}: expected arrays of numbers, got a random key at {name}. "
            "Keep keys as numbers, jax.random.key_data(key), or outside the state."
        )
    if np.dtype(leaf.dtype).name not in _NAMES:
        raise TypeError(
            f"{caller}: expected one of the dtypes {', '.join(sorted(_NAMES))}, got {leaf.dtype} at {name}. "
            "Convert it first; a complex array as its real and imaginary parts."
        )


def _check_values(caller: str, name: str, leaf: Any) -> None:
    if isinstance(leaf, jax.core.Tracer):
        raise TypeError(f"{caller}: expected arrays with values, got a traced one at {name}. Call it outside jit.")
    if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
        raise TypeError(
            f"{caller}: expected arrays, got {leaf!r} of type {type(leaf).__name__} at {name}. "
            "Make an array of it, jnp.asarray(value), or leave it out."
        )
    _check_dtype(caller, name, leaf)
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        raise ValueError(
            f"{caller}: expected whole arrays on every process, got one in parts at {name}. "
            "Gather it first: jax.experimental.multihost_utils.process_allgather(tree, tiled=True)."
        )


def _host_array(leaf: Any) -> np.ndarray:
    """Return a leaf as a contiguous, little-endian array."""
    array = np.asarray(leaf)
    return np.asarray(array, dtype=np.dtype(array.dtype.name), order="C")


def _digest(tensors: dict[str, np.ndarray]) -> str:
    """Return the SHA-256 of the names, dtypes, shapes and bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, array in sorted(tensors.items()):
        digest.update(json.dumps([name, array.dtype.name, array.shape]).encode() + b"\n")
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _encode(tensors: dict[str, np.ndarray]) -> bytes:
    # A single entry, because safetensors writes several in an order that changes between calls.
    mark = json.dumps({"version": _VERSION, "sha256": _digest(tensors)})
    return _safetensors("save").numpy.save(tensors, metadata={_MARK: mark})


def _replace(file: Path, content: bytes) -> None:
    temporary = file.parent / f".{uuid.uuid4().hex}.tmp"
    mode = stat.S_IMODE(file.stat().st_mode) if file.exists() else None
    try:
        # The mode is given with the name, so that a private file is at no moment readable by others.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, 0o666 if mode is None else mode), "wb") as stream:
            if mode is not None:
                _set_mode(temporary, mode)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    if hasattr(os, "O_DIRECTORY"):  # The folder must be flushed too, except on Windows.
        folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _set_mode(file: Path, mode: int) -> None:
    """Give a file the bits that the umask has taken from its mode, where the file system has modes."""
    with contextlib.suppress(PermissionError):
        file.chmod(mode)


class _Entry(NamedTuple):
    """A tensor in the header of a file; it has the ``shape`` and ``dtype`` of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype


def _read(file: Path, expected: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the tensors of a file by name. The checksum is verified if there is one.

    The header is read first, and the tensors only where they are those of the model, or few. So a file of any size
    takes no more memory than the model's own.
    """
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        start, entries, metadata = _header(file, stream, size, len(expected))
        if size - start > _READ_ANYWAY:
            _check_same_tensors(file, entries, expected)
        stream.seek(0)
        content = stream.read(size)
    tensors = _tensors(file, content, entries)
    if _MARK in metadata:
        _check_mark(file, metadata[_MARK], tensors)
    return tensors


def _tensors(file: Path, content: bytes, entries: dict[str, _Entry]) -> dict[str, np.ndarray]:
    safetensors = _safetensors("load")
    try:
        found = {name: entry["data"] for name, entry in safetensors.deserialize(content)}
        return {name: np.frombuffer(found[name], entry.dtype).reshape(entry.shape) for name, entry in entries.items()}
    except (safetensors.SafetensorError, LookupError) as error:
        raise _damage_error(file, f"a broken header ({error})") from error


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a safetensors file of another library by name.

    Raises:
        ValueError: the file is damaged, or its header is too large.
    """
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        entries = _header(file, stream, size, _MOST_TENSORS)[1]
        stream.seek(0)
        return _tensors(file, stream.read(size), entries)


def _header(file: Path, stream: BinaryIO, size: int, tensors: int) -> tuple[int, dict[str, _Entry], dict[str, Any]]:
    """Return where the tensors begin, their shapes and dtypes by name, and the metadata.

    Args:
        file: its path, for errors.
        stream: the open file.
        size: its bytes.
        tensors: how many the model has. The header may be larger than usual in proportion.
    """
    length = int.from_bytes(stream.read(8), "little")
    if size < 8 or 8 + length > size:
        raise _damage_error(file, f"{size} bytes, too few for its header: truncated, or no safetensors file")
    most = max(_LARGEST_HEADER, _BYTES_A_TENSOR * tensors)
    if length > most:
        raise ValueError(
            f"load(path): expected a header of at most {most} bytes, got {length} in {file}. Save the weights alone, "
            "without long metadata."
        )
    try:
        header = json.loads(stream.read(length))
        metadata = dict(header.pop("__metadata__", {}))
        unknown = [(name, entry["dtype"]) for name, entry in header.items() if entry["dtype"] not in _DTYPES]
        entries = {} if unknown else {name: _entry(entry) for name, entry in header.items()}
        promised = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        missing = int(promised) - size
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
        raise _damage_error(file, "a broken header") from error
    if missing > 0:
        raise _damage_error(file, f"{missing} bytes less than its header says: truncated")
    if missing < 0:
        raise _damage_error(file, f"a broken header, which leaves {-missing} bytes unused")
    for name, dtype in unknown:
        known = ", ".join(_DTYPES)
        raise ValueError(f"load(path): expected dtypes among {known}, got {dtype} at {name}. Save it in one of these.")
    return 8 + length, entries, metadata


def _entry(entry: dict[str, Any]) -> _Entry:
    """Return the shape and dtype of a tensor in the header; raise where its bytes have another size."""
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    sizes = (*shape, begin, end)
    if len(shape) > _MOST_AXES or not all(type(number) is int and 0 <= number < 2**63 for number in sizes):
        raise ValueError("a shape or an offset that is no size")
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    if math.prod(shape) * dtype.itemsize != end - begin:
        raise ValueError("a shape of another size than its bytes")
    return _Entry(shape, dtype)


def _check_mark(file: Path, mark: str, tensors: dict[str, np.ndarray]) -> None:
    try:
        found = json.loads(mark)
        version, sha256 = found["version"], found["sha256"]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise _damage_error(file, "a broken checksum in its header") from error
    if version != _VERSION:
        raise ValueError(
            f"load(path): expected weights of version {_VERSION}, got {version!r} in {file}. "
            "A newer funcnn wrote it, or it is damaged: upgrade, or copy the file again."
        )
    if sha256 != _digest(tensors):
        raise _damage_error(file, "tensors that don't have the checksum in its header: at least one byte is wrong")


def _damage_error(file: Path, reason: str) -> ValueError:
    return ValueError(
        f"load(path): expected an undamaged safetensors file, got {file} with {reason}. Copy it or save it again."
    )


def _check_same_tensors(file: Path, tensors: Mapping[str, Any], expected: dict[str, Any]) -> None:
    """Raise for the first tensor whose name, shape or kind of dtype isn't the model's."""

    def error(expected: str, got: str, advice: str = "Load it into the model that it was saved from.") -> ValueError:
        return ValueError(f"load(model): expected {expected}, got {got} in {file}. {advice}")

    for name, like in expected.items():
        if name not in tensors:
            rest = ", ".join(sorted(set(tensors) - set(expected))[:3]) or "none that the model doesn't have"
            raise error(f"{name}, {describe(like)}", f"no such tensor (others: {rest})")
        array = tensors[name]
        if array.shape != like.shape:
            transposed = len(array.shape) == 2 and array.shape[::-1] == like.shape
            advice = ["Transpose it: PyTorch keeps (out_features, in_features)."] if transposed else []
            raise error(f"{name} of shape {like.shape}", str(array.shape), *advice)
        if _kind(array.dtype) != _kind(like.dtype):
            raise error(f"{name} as {like.dtype}", str(array.dtype))
        if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
            raise error(
                f"{name} of at most 32 bits", str(array.dtype),
                "Enable 64-bit types, jax.config.update('jax_enable_x64', True), or save it in a narrower dtype.",
            )  # fmt: skip
    for name in sorted(set(tensors) - set(expected)):
        extra = jax.ShapeDtypeStruct(tensors[name].shape, tensors[name].dtype)
        raise error("the model's tensors alone", f"{name}, {describe(extra)}, too")


def _kind(dtype: Any) -> str:
    kinds = {"floating": jnp.floating, "integer": jnp.integer}
    return next((kind for kind, family in kinds.items() if jnp.issubdtype(dtype, family)), "bool")
