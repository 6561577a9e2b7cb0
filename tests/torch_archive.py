"""PyTorch's files as ``torch.save`` writes them, made without PyTorch."""

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np


class _Storage:
    def __init__(self, array):
        self.array = array


class Tensor:
    """What PyTorch pickles for a tensor: a function, a storage, an offset, a size and strides."""

    def __init__(self, array, *, of=None, offset=0, size=None, strides=None):
        self.array = np.ascontiguousarray(array, np.float32)
        self.storage = _Storage(self.array) if of is None else of.storage
        self.offset, self.size = offset, self.array.shape if size is None else size
        self.strides = tuple(step // 4 for step in self.array.strides) if strides is None else strides

    def __reduce__(self):
        arguments = (self.storage, self.offset, self.size, self.strides, False, OrderedDict())
        return sys.modules["torch._utils"]._rebuild_tensor_v2, arguments


class Parameter:
    """What PyTorch pickles for ``torch.nn.Parameter``: a tensor with ``requires_grad``."""

    def __init__(self, array):
        self.tensor = Tensor(array)

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_parameter, (self.tensor, True, OrderedDict())


class Pickler(pickle.Pickler):
    def __init__(self, stream):
        super().__init__(stream, protocol=2)
        self.storages = []

    def persistent_id(self, value):
        if not isinstance(value, _Storage):
            return None
        if not any(value is storage for storage in self.storages):
            self.storages.append(value)
        number = next(number for number, storage in enumerate(self.storages) if value is storage)
        return ("storage", sys.modules["torch"].FloatStorage, str(number), "cpu", value.array.size)


def writer(folder, monkeypatch):
    """Return a function that writes tensors as ``torch.save`` does."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):

        def function():
            raise AssertionError

        function.__module__, function.__qualname__ = "torch._utils", name
        setattr(utils, name, function)
    torch._utils = utils
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    def save(content, *, order=b"little", compression=zipfile.ZIP_STORED):
        """Write a dictionary of arrays, or what else a script may keep."""
        if isinstance(content, dict):
            tensors = {key: Tensor(each) for key, each in content.items() if isinstance(each, np.ndarray)}
            content = OrderedDict(content | tensors)
        stream = io.BytesIO()
        pickler = Pickler(stream)
        pickler.dump(content)
        with zipfile.ZipFile(folder / "weights.pt", "w", compression) as archive:
            archive.writestr("weights/data.pkl", stream.getvalue())
            archive.writestr("weights/byteorder", order)
            for number, storage in enumerate(pickler.storages):
                archive.writestr(f"weights/data/{number}", storage.array.tobytes())
        return folder / "weights.pt"

    return save
