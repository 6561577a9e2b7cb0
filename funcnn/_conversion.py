"""Conversion of what holds numbers to NumPy arrays: data frames, arrays of objects, masked arrays, other byte orders.

Nothing is guessed: words, dates and gaps are errors that name the column or the index.
"""

from typing import Any

import numpy as np


def plain_array(name: str, value: Any) -> np.ndarray:
    """Return a value as a NumPy array of numbers.

    Args:
        name: of the argument, for errors.
        value: an array, a data frame or a series, a nested list, a tensor.

    Raises:
        TypeError: it holds words, dates or other objects, or is a sparse matrix.
        ValueError: it has gaps, or rows of different lengths.

    Example:
        >>> plain_array("x", np.array([1, 2.5, True], object))
        array([1. , 2.5, 1. ])
    """
    for method in ("toarray", "todense"):
        if hasattr(value, method) and not isinstance(value, np.ndarray):
            raise TypeError(
                f"{name}: expected a dense array, got a sparse one of type {type(value).__name__}. "
                f"Pass its .{method}(), or fewer columns where that is too large."
            )
    if isinstance(value, np.ma.MaskedArray):
        _check_no_gaps(name, np.ma.getmaskarray(value), None, "x.filled(x.mean(axis=0))")
        value = value.data
    try:
        array = np.asarray(value)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name}: expected an array of numbers, got a {type(value).__name__} that NumPy cannot convert: {error} "
            "Give rows of equal length, without gradients attached."
        ) from error
    columns = column_names(value)
    if array.dtype.kind == "O":
        array = _from_objects(name, value, array, columns)
    if array.dtype.kind in "USMm" or array.dtype.names is not None:
        raise TypeError(_wrong_kind(name, value, array.ravel()[:1].tolist(), array.dtype, array.ndim))
    if array.dtype == np.longdouble:
        array = array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def column_names(value: Any) -> list[str] | None:
    """Return the names of a data frame's columns, or of a series; ``None`` for arrays."""
    if hasattr(value, "columns"):
        return [str(column) for column in value.columns]
    return None


def _from_objects(name: str, value: Any, array: np.ndarray, columns: list[str] | None) -> np.ndarray:
    """Return an array of Python's or pandas' numbers in the narrowest of bool, int64, float64 and complex128."""
    if not array.ndim:
        raise TypeError(
            f"{name}: expected an array of numbers, got {type(value).__name__} of dtype {array.dtype}. "
            "Pass an array, a data frame or a nested list."
        )
    kinds = np.frompyfunc(_kind, 1, 1)(array).astype("U1")
    wrong = np.argwhere(kinds == "?")
    if len(wrong):
        entry = array[tuple(wrong[0])]
        raise TypeError(_wrong_kind(name, value, [entry], array.dtype, array.ndim, _place(wrong[0], columns)))
    example = "x.fillna(x.mean())" if hasattr(value, "fillna") else "the mean of the other entries"
    _check_no_gaps(name, kinds == "-", columns, example)
    widest = max(np.unique(kinds), key="bifc".index, default="f")
    return array.astype({"b": np.bool_, "i": np.int64, "f": np.float64, "c": np.complex128}[widest])


def _kind(entry: Any) -> str:
    """Return the kind of an entry: b, i, f, c as NumPy's kinds, ``-`` for a gap, ``?`` for anything else."""
    if entry is None or type(entry).__name__ in ("NAType", "NaTType"):
        return "-"
    for kind, types in (("b", (bool, np.bool_)), ("i", (int, np.integer)), ("f", (float, np.floating))):
        if isinstance(entry, types):
            return kind
    return "c" if isinstance(entry, complex | np.complexfloating) else "?"


def _check_no_gaps(name: str, gaps: np.ndarray, columns: list[str] | None, advice: str) -> None:
    if gaps.any():
        raise ValueError(
            f"{name}: expected a number for every entry, got a gap {_place(np.argwhere(gaps)[0], columns)} "
            f"({gaps.sum()} in all). Fill them before training, for example by {advice}."
        )


def _place(index: np.ndarray, columns: list[str] | None) -> str:
    if columns is not None and len(index) == 2:
        return f"in column {columns[index[1]]!r}, row {index[0]}"
    return f"at index {tuple(map(int, index))}"


def _wrong_kind(name: str, value: Any, entries: list, dtype: Any, axes: int, place: str = "") -> str:
    """Return the message on words, dates and objects."""
    found = f": {entries[0]!r}{' ' * bool(place)}{place}" if entries else ""
    came = f"{type(value).__name__} of dtype {dtype}"
    if axes == 1 and entries and isinstance(entries[0], str | bytes):
        advice = "Number the labels first: classes, y = np.unique(y, return_inverse=True)."
    elif entries and isinstance(entries[0], str | bytes):
        advice = "Encode words as numbers first, for example with pandas.get_dummies, or leave the column out."
    else:
        advice = "Encode words and dates as numbers first, or leave them out."
    return f"{name}: expected an array of numbers, got {came}{found}. {advice}"
