"""Reading of PyTorch's ``state_dict`` files without PyTorch, and without running code from the file.

``torch.save`` writes a zip archive with a pickle of the dictionary and one file of bytes for each storage. The pickle
may name the few functions that build tensors and nothing else; any other name is refused.
"""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

_STORAGES = {
    "BoolStorage": np.bool_, "ByteStorage": np.uint8, "CharStorage": np.int8, "ShortStorage": np.int16,
    "IntStorage": np.int32, "LongStorage": np.int64, "HalfStorage": np.float16, "BFloat16Storage": jnp.bfloat16,
    "FloatStorage": np.float32, "DoubleStorage": np.float64,
}  # fmt: skip
_LARGEST_PICKLE = 2**26
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The pickled number at the beginning of files of PyTorch before 1.6."""
_NESTED = ("state_dict", "model")
"""Keys under which training scripts keep the state_dict in a larger dictionary."""


class _StorageType(NamedTuple):
    dtype: Any


def is_torch_file(file: Path) -> bool:
    """Whether a file begins as those of ``torch.save``.

    Raises:
        ValueError: the file has the format of PyTorch before 1.6.
    """
    with file.open("rb") as stream:
        start = stream.read(len(_LEGACY))
    if start == _LEGACY:
        raise _error(file, "the format of PyTorch before 1.6")
    return start.startswith(b"PK")


def read_torch_file(file: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a file of ``torch.save(module.state_dict(), file)`` by name, in the file's order.

    Raises:
        ValueError: the file isn't such an archive, names anything but tensors, or is damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            content = _load(file, archive)
    except _NoStateDictError:
        raise
    except Exception as error:  # whatever zipfile, pickle or NumPy raises at broken bytes
        raise _error(file, f"a damaged archive ({type(error).__name__}: {error})") from error
    for key in _NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise _error(file, f"a {type(content).__name__}")
    tensors = {name: value for name, value in content.items() if isinstance(value, np.ndarray)}
    if not tensors or not all(isinstance(name, str) for name in tensors):
        raise _error(file, "a dictionary without named tensors")
    return tensors


class _NoStateDictError(ValueError):
    """The content of a file, as far as it was read, is no state_dict."""


def _error(file: Path, came: str) -> _NoStateDictError:
    return _NoStateDictError(
        f"load_torch(path): expected a file of torch.save(module.state_dict(), path), got {file} with {came}. "
        "Save the state_dict again."
    )


def _load(file: Path, archive: zipfile.ZipFile) -> Any:
    infos = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in infos if name.endswith("data.pkl")]
    if len(pickles) != 1:
        raise _error(file, f"{len(pickles)} pickles")
    if infos[pickles[0]].file_size > _LARGEST_PICKLE:
        raise _error(file, f"a pickle of {infos[pickles[0]].file_size} bytes")
    folder = pickles[0].removesuffix("data.pkl")
    order = infos.get(f"{folder}byteorder")
    if order is not None and archive.read(order) != b"little":
        raise _error(file, "another byte order")
    return _Unpickler(archive, folder, infos, io.BytesIO(archive.read(pickles[0]))).load()


class _Unpickler(pickle.Unpickler):
    """An unpickler of tensors: no name but those below is looked up, so that nothing else can be called."""

    def __init__(self, archive, folder, infos, stream):
        super().__init__(stream)
        self.archive, self.folder, self.infos = archive, folder, infos
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
        }
        if (module, name) in allowed:
            return allowed[module, name]
        if module == "torch" and name in _STORAGES:
            return _StorageType(_STORAGES[name])
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a state_dict")

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, storage, key, _, count = pid
        if kind != "storage" or not isinstance(storage, _StorageType):
            raise pickle.UnpicklingError("a reference that is no storage")
        if key not in self.storages:
            dtype, info = np.dtype(storage.dtype), self.infos[f"{self.folder}data/{key}"]
            if info.file_size != count * dtype.itemsize or info.compress_type != zipfile.ZIP_STORED:
                raise pickle.UnpicklingError(f"storage {key} of another size than its description")
            self.storages[key] = np.frombuffer(self.archive.read(info), dtype)
        return self.storages[key]


def _tensor(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *rest: Any) -> np.ndarray:
    """Return a tensor as PyTorch describes it: a view of a storage, with strides in entries."""
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    sizes = (offset, *size, *stride)
    if not all(type(number) is int and number >= 0 for number in sizes):
        raise pickle.UnpicklingError("a size that is no count")
    if math.prod(size) and last >= storage.size:
        raise pickle.UnpicklingError("a tensor beyond its storage")
    steps = tuple(step * storage.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False).copy()


def _parameter(data: np.ndarray, *rest: Any) -> np.ndarray:
    return data
