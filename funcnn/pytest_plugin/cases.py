"""The cases of a sweep: other shapes, dtypes and options than those of a call, made from its arguments."""

import contextlib
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np

_MAX_AXES = 3
_MAX_BROADCASTS = 2
_LEAST = 0.9  # values are moved toward 0 by at most a tenth, so that they stay within a domain


class Case(NamedTuple):
    """A call of the checked function.

    Fields:
        name: what differs from the given arguments.
        args: the arguments.
        options: the keyword arguments.
        cotangent: the dtype to which the output is cast, so that the cotangent comes in it; empty for the output's own.
        sizes: the given sizes of axes with those of the case, for a case that can be made smaller.
        is_strided: whether an array isn't contiguous, so that it must reach the function as it is.
        is_broadcast: whether an array is broadcast that isn't in the given call, so that the case counts only if the
            function broadcasts as the reference does.
        is_optional: whether the axes are others than in the given call, so that an error of the backward pass's own is
            a rejection.
    """

    name: str
    args: tuple
    options: dict[str, Any]
    cotangent: str = ""
    sizes: tuple[tuple[int, int], ...] = ()
    is_strided: bool = False
    is_broadcast: bool = False
    is_optional: bool = False

    @property
    def size(self) -> int:
        """The number of entries of all arrays."""
        return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(self.args))

    @property
    def has_axis_of_one(self) -> bool:
        """Whether an axis is 1 in the place of a longer one."""
        return any(new == 1 for _, new in self.sizes)

    @property
    def shapes(self) -> str:
        """The shapes of the arrays in words."""
        shapes = [str(tuple(np.shape(leaf))) for leaf in jax.tree.leaves(self.args) if is_array(leaf)]
        return ", ".join(shapes)

    @property
    def dtypes(self) -> str:
        """The floating dtypes in words."""
        dtypes = [str(leaf.dtype) for leaf in jax.tree.leaves(self.args) if is_floating(leaf)]
        return ", ".join(dict.fromkeys(dtypes))

    def __str__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        beside = f", cotangent in {self.cotangent}" if self.cotangent else ""
        return f"{self.name}: {self.dtypes} {self.shapes}{options}{beside}"


class Sweep(NamedTuple):
    """What ``@pytest.mark.gradcheck_sweep`` gives; ``None`` for what is derived from the arguments."""

    shapes: Sequence[Any] | None = None
    dtypes: Sequence[Any] | None = None
    options: Mapping[str, Sequence[Any]] | None = None


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array of numbers; a random key isn't."""
    is_key = getattr(leaf, "dtype", None) == np.uint32 or not hasattr(leaf, "dtype")
    return isinstance(leaf, jax.Array | np.ndarray) and not is_key and not jax.dtypes.issubdtype(
        leaf.dtype, jax.dtypes.extended
    )  # fmt: skip


def is_floating(leaf: Any) -> bool:
    """Whether a leaf is an array of floating or complex numbers."""
    return is_array(leaf) and bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def option_values(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the values of each option: both of a bool, all of a ``Literal``, and the given one of any other.

    Example:
        >>> option_values(lambda x, causal: x, {"causal": True, "scale": 2.0})
        {'causal': [True, False], 'scale': [2.0]}
    """
    parameters: Mapping[str, inspect.Parameter] = {}
    with contextlib.suppress(TypeError, ValueError):  # a function without a signature
        parameters = inspect.signature(function).parameters
    values = {}
    for name, given in options.items():
        annotation = getattr(parameters.get(name), "annotation", None)
        others = get_args(annotation) if get_origin(annotation) is Literal else ()
        others = (not given,) if isinstance(given, bool) else others
        values[name] = [given, *(other for other in others if other != given)]
    return values


def cases_of(sweep: Sweep, args: tuple, options: dict[str, Any], values: dict[str, list[Any]]) -> list[Case]:
    """Return the cases of a sweep beside the given call: those of the marker, or the default ones.

    Args:
        sweep: of the marker; where it gives anything, the cases are all combinations of what it gives.
        args: the given arguments.
        options: the given keyword arguments.
        values: the values of each option.
    """
    if sweep.shapes is None and sweep.dtypes is None and sweep.options is None:
        return list(_distinct(args, _default_cases(args, options, values)))
    chosen = {**{name: [given] for name, given in options.items()}, **(sweep.options or {})}
    cases = []
    for shape, dtype, *picked in itertools.product(sweep.shapes or [None], sweep.dtypes or [None], *chosen.values()):
        case_args = args if shape is None else reshaped(args, shape)
        case_args = case_args if dtype is None else with_dtype(case_args, dtype)
        settings = dict(zip(chosen, picked, strict=True))
        cases.append(Case("as marked", case_args, settings))
    return cases


def _default_cases(args: tuple, options: dict[str, Any], values: dict[str, list[Any]]) -> Iterator[Case]:
    sizes = axis_sizes(args)
    for name, change in (("one less", lambda n: n - 1), ("one more", lambda n: n + 1), ("prime sizes", _next_prime)):
        pairs = tuple((n, change(n)) for n in sizes)
        yield Case(f"{name} on every axis", resized(args, dict(pairs)), options, sizes=pairs)
    for n in sizes[:_MAX_AXES]:
        yield Case(f"an axis of 1 in the place of {n}", resized(args, {n: 1}), options, sizes=((n, 1),))
    first = next((leaf for leaf in jax.tree.leaves(args) if is_array(leaf) and np.ndim(leaf)), None)
    if first is not None:
        batch = first.shape[0]
        odd = batch + 1 if batch % 2 == 0 else batch + 2
        yield Case("an odd batch", resized(args, {batch: odd}), options, sizes=((batch, odd),))
        yield Case("one more leading axis", _with_leading_axis(args, batch), options, is_optional=True)
        yield Case("equal rows", _with_equal_rows(args), options)
    yield from _broadcasts(args, options)
    if any(isinstance(leaf, np.ndarray) and leaf.ndim > 1 for leaf in jax.tree.leaves(args)):
        yield Case("arrays that aren't contiguous", _in_other_order(args), options, is_strided=True)
    if any(is_floating(leaf) and leaf.dtype in (np.float32, np.float64) for leaf in jax.tree.leaves(args)):
        yield Case("bfloat16", with_dtype(args, jnp.bfloat16), options)
        yield Case("a cotangent of another dtype", args, options, cotangent="bfloat16")
    for name, given in values.items():
        for value in given[1:]:
            yield Case(f"{name}={value!r}", args, {**options, name: value})


def _distinct(args: tuple, cases: Iterator[Case]) -> Iterator[Case]:
    """Return the cases without those whose shapes an earlier case, or the given call, has."""
    seen = {(_key(args), False)}
    for case in cases:
        key = (_key(case.args), bool(case.cotangent or case.is_strided or case.name == "equal rows"))
        is_other = "=" in case.name or key[1]
        if is_other or key not in seen:
            seen.add(key)
            yield case


def _key(args: tuple) -> tuple:
    return tuple((np.shape(leaf), str(getattr(leaf, "dtype", ""))) for leaf in jax.tree.leaves(args))


def axis_sizes(args: tuple) -> list[int]:
    """Return the different sizes of axes, in the order of the arguments; those of 1 are left out.

    Axes of equal sizes count as the same axis, such as the features of a weight and of its input.
    """
    sizes = [n for leaf in jax.tree.leaves(args) if is_array(leaf) for n in leaf.shape if n > 1]
    return list(dict.fromkeys(sizes))


def resized(args: tuple, sizes: Mapping[int, int]) -> tuple:
    """Return the arguments with every axis of some size made another size, in all arrays together.

    Integers that may be places along an axis stay within it, such as labels among fewer classes.
    """
    random = np.random.default_rng(7)

    def change(leaf):
        if not is_array(leaf) or not np.ndim(leaf):
            return leaf
        shape = tuple(sizes.get(n, n) for n in leaf.shape)
        changed = leaf if shape == leaf.shape else filled_from(leaf, shape, random)
        if not np.size(leaf) or not jnp.issubdtype(leaf.dtype, jnp.integer):
            return changed
        bound = min((new for old, new in sizes.items() if new < old and np.max(leaf) < old), default=0)
        within = np.asarray(changed)
        within = np.where(within < 0, within, within % bound).astype(leaf.dtype) if bound else within
        return within if isinstance(leaf, np.ndarray) else jnp.asarray(within)

    return jax.tree.map(change, args)


def reshaped(args: tuple, shape: Any) -> tuple:
    """Return the arguments in the shapes of a marker: one for the first array, or one for each floating array.

    The other arrays follow the first one's axes of the same size.
    """
    leaves, structure = jax.tree.flatten(args)
    places = [number for number, leaf in enumerate(leaves) if is_floating(leaf)]
    random = np.random.default_rng(7)
    if shape and all(isinstance(part, tuple | list) for part in shape):
        if len(shape) != len(places):
            raise ValueError(
                f"gradcheck_sweep(shapes): expected {len(places)} shapes, one for each floating array, got {shape!r}. "
                "Give as many, or one shape for the first array alone, as in shapes=[(4, 8)]."
            )
        for place, one in zip(places, shape, strict=True):
            leaves[place] = filled_from(leaves[place], tuple(one), random)
        return jax.tree.unflatten(structure, leaves)
    old, new = leaves[places[0]].shape, tuple(shape)
    pairs = dict(zip(old[::-1], new[::-1], strict=False))
    others = jax.tree.leaves(resized(args, pairs))
    others[places[0]] = filled_from(leaves[places[0]], new, random)
    return jax.tree.unflatten(structure, others)


def filled_from(leaf: Any, shape: tuple[int, ...], random: np.random.Generator) -> Any:
    """Return an array of another shape with values like those of ``leaf``, of which each is moved a little toward 0."""
    known = np.asarray(leaf).ravel()
    size = math.prod(shape)
    if not known.size:
        return leaf
    if not is_floating(leaf):
        values = np.resize(known, size).reshape(shape)
    else:
        drawn = known[random.integers(0, known.size, size)] if size > known.size else known[:size]
        wide = drawn.astype(np.complex128 if np.iscomplexobj(drawn) else np.float64)
        values = (wide * random.uniform(_LEAST, 1, size)).reshape(shape).astype(leaf.dtype)
    return values if isinstance(leaf, np.ndarray) else jnp.asarray(values)


def with_dtype(args: tuple, dtype: Any) -> tuple:
    """Return the arguments with their floating arrays in another dtype."""

    def cast(leaf):
        if not is_floating(leaf) or jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            return leaf
        return jax.device_put(np.asarray(leaf).astype(jnp.dtype(dtype)))

    return jax.tree.map(cast, args)


def _with_leading_axis(args: tuple, batch: int) -> tuple:
    """Return the arguments with an axis of 2 before the batch, in each array that has the batch first."""
    random = np.random.default_rng(8)

    def lead(leaf):
        has_batch = is_array(leaf) and np.ndim(leaf) and leaf.shape[0] == batch
        return filled_from(leaf, (2, *leaf.shape), random) if has_batch else leaf

    return jax.tree.map(lead, args)


def _with_equal_rows(args: tuple) -> tuple:
    """Return the arguments with the first floating array's rows broadcast from its first one."""
    leaves, structure = jax.tree.flatten(args)
    place = next((n for n, leaf in enumerate(leaves) if is_floating(leaf) and np.ndim(leaf) > 1), None)
    if place is not None:
        rows = np.broadcast_to(np.asarray(leaves[place])[:1], leaves[place].shape)
        leaves[place] = rows if isinstance(leaves[place], np.ndarray) else jnp.asarray(rows)
    return jax.tree.unflatten(structure, leaves)


def _broadcasts(args: tuple, options: dict[str, Any]) -> Iterator[Case]:
    """Return cases in which an axis of one further floating array is 1, so that it is broadcast.

    It is one of those with most axes. A weight of fewer axes has none that a function broadcasts.
    """
    leaves, structure = jax.tree.flatten(args)
    most = max((np.ndim(leaf) for leaf in leaves if is_floating(leaf)), default=0)
    places = [n for n, leaf in enumerate(leaves) if is_floating(leaf) and np.ndim(leaf) == most > 0]
    for place in places[1 : 1 + _MAX_BROADCASTS]:
        axis = next((axis for axis, n in enumerate(leaves[place].shape) if n > 1), None)
        if axis is not None:
            shape = tuple(1 if number == axis else n for number, n in enumerate(leaves[place].shape))
            moved = list(leaves)
            moved[place] = filled_from(leaves[place], shape, np.random.default_rng(9))
            name = f"array {place} broadcast along its axis {axis}"
            yield Case(name, jax.tree.unflatten(structure, moved), options, is_broadcast=True, is_optional=True)


def _in_other_order(args: tuple) -> tuple:
    """Return the arguments with NumPy's arrays in Fortran's order, which isn't contiguous in C's."""
    return jax.tree.map(lambda leaf: np.asfortranarray(leaf) if isinstance(leaf, np.ndarray) else leaf, args)


def _next_prime(n: int) -> int:
    """Return the smallest prime above n + 1."""
    return next(p for p in itertools.count(n + 2) if all(p % d for d in range(2, math.isqrt(p) + 1)))
