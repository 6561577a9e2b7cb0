"""What holds numbers is taken as numbers; words, dates and gaps are named where they are."""

import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from funcnn._conversion import plain_array
from tests.cases import KEY

pandas = pytest.importorskip("pandas")

NUMBERS = np.array([[1.0, 2.0], [3.0, 4.5]])
FRAME = pandas.DataFrame(NUMBERS, columns=["height", "age"])


@pytest.mark.parametrize(
    "value",
    [
        FRAME,
        FRAME.astype("Float64"),
        FRAME.astype(object),
        NUMBERS.astype(object),
        NUMBERS.astype(">f8"),
        NUMBERS.astype(np.longdouble),
        np.ma.masked_array(NUMBERS, False),
        NUMBERS.tolist(),
    ],
    ids=["frame", "nullable frame", "frame of objects", "objects", "big-endian", "long double", "masked", "lists"],
)
def test_numbers_in_other_containers_are_numbers(value):
    found = plain_array("x", value)
    assert type(found) is np.ndarray
    assert found.dtype == np.dtype(np.float64)
    np.testing.assert_array_equal(found, NUMBERS)


def test_columns_of_several_dtypes_are_numbers():
    frame = FRAME.assign(member=[True, False], count=[1, 2])
    np.testing.assert_array_equal(plain_array("x", frame), [[1, 2, 1, 1], [3, 4.5, 0, 2]])
    assert plain_array("x", frame[["member"]].astype(object)).dtype == np.bool_
    assert plain_array("x", frame[["member", "count"]].astype(object)).dtype == np.int64


def test_objects_of_complex_numbers_and_of_arrays_of_one_number_are_numbers():
    found = plain_array("x", np.array([1j, 2.0], object))
    assert found.dtype == np.complex128
    np.testing.assert_array_equal(found, [1j, 2.0])
    ones = np.empty(2, object)
    ones[:] = [jnp.array(1.5), jnp.array(3)]
    found = plain_array("x", ones)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, [1.5, 3.0])


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (
            FRAME.astype("Float64").mask(FRAME > 4),
            ValueError,
            r"got a gap in column 'age', row 1 \(1 in all\).*x\.fillna\(x\.mean\(\)\)",
        ),
        (np.array([[1.0, None]]), ValueError, r"got a gap at index \(0, 1\)"),
        (
            np.array([1.0, None, pandas.NA]),
            ValueError,
            r"at index \(1,\) \(2 in all\).*keep = pandas\.notna\(np\.asarray\(x",
        ),
        (
            np.ma.masked_greater(NUMBERS, 4),
            ValueError,
            r"got a gap at index \(1, 1\) .*x = x\.filled\(x\.mean\(axis=0\)\)",
        ),
        ("x.csv", TypeError, r": 'x\.csv'\. Pass the array itself, not its name; a file has to be read first"),
        (FRAME.assign(age="old"), TypeError, r": 'old' in column 'age', row 0.*pandas\.get_dummies"),
        (
            FRAME.assign(age=pandas.Timestamp("2020-01-01")),
            TypeError,
            r"in column 'age', row 0.*x\['age'\] = \(x\['age'\] - x\['age'\]\.min\(\)\)",
        ),
        (np.array(["a", "b"]), TypeError, r": 'a'.*classes, x = np\.unique\(x, return_inverse=True\)"),
        (pandas.Series(["a", "b"]), TypeError, r"np\.unique\(x, return_inverse=True\)"),
        (np.array(["2020-01-01"], "datetime64[D]"), TypeError, r"x = \(x - x\.min\(\)\) / np\.timedelta64\(1, 'D'\)"),
        (np.zeros(2, [("a", float)]), TypeError, r"got ndarray of dtype \[\('a'"),
        ([[1.0], [1.0, 2.0]], ValueError, r"rows of equal length"),
        (None, TypeError, r"got NoneType"),
        ((number for number in [1.0]), TypeError, r"got generator"),
    ],
)
def test_words_dates_and_gaps_are_named(value, error, message):
    with pytest.raises(error, match=r"x: expected .*" + message):
        plain_array("x", value)


def test_a_sparse_matrix_is_to_be_made_dense():
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match=r"x: expected a dense array, got a sparse one of .*\.toarray\(\)"):
        plain_array("x", sparse.csr_matrix(NUMBERS))


def test_fit_names_the_column_of_a_number_that_is_not_finite(as_for_users):
    frame = FRAME.astype(np.float32).mask(FRAME > 4)
    with pytest.raises(ValueError, match=r"fit\(data\): x: expected finite values, got nan .* in column 'age'"):
        fnn.fit(fnn.mlp((2, 2)), fnn.softmax_cross_entropy, fnn.sgd(0.1), (frame, [0, 1]), epochs=1, key=KEY)


def test_fit_trains_on_a_frame_and_monitors_it(as_for_users):
    frame = FRAME.assign(member=[True, False])
    settings = {"epochs": 2, "key": KEY, "monitor": 1, "validation": (frame, [0, 1])}
    by_frame, by_array = (
        fnn.fit(fnn.mlp((3, 2)), fnn.softmax_cross_entropy, fnn.sgd(0.1), (x, [0, 1]), **settings)
        for x in (frame, frame.to_numpy(float))
    )
    np.testing.assert_array_equal(by_frame.history.loss, by_array.history.loss)
    assert by_frame.history.health.record.input.mean.shape == (3,)
