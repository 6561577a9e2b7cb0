"""The cases of a sweep: other shapes, dtypes and options than those of the call."""

import jax.numpy as jnp
import numpy as np
import pytest

from funcnn.pytest_plugin.cases import Sweep, axis_sizes, cases_of, reshaped, resized, with_dtype

X, S, LABELS = np.ones((4, 6), np.float32), np.ones(6, np.float32), np.arange(4)
DRAWN = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


def test_default_cases():
    cases = cases_of(Sweep(), (X, S), {"causal": True}, {"causal": [True, False]})
    shapes = {case.name: case.shapes for case in cases}
    assert shapes["one less on every axis"] == "(3, 5), (5,)"
    assert shapes["one more on every axis"] == "(5, 7), (7,)"
    assert shapes["prime sizes on every axis"] == "(7, 11), (11,)"
    assert shapes["an axis of 1 in the place of 6"] == "(4, 1), (1,)"
    assert shapes["one more leading axis"] == "(2, 4, 6), (6,)"
    assert {"equal rows", "arrays that aren't contiguous", "bfloat16", "causal=False"} <= set(shapes)
    assert not any("broadcast" in name for name in shapes)  # a weight of one axis
    shapes = {case.name: case.shapes for case in cases_of(Sweep(), (X, X), {}, {})}
    assert shapes["array 1 broadcast along its axis 0"] == "(4, 6), (1, 6)"


def test_arrays_follow_the_axes_of_the_first():
    assert axis_sizes((X, S, LABELS)) == [4, 6]
    assert [leaf.shape for leaf in resized((X, S, LABELS), {4: 5})] == [(5, 6), (6,), (5,)]
    assert [leaf.shape for leaf in reshaped((X, S), (3, 8))] == [(3, 8), (8,)]
    assert [leaf.shape for leaf in reshaped((X, S), ((3, 8), (1,)))] == [(3, 8), (1,)]
    assert resized((X, S, LABELS), {4: 6})[2].tolist() == [0, 1, 2, 3, 0, 1]
    assert resized((X, S, LABELS), {4: 3, 6: 5})[2].tolist() == [0, 1, 2]
    assert resized((X, LABELS), {6: 3})[1].tolist() == [0, 1, 2, 0]
    with pytest.raises(ValueError, match="expected 2 shapes"):
        reshaped((X, S), ((3, 8),))
    assert isinstance(resized((jnp.asarray(X),), {4: 5})[0], jnp.ndarray)


def names(*args, options=None, values=None):
    return [case.name for case in cases_of(Sweep(), args, options or {}, values or {})]


@pytest.mark.usefixtures("as_in_a_users_tests")
def test_there_are_no_cases_of_what_the_arguments_have_not():
    assert names(2.0, "mode") == []
    assert names(2.0, options={"flag": True}, values={"flag": [True, False]}) == ["flag=False"]
    of_integers = names(np.arange(4).reshape(2, 2))
    assert "an odd batch" not in of_integers  # it has the shape of one more on every axis
    assert "one more on every axis" in of_integers
    assert not {"bfloat16", "a cotangent of another dtype"} & set(of_integers)
    assert not any("broadcast" in name for name in names(DRAWN, np.ones((1, 1), np.float32)))


@pytest.mark.usefixtures("as_in_a_users_tests")
def test_complex_and_integer_arrays_keep_their_dtype():
    arrays = with_dtype((DRAWN, DRAWN + 1j, np.arange(4)), "bfloat16")
    assert [str(array.dtype) for array in arrays] == ["bfloat16", "complex64", "int64"]
    assert resized((DRAWN[:0],), {6: 5})[0].shape == (0, 6)  # there are no values for other sizes
