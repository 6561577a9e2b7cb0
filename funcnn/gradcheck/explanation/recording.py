"""The program of a loss that computes in NumPy, recorded by arrays that compute in NumPy and in JAX side by side.

NumPy's own values decide branches, loops and indices, so the program is that of one point. It is a hypothesis: whoever
takes it compares its value and its gradient with the loss and its measured slopes.
"""

import operator
import types
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
from jaxtyping import PyTree

from funcnn._numerics.program import Program

try:
    from jax._src import source_info_util

    for _path in (__file__, *jaxtyping.__path__):  # an operation belongs to the line of the user's that calls it
        source_info_util.register_exclusion(_path)
except (ImportError, AttributeError):  # a release of JAX that keeps it elsewhere
    pass

_KEPT = {"jax", "jaxlib", "numpy", "scipy", "torch", "builtins", "funcnn"}
_MOST_OPERATIONS = 2000
_REDUCTIONS = {"add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min"}
_ADDED = {"add": "add", "multiply": "multiply", "maximum": "max", "minimum": "min"}


class _NotRecordedError(Exception):
    """The loss does what isn't recorded."""


def record_numpy(loss: Callable[..., Any], params: PyTree, arguments: Sequence[Any]) -> Program | None:
    """Return the program of a loss in NumPy at one point, or ``None`` where its operations can't be recorded.

    Args:
        loss: a function of ``(params, *arguments)``.
        params, arguments: trees of arrays. They are copied.
    """
    leaves, structure = jax.tree.flatten(params)

    def run(traced):
        recording = _Recording()

        def record(value, other=None):
            if not isinstance(value, np.ndarray | np.generic | jax.Array) or value.dtype.kind not in "biufc":
                return value
            return Recorded(np.array(value), jnp.asarray(value) if other is None else other, recording)

        own = jax.tree.unflatten(structure, [record(leaf, other) for leaf, other in zip(leaves, traced, strict=True)])
        result = _Rebuilt(recording).function(loss)(own, *jax.tree.map(record, tuple(arguments)))
        if not isinstance(result, Recorded):
            result = next(number for number in reversed(recording.numbers) if float(number.value) == float(result))
        return jnp.reshape(result.traced, ())

    try:
        jaxpr, shape = jax.make_jaxpr(run, return_shape=True)(leaves)
    except Exception:  # whatever the loss or JAX raises at what isn't an array
        return None
    return Program(jaxpr, jax.tree.structure(shape))


class _Recording:
    """What the arrays of a recording share: those that were converted to Python numbers, and how much was done."""

    def __init__(self):
        self.numbers: list[Recorded] = []
        self._operations = 0

    def count(self) -> None:
        """Count an operation, and raise where a loss has too many for a search of causes."""
        self._operations += 1
        if self._operations > _MOST_OPERATIONS:
            raise _NotRecordedError("the loss has too many operations")


class Recorded:
    """An array with its value in NumPy and the same as JAX traces it.

    Attributes:
        value: the array in NumPy.
        traced: the same in JAX.
        recording: what all arrays of a recording share.
        parent: the array of which this one is a view, and the index; ``None`` if it is none.
        is_assigned: whether it was changed in place.
    """

    def __init__(self, value: Any, traced: Any, recording: _Recording, parent: tuple | None = None):
        self.value, self.traced, self.recording, self.parent = np.asarray(value), traced, recording, parent
        self.is_assigned = False

    @property  # type: ignore[misc]
    def __class__(self):
        """NumPy's array, for code that looks at what it is given."""
        return np.ndarray

    def __array_ufunc__(self, ufunc, method, *inputs, **settings):
        """Apply one of NumPy's elementwise functions."""
        name = ufunc.__name__
        if method == "__call__":
            return self._call(ufunc, _jax_function(ufunc), inputs, settings)
        if method == "reduce":
            settings.setdefault("axis", 0)
            return self._call(ufunc.reduce, getattr(jnp, _REDUCTIONS[name]), inputs, settings)
        if method == "at" and isinstance(inputs[0], Recorded):
            array, index, *rest = inputs
            ufunc.at(array.value, _values(index), *_values(rest))
            change = getattr(array.traced.at[_index(index)], _ADDED[name])
            array._become(change(*map(_traced, rest)))
            return None
        raise _NotRecordedError(f"{name}.{method}")

    def __array_function__(self, function, kinds, inputs, settings):
        """Apply one of NumPy's other functions."""
        return self._call(function, _jax_function(function), inputs, settings)

    def __array__(self, *_args, **_settings) -> NoReturn:
        """Raise: what is converted to an array of NumPy's is lost to the program."""
        raise _NotRecordedError("an array is converted")

    def _call(self, function, other, inputs, settings):
        self.recording.count()
        out = settings.pop("out", None)
        out = out[0] if isinstance(out, tuple) else out
        value = function(*_values(inputs), **_values(settings))
        try:
            traced = other(*_traced(tuple(inputs)), **_traced(settings))
        except Exception:
            if any(np.asarray(leaf).dtype.kind in "fc" for leaf in jax.tree.leaves(value)):
                raise
            traced = jax.tree.map(np.copy, value)  # counts, orders and choices are those of the point
        if out is None:
            return jax.tree.map(self._record, value, traced)
        if not isinstance(out, Recorded):
            raise _NotRecordedError("the result is written into an array of NumPy's")
        out.value[...] = value
        out._become(traced)
        return out

    def _record(self, value, traced):
        is_array = isinstance(value, np.ndarray | np.generic)
        return Recorded(value, jnp.asarray(traced), self.recording) if is_array else value

    def _become(self, traced):
        """Take another traced value, the one in NumPy being changed already, and pass it to what this is a view of."""
        self.traced = jnp.broadcast_to(traced, self.value.shape).astype(self.value.dtype)
        self.is_assigned = True
        if self.parent is not None:
            whole, index = self.parent
            whole._become(whole.traced.at[_index(index)].set(self.traced))

    def __getattr__(self, name):
        """Return an attribute of the array, or a method that is recorded."""
        if name.startswith("__array_"):  # with these NumPy converts an array, and doesn't ask ``__array__``
            raise AttributeError(name)
        found = getattr(self.value, name)
        if not callable(found):
            is_array = isinstance(found, np.ndarray)
            return Recorded(found, getattr(self.traced, name), self.recording) if is_array else found
        if name in ("fill", "sort", "partition", "put", "resize", "setfield", "itemset", "tolist"):
            raise _NotRecordedError(name)
        if name == "item":
            return lambda *index: self[index].__float__() if index else self.__float__()

        def method(*inputs, **settings):
            return self._call(found, getattr(self.traced, name), inputs, settings)

        return method

    def __getitem__(self, index):
        """Return a part: a view of this array where NumPy gives one."""
        self.recording.count()
        value = self.value[_values(index)]
        is_view = isinstance(value, np.ndarray) and np.shares_memory(value, self.value)
        return Recorded(value, self.traced[_index(index)], self.recording, (self, index) if is_view else None)

    def __setitem__(self, index, new):
        """Change a part in place."""
        if isinstance(new, Recorded) and new.is_assigned and new.parent is not None and new.parent[0] is self:
            return  # the end of ``array[index] += …``, which has changed the view
        self.value[_values(index)] = _values(new)
        new, place = _traced(new), _index(index)
        is_mask = isinstance(place, np.ndarray) and place.dtype == bool and place.shape == self.value.shape
        if is_mask and np.ndim(new) == 0:
            self._become(jnp.where(place, new, self.traced))
        else:
            self._become(self.traced.at[place].set(new))

    def __iter__(self):
        """Iterate over the first axis."""
        return (self[number] for number in range(len(self.value)))

    def __len__(self):
        """Return the length of the first axis."""
        return len(self.value)

    def __bool__(self):
        """Return the truth at this point."""
        return bool(self.value)

    def __index__(self):
        """Return the integer at this point."""
        return operator.index(self.value)

    def __int__(self):
        """Return the integer at this point."""
        return int(self.value)

    def __float__(self):
        """Return the number at this point, and keep where it comes from."""
        self.recording.numbers.append(self)
        return float(self.value)

    def __hash__(self):
        """Return the hash of the number, as for the key of a dictionary."""
        return hash(self.value.item())


def _values(tree):
    """Return NumPy's values in nested tuples, lists and dictionaries."""
    return _map(lambda leaf: leaf.value, tree)


def _traced(tree):
    """Return the traced values, likewise."""
    return _map(lambda leaf: leaf.traced, tree)


def _map(function, tree):
    if isinstance(tree, Recorded):
        return function(tree)
    if type(tree) in (tuple, list):
        return type(tree)(_map(function, part) for part in tree)
    return {name: _map(function, part) for name, part in tree.items()} if type(tree) is dict else tree


def _index(index):
    """Return an index for a traced array: a mask as NumPy has it, whole numbers as JAX traces them."""
    if isinstance(index, slice):
        return slice(*(_values(bound) for bound in (index.start, index.stop, index.step)))
    if isinstance(index, Recorded):
        return index.value if index.value.dtype == bool else index.traced
    return tuple(map(_index, index)) if isinstance(index, tuple) else index


def _jax_function(function):
    """Return JAX's function of the same name and module."""
    module = (getattr(function, "__module__", "") or "").split(".")
    name = function.__name__
    places = [jnp, jax.scipy.special, jax.nn]
    if len(module) > 1 and module[0] == "numpy" and hasattr(jnp, module[1]):
        places.insert(0, getattr(jnp, module[1]))
    for place in places:
        if hasattr(place, name):
            return getattr(place, name)
    raise _NotRecordedError(name)


class _Rebuilt:
    """Functions whose NumPy makes arrays that record."""

    def __init__(self, recording: _Recording):
        self._shared = recording
        self._functions: dict[int, types.FunctionType] = {}
        self._globals: dict[int, dict[str, Any]] = {}
        self._modules: dict[int, _Module] = {}

    def function(self, function: Any) -> Any:
        """Return a Python function with its NumPy, its closure and the functions that it calls likewise."""
        if not isinstance(function, types.FunctionType):
            return function
        if id(function) in self._functions:
            return self._functions[id(function)]
        cells = tuple(types.CellType() for _ in function.__closure__ or ())
        new = types.FunctionType(
            function.__code__, self._copied_globals(function), function.__name__, function.__defaults__, cells or None
        )
        new.__kwdefaults__ = function.__kwdefaults__
        self._functions[id(function)] = new
        for cell, old in zip(cells, function.__closure__ or (), strict=True):
            cell.cell_contents = self._replaced(old.cell_contents)
        return new

    def _copied_globals(self, function) -> dict:
        own = function.__globals__
        if str(own.get("__name__")).split(".")[0] in _KEPT:
            return own
        if id(own) not in self._globals:
            self._globals[id(own)] = copied = dict(own)
            copied.update({name: self._replaced(value) for name, value in own.items()})
        return self._globals[id(own)]

    def _replaced(self, value):
        root = (getattr(value, "__module__", None) or getattr(value, "__name__", None) or "").split(".")[0]
        if isinstance(value, types.ModuleType):
            return self._module(value) if root in ("numpy", "scipy") else value
        if root in ("numpy", "scipy") and _is_function(value):
            return self._recording(value)
        return self.function(value)

    def _module(self, module):
        if id(module) not in self._modules:
            self._modules[id(module)] = _Module(module, self)
        return self._modules[id(module)]

    def attribute(self, module: types.ModuleType, name: str) -> Any:
        """Return a name of NumPy's."""
        value = getattr(module, name)
        return value if name == "random" else self._replaced(value)

    def _recording(self, function):
        """Return a function of NumPy's that takes and returns arrays that record."""

        def call(*inputs, **settings):
            known = [leaf for leaf in _leaves((inputs, settings)) if isinstance(leaf, Recorded)]
            if function in (np.array, np.asarray, np.ascontiguousarray, np.asanyarray) and known:
                return self._array(inputs[0], is_copy=function is np.array)
            if known:
                return known[0]._call(function, _jax_function(function), inputs, settings)
            made = function(*inputs, **settings)
            is_floating = isinstance(made, np.ndarray) and made.dtype.kind == "f"
            # JAX may share the memory of what it is given, and this array is changed in place.
            return Recorded(made, jnp.asarray(np.nan_to_num(made)), self._shared) if is_floating else made

        return call

    def _array(self, given, *, is_copy):
        if isinstance(given, Recorded):
            return Recorded(given.value.copy(), given.traced, self._shared) if is_copy else given
        parts = [part if isinstance(part, Recorded) else self._array(part, is_copy=False) for part in given]
        return Recorded(
            np.stack([part.value for part in parts]), jnp.stack([part.traced for part in parts]), self._shared
        )


class _Module:
    """A module of NumPy's whose functions take and return arrays that record."""

    def __init__(self, module, rebuilt: _Rebuilt):
        self._wrapped, self._rebuilt = module, rebuilt

    def __getattr__(self, name):
        return self._rebuilt.attribute(self._wrapped, name)


def _leaves(tree):
    if type(tree) in (tuple, list):
        return [leaf for part in tree for leaf in _leaves(part)]
    return [leaf for part in tree.values() for leaf in _leaves(part)] if type(tree) is dict else [tree]


def _is_function(value) -> bool:
    return callable(value) and not isinstance(value, type | np.ufunc)


def _binary(ufunc, *, is_reversed=False):
    def method(self, other):
        inputs = (other, self) if is_reversed else (self, other)
        return self._call(ufunc, _jax_function(ufunc), inputs, {})

    return method


def _in_place(ufunc):
    def method(self, other):
        out = {"out": self} if self.value.ndim else {}  # a number is another number then, and not changed
        return self._call(ufunc, _jax_function(ufunc), (self, other), out)

    return method


def _unary(ufunc):
    return lambda self: self._call(ufunc, _jax_function(ufunc), (self,), {})


for _name, _ufunc in {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "pow": np.power,
    "matmul": np.matmul, "floordiv": np.floor_divide, "mod": np.remainder, "and": np.bitwise_and,
    "or": np.bitwise_or,
}.items():  # fmt: skip
    setattr(Recorded, f"__{_name}__", _binary(_ufunc))
    setattr(Recorded, f"__r{_name}__", _binary(_ufunc, is_reversed=True))
    setattr(Recorded, f"__i{_name}__", _in_place(_ufunc))
for _name, _ufunc in {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
}.items():  # fmt: skip
    setattr(Recorded, f"__{_name}__", _binary(_ufunc))
for _name, _ufunc in {"neg": np.negative, "abs": np.absolute, "invert": np.invert, "pos": np.positive}.items():
    setattr(Recorded, f"__{_name}__", _unary(_ufunc))
