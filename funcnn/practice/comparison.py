"""The comparison of an answer's values with the right ones, and the causes that the values alone show."""

import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from funcnn.practice.process import Array, Unreadable

LOW_PRECISION = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}


class Difference(NamedTuple):
    """Where an answer differs: the place with both values, a cause and a sentence; the number of the output."""

    cause: str
    sentence: str
    place: str = ""
    output: int | None = None


def flatten(value: Any) -> list[Any]:
    """Return the leaves of nested tuples in order."""
    if isinstance(value, (tuple, list)) and not isinstance(value, (Array, Unreadable)):
        return [leaf for entry in value for leaf in flatten(entry)]
    return [value]


def split(answer: Any, right: Any) -> Any:
    """Return the outputs of an answer that arrived as one array, as a list of numbers does, as a tuple."""
    count = len(right) if isinstance(right, tuple) else 1
    if count > 1 and isinstance(answer, Array) and answer.values.ndim and len(answer.values) == count:
        return tuple(Array(np.asarray(values), answer.dtype) for values in answer.values)
    return answer


def values_of(leaf: Any) -> np.ndarray:
    """Return a leaf as an array in float64; words become NaN."""
    if isinstance(leaf, Array):
        return leaf.values
    return np.asarray(leaf if isinstance(leaf, (int, float, np.ndarray, np.generic)) else math.nan, dtype=np.float64)


def is_right(leaf: Any, right: Any, tolerance: float) -> bool:
    """Return whether a value is the right one, up to rounding in its own dtype."""
    if isinstance(right, (str, bool)):
        return type(leaf) is type(right) and str(leaf).strip().lower() == str(right).strip().lower()
    if isinstance(leaf, (str, Unreadable, dict, bool)) or leaf is None:
        return False
    mine, reference = values_of(leaf), np.asarray(right, dtype=np.float64)
    if mine.shape != reference.shape:
        return False
    tolerance = max(tolerance, LOW_PRECISION.get(leaf.dtype, 0.0))
    scale = float(np.max(np.abs(reference), initial=0.0, where=np.isfinite(reference)))
    return bool(np.allclose(mine, reference, rtol=tolerance, atol=tolerance * min(scale, 1.0) + 1e-12, equal_nan=True))


def all_right(answers: list[Any], rights: list[Any], tolerance: float) -> bool:
    """Return whether every output is right."""
    mine, reference = flatten(tuple(answers)), flatten(tuple(rights))
    return len(mine) == len(reference) and all(
        is_right(leaf, right, tolerance) for leaf, right in zip(mine, reference, strict=True)
    )


def find_difference(
    answers: list[Any], rights: list[Any], inputs: list[tuple], names: tuple[str, ...], signature: str, tolerance: float
) -> Difference:
    """Return the first output that differs, with the cause that its values show over all inputs.

    Args:
        answers, rights, inputs: a list each, an entry for each call.
        names: of the outputs.
        signature: the function's, for the names of its arguments.
        tolerance: the relative difference that is right.
    """
    for answer, right, arguments in zip(answers, rights, inputs, strict=True):
        if (problem := _structure(answer, right, names)) is not None:
            return problem._replace(place=shapes_given(arguments, signature))
    leaves = [flatten(answer) for answer in answers]
    reference = [flatten(right) for right in rights]
    wrong = [
        index
        for index in range(len(reference[0]))
        if not all(is_right(a[index], r[index], tolerance) for a, r in zip(leaves, reference, strict=True))
    ]
    index = wrong[0]
    name = names[index] if index < len(names) else f"output {index}"
    pairs = [(a[index], r[index]) for a, r in zip(leaves, reference, strict=True)]
    if isinstance(pairs[0][1], str):
        return Difference(
            "choice", f"{name}: {pairs[0][0]!r} isn't it. Compute both sides for a small case and compare."
        )
    arrays = [(values_of(leaf), np.asarray(right, dtype=np.float64)) for leaf, right in pairs]
    cause, sentence = _cause(arrays, name)
    for other, right in enumerate(reference[0]):
        alike = other != index and cause == "unknown" and np.shape(right) == arrays[0][0].shape
        if alike and all(is_right(a[index], r[other], tolerance) for a, r in zip(leaves, reference, strict=True)):
            cause, sentence = (
                "swapped",
                f"{name} has the values of another output: check the order of what you return.",
            )
    return Difference(cause, sentence, _place(arrays, inputs, name, signature, tolerance), index)


def _structure(answer: Any, right: Any, names: tuple[str, ...]) -> Difference | None:
    mine, reference = flatten(answer), flatten(right)
    if any(leaf is None for leaf in mine):
        return Difference(
            "missing", "The function returns None: is the return statement there, and the stub filled in?"
        )
    if len(mine) != len(reference):
        expected = f"{len(reference)} ({', '.join(names)})" if len(reference) > 1 else "one"
        return Difference("structure", f"Expected {expected} in what the function returns, got {len(mine)}.")
    for index, (leaf, value) in enumerate(zip(mine, reference, strict=True)):
        name = names[index] if index < len(names) else f"output {index}"
        if isinstance(value, (str, bool)):
            if type(leaf) is not type(value):
                return Difference("structure", f"{name}: expected {type(value).__name__}, got {_kind(leaf)}.")
            continue
        if isinstance(leaf, (str, dict, Unreadable, bool)):
            return Difference("structure", f"{name}: expected numbers, got {_kind(leaf)}.")
        shape, expected_shape = values_of(leaf).shape, np.shape(value)
        if shape != expected_shape:
            if _shapes(mine) != _shapes(reference) and sorted(_shapes(mine)) == sorted(_shapes(reference)):
                return Difference("swapped", f"The outputs are in another order: return ({', '.join(names)}).")
            turned = " The axes are exchanged." if shape == expected_shape[::-1] else ""
            rule = " A gradient has the shape of its variable." if name[0] == "d" else ""
            return Difference(
                "transposed" if turned else "shape",
                f"{name}: expected shape {expected_shape}, got {shape}.{turned}{rule}",
            )
    return None


def _shapes(leaves: list[Any]) -> list[tuple[int, ...]]:
    return [values_of(leaf).shape for leaf in leaves]


def _kind(leaf: Any) -> str:
    if isinstance(leaf, Array):
        return f"an array of shape {leaf.values.shape}" if leaf.values.ndim else "a number"
    return leaf.what if isinstance(leaf, Unreadable) else type(leaf).__name__


def _place(arrays: list[tuple[np.ndarray, np.ndarray]], inputs, name: str, signature: str, tolerance: float) -> str:
    """Return the first entry that differs, for the smallest input that shows one, with both values."""
    off = [~np.isclose(mine, right, rtol=tolerance, atol=1e-12, equal_nan=True) for mine, right in arrays]
    wrong = [number for number, entries in enumerate(off) if entries.any()]
    number = min(wrong, key=lambda number: sum(_sizes(inputs[number])))
    mine, right = arrays[number]
    where = tuple(int(position) for position in np.argwhere(off[number])[0])
    index = f"[{', '.join(map(str, where))}]" if where else ""
    given = _given(inputs[number], signature)
    return f"{given}{name}{index} is {mine[where]:.6g}; the right value is {right[where] + 0.0:.6g}."


def _sizes(arguments: tuple) -> list[int]:
    return [int(np.size(leaf)) for leaf in flatten(arguments)]


def _given(arguments: tuple, signature: str) -> str:
    """Return "For x = …, " where the arguments are short, their shapes where they are long."""
    if not arguments:
        return ""
    names = signature.split("(", 1)[1].rstrip(")").split(", ")
    if sum(_sizes(arguments)) <= 12:
        shown = (f"{name} = {_short(value)}" for name, value in zip(names, arguments, strict=True))
    else:
        shown = (
            f"{name} of shape {_shape(value)}" for name, value in zip(names, arguments, strict=True) if _shape(value)
        )
    return f"For {', '.join(shown)}: "


def shapes_given(arguments: tuple, signature: str) -> str:
    """Return "Given: x of shape …." for the arguments that have a shape."""
    if not arguments:
        return ""
    names = signature.split("(", 1)[1].rstrip(")").split(", ")
    shown = [
        f"{name} of shape{'s' if isinstance(value, tuple) else ''} {_shape(value)}"
        for name, value in zip(names, arguments, strict=True)
        if _shape(value)
    ]
    return f"Given: {', '.join(shown)}." if shown else ""


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(_short(entry) for entry in value)})"
    return np.array2string(np.asarray(value), precision=4, separator=", ").replace("\n", "")


def _shape(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(_shape(entry) for entry in value)})"
    return str(np.shape(value)) if np.ndim(value) else ""


def _cause(arrays: list[tuple[np.ndarray, np.ndarray]], name: str) -> tuple[str, str]:
    """Return the cause that the values show: the same one for every input."""
    if any(not np.isfinite(mine).all() and np.isfinite(right).all() for mine, right in arrays):
        return (
            "nonfinite",
            f"{name} has a NaN or an infinity where the right value is finite: which step overflows, or "
            f"divides by zero?",
        )
    if all(not mine.any() for mine, _ in arrays):
        return "zero", f"{name} is zero everywhere, and the right one isn't: which path to it is cut?"
    if (scaled := _scaled(arrays, name)) is not None:
        return scaled
    square = [(m, r) for m, r in arrays if m.ndim == 2 and m.shape[0] == m.shape[1] and m.shape[0] > 1]
    if square and all(np.allclose(mine.T, right, rtol=1e-5) for mine, right in square):
        return "transposed", f"{name} has the right entries with rows and columns exchanged."
    if all(np.allclose(np.sort(m, axis=None), np.sort(r, axis=None)) for m, r in arrays):
        return "transposed", f"{name} has the right values in another order: check the axes."
    wrong = [~np.isclose(mine, right, rtol=1e-5, atol=1e-12) for mine, right in arrays]
    right_inputs = sum(not off.any() for off in wrong)
    if right_inputs and right_inputs >= len(arrays) / 3:
        return (
            "corner_case",
            f"{name} is right for {right_inputs} of {len(arrays)} inputs: consider zeros, ties, large "
            f"values and a batch of one.",
        )
    share = np.mean(np.concatenate([off.ravel() for off in wrong]))
    if share < 0.4:
        return "element", f"{name} is right on most entries and wrong on a few: what is special about those?"
    return (
        "unknown",
        f"{name} differs on {share:.0%} of its entries. Work the example of the statement by hand and print each step.",
    )


def _scaled(arrays: list[tuple[np.ndarray, np.ndarray]], name: str) -> tuple[str, str] | None:
    """Return the cause of values that are a multiple of the right ones for every input, ``None`` where they aren't."""
    shown = [(_ratio(mine, right), right) for mine, right in arrays if right.any()]
    if not shown or any(ratio is None for ratio, _ in shown):
        return None
    ratios = np.array([ratio for ratio, _ in shown])
    if np.allclose(ratios, -1.0):
        return (
            "sign",
            f"{name} has the right size and the other sign on every entry: in which order is the difference taken?",
        )
    if np.allclose(ratios, ratios[0], rtol=1e-5):
        return (
            "scaled",
            f"{name} is exactly {_fraction(ratios[0])} times the right one on every entry: which constant factor does "
            "the chain rule bring?",
        )
    if all(right.size == 1 for _, right in shown):  # any two numbers have a ratio
        return None
    for count in (np.size, len, lambda right: np.shape(right)[-1]):
        if all(right.ndim for _, right in shown):
            counts = np.array([count(right) for _, right in shown])
            products, quotients = ratios * counts, ratios / counts
            if np.allclose(products, products[0], rtol=1e-5) or np.allclose(quotients, quotients[0], rtol=1e-5):
                factors = ", ".join(_fraction(ratio) for ratio in ratios[:3])
                return (
                    "scaled",
                    f"{name} is a multiple of the right one, and the factor changes with the shape of the input "
                    f"({factors}): over how many entries is the mean taken?",
                )
    if sum(right.size > 1 for _, right in shown) < 2:
        return None
    return (
        "normalized",
        f"{name} is a multiple of the right one, and the factor changes from input to input: is something normalized, "
        "or clipped?",
    )


def _ratio(mine: np.ndarray, right: np.ndarray) -> float | None:
    """Return the one factor between two arrays, ``None`` where there is none."""
    at = np.abs(right) > 1e-9 * np.max(np.abs(right), initial=0.0)
    ratios = mine[at] / right[at]
    same = np.allclose(mine, right * ratios[0], rtol=1e-5, atol=1e-12) if ratios.size else False
    return float(ratios[0]) if same else None


def _fraction(number: float) -> str:
    near = Fraction(number).limit_denominator(64)
    return str(near) if math.isclose(float(near), number, rel_tol=1e-5) else f"{number:.4g}"
