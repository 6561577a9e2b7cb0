"""Conversion of what holds numbers to NumPy arrays: data frames, arrays of objects, masked arrays, other byte orders.

Nothing is guessed: words, dates and gaps are errors that name the column or the index.
"""

import contextlib
import decimal
import numbers
from typing import Any

import jax
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
        _check_no_gaps(name, np.ma.getmaskarray(value), None, _advice_on_masked(name, value.ndim))
        value = value.data
    array, columns = _as_numpy(name, value), column_names(value)
    if array.dtype.kind == "O":
        array = _from_objects(name, value, array, columns)
    if array.dtype.kind in "USMm" or array.dtype.names is not None:
        raise TypeError(_wrong_kind(name, value, array.ravel()[:1].tolist(), array))
    if array.dtype == np.longdouble:
        array = array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _as_numpy(name: str, value: Any) -> np.ndarray:
    """Return a value as NumPy converts it; a tensor by the protocols of PyTorch and of DLPack."""
    if callable(getattr(value, "detach", None)) and callable(getattr(value, "cpu", None)):
        value = value.detach().cpu()
    try:
        return np.asarray(value)
    except (ValueError, RuntimeError, TypeError) as error:
        if hasattr(value, "__dlpack__"):  # NumPy has no bfloat16.
            with contextlib.suppress(Exception):
                return np.asarray(jax.dlpack.from_dlpack(value))
        raise (TypeError if isinstance(error, TypeError) else ValueError)(
            f"{name}: expected an array of numbers, got a {type(value).__name__} that NumPy cannot convert: {error} "
            "Give rows of equal length, in the memory of the host."
        ) from error


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
    _check_no_gaps(name, kinds == "-", columns, _advice_on_gaps(name, value, array, kinds))
    wrong = np.argwhere(kinds == "?")
    if len(wrong):
        entries = array[kinds == "?"]
        raise TypeError(_wrong_kind(name, value, entries.tolist(), array, _place(wrong[0], columns)))
    widest = max(np.unique(kinds), key="bifc".index, default="f")
    try:
        return array.astype({"b": np.bool_, "i": np.int64, "f": np.float64, "c": np.complex128}[widest])
    except OverflowError as error:
        raise ValueError(
            f"{name}: expected integers of at most 64 bits, got larger ones. Convert them to floats, "
            f"np.asarray({_variable(name)}, float), or renumber them."
        ) from error


def _kind(entry: Any) -> str:
    """Return the kind of an entry: b, i, f, c as NumPy's kinds, ``-`` for a gap, ``?`` for anything else."""
    if entry is None or type(entry).__name__ in ("NAType", "NaTType"):
        return "-"
    for kind, types in (("b", bool | np.bool_), ("i", numbers.Integral), ("f", numbers.Real | decimal.Decimal)):
        if isinstance(entry, types):
            return kind
    if isinstance(entry, numbers.Complex):
        return "c"
    if getattr(entry, "shape", None) == () and not isinstance(entry, np.generic):  # an array of one number
        return {"b": "b", "i": "i", "u": "i", "f": "f", "c": "c"}.get(np.asarray(entry).dtype.kind, "?")
    return "?"


def _check_no_gaps(name: str, gaps: np.ndarray, columns: list[str] | None, advice: str) -> None:
    if gaps.any():
        raise ValueError(
            f"{name}: expected a number for every entry, got a gap {_place(np.argwhere(gaps)[0], columns)} "
            f"({gaps.sum()} in all). {advice}"
        )


def _place(index: np.ndarray, columns: list[str] | None) -> str:
    if columns is not None and len(index) == 2:
        return f"in column {columns[index[1]]!r}, row {index[0]}"
    return f"at index {tuple(map(int, index))}"


def _variable(name: str) -> str:
    """Return the argument's variable in an advice: y for targets, x for anything else."""
    return "y" if name.endswith(": y") else "x"


def _advice_on_masked(name: str, axes: int) -> str:
    """Return code without the gaps of a masked array."""
    if axes == 2 and _variable(name) == "x":
        return "Fill them before training, for example by x = x.filled(x.mean(axis=0))."
    return _drop(f"~np.ma.getmaskarray({_variable(name)})")


def _advice_on_gaps(name: str, value: Any, array: np.ndarray, kinds: np.ndarray) -> str:
    """Return code without the gaps of a data frame or of an array of objects."""
    variable = _variable(name)
    if hasattr(value, "fillna") and array.ndim == 2 and not (kinds == "?").any():
        return f"Fill them before training, for example by {variable} = {variable}.astype(float); " + (
            f"{variable} = {variable}.fillna({variable}.mean())."
        )
    if (kinds == "-").sum() == sum(entry is None for entry in array.ravel()):
        return _drop(f"np.not_equal(np.asarray({variable}, object), None).astype(bool)")
    return _drop(f"pandas.notna(np.asarray({variable}, object))")


def _drop(kept: str) -> str:
    """Return code that drops the samples of which an entry isn't kept."""
    rows = f"{kept}.reshape(len(x), -1).all(axis=1)"
    return f"Drop such samples: keep = {rows}; x, y = np.asarray(x)[keep], np.asarray(y)[keep]."


def _wrong_kind(name: str, value: Any, entries: list, array: np.ndarray, place: str = "") -> str:
    """Return the message on words, dates and objects, with code that makes numbers of them."""
    found = f": {entries[0]!r:.200}{' ' * bool(place)}{place}" if entries else ""
    came = f"{type(value).__name__} of dtype {array.dtype}"
    return f"{name}: expected an array of numbers, got {came}{found}. {_advice_on(name, value, entries, array, place)}"


def _advice_on(name: str, value: Any, entries: list, array: np.ndarray, place: str) -> str:
    """Return advice on how to convert the entries to numbers."""
    variable, entry = _variable(name), entries[0] if entries else None
    if array.dtype.names is not None:
        return f"Pass its fields as columns: numpy.lib.recfunctions.structured_to_unstructured({variable})."
    if isinstance(entry, str | bytes):
        if all(map(_is_number, array.ravel() if array.dtype.kind in "US" else entries)):
            return f"These are numbers as text: {variable} = np.asarray({variable}, float)."
        if not array.ndim:
            return "Pass the array itself, not its name; a file has to be read first, as by np.loadtxt."
        if array.ndim == 1:
            return f"Number the labels first: classes, {variable} = np.unique({variable}, return_inverse=True)."
        frame = variable if hasattr(value, "columns") else f"pandas.DataFrame({variable}).infer_objects()"
        return f"Encode words as numbers first, {variable} = pandas.get_dummies({frame}), or leave the column out."
    if array.dtype.kind == "m":
        return f"Divide them by a unit: {variable} = {variable} / np.timedelta64(1, 's')."
    if array.dtype.kind == "M" or hasattr(entry, "isoformat"):
        column = place.partition("in column ")[2].rpartition(", row")[0]
        dates = f"{variable}[{column}]" if column else variable
        return f"Count days from the first date: {dates} = ({dates} - {dates}.min()) / np.timedelta64(1, 'D')."
    if hasattr(entry, "shape") and len({np.shape(each) for each in entries}) == 1:
        return f"Stack the arrays: {variable} = np.stack(list({variable}))."
    return "Give numbers in their place, or leave them out."


def _is_number(entry: Any) -> bool:
    try:
        float(entry)
    except ValueError:
        return False
    return True
