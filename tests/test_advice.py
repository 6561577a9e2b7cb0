"""The advice in the messages on input, followed to the letter: the code in a message is run, and the input is taken."""

import datetime
import decimal
import fractions

import jax
import jax.numpy as jnp
import numpy as np
import numpy.lib.recfunctions
import pytest

import funcnn as fnn
from funcnn._conversion import plain_array
from funcnn.training.input import checked_batch, given_or_shapes
from tests.cases import WIDEST

pandas = pytest.importorskip("pandas")
scipy_sparse = pytest.importorskip("scipy.sparse")

pytestmark = pytest.mark.usefixtures("as_for_users")

WIDE = jnp.dtype(WIDEST).name
X = np.array([[1.0, 2.0], [3.0, 4.5], [0.5, 7.0], [2.0, 1.0]], WIDEST)
Y = np.array([0, 1, 1, 0])
FRAME = pandas.DataFrame(X, columns=["height", "age"])
MASKED = np.ma.masked_greater(X, 5)
DATES = np.array(["2020-01-01", "2020-01-03", "2020-02-01", "2021-01-01"], "datetime64[D]")
NUMBERED = pandas.Series([0, 1, None, 0], dtype="Int64")
STACKED = np.empty(4, object)
STACKED[:] = list(X)
INFINITE = X.copy()
INFINITE[1, 1] = np.inf
SQUARED, SOFTMAX, SIGMOID = fnn.mean_squared_error, fnn.softmax_cross_entropy, fnn.sigmoid_cross_entropy
KEEP = ".reshape(len(x), -1).all(axis=1); x, y = np.asarray(x)[keep], np.asarray(y)[keep]"
FLOATS, CODES = "x = jnp.asarray(x, float)", "classes, y = np.unique(y, return_inverse=True)"


def check(x, y, outputs=2, loss=SOFTMAX, features=None):
    """Return the batch that training gets of the data; nothing is compiled."""
    shape = getattr(x, "shape", None) or ((len(x), len(x[0])) if np.ndim(x[0]) else (len(x),))
    features = features or (shape[-1] if len(shape) > 1 else 1)
    model = fnn.linear(features, outputs)
    return checked_batch("fit(data)", model, loss, *given_or_shapes("fit", model, None, None), (x, y))


CASES = {
    "words in a frame": (FRAME.assign(age=list("abab")), Y, "x = pandas.get_dummies(x)", {}),
    "words in an array": (
        np.array([[1.0, "a"], [2.0, "b"], [0.5, "a"], [1.0, "b"]], object),
        Y,
        "x = pandas.get_dummies(pandas.DataFrame(x).infer_objects())",
        {},
    ),
    "numbers as text in a frame": (FRAME.astype(str), Y, "x = np.asarray(x, float)", {}),
    "numbers as text": (X.astype(str).tolist(), Y, "x = np.asarray(x, float)", {}),
    "words for labels": (X, np.array(list("abba")), CODES, {}),
    "words for labels in a list": (X, list("abba"), CODES, {}),
    "words for labels in a series": (FRAME, pandas.Series(list("abba")), CODES, {}),
    "bytes for labels": (X, np.array([b"a", b"b", b"b", b"a"]), CODES, {}),
    "words with a gap for labels": (
        X,
        ["a", None, "b", "a"],
        "keep = np.not_equal(np.asarray(y, object), None).astype(bool)" + KEEP,
        {"next": CODES},
    ),
    "dates": (DATES[:, None], Y, "x = (x - x.min()) / np.timedelta64(1, 'D')", {}),
    "a column of dates": (
        FRAME.assign(day=DATES), Y, "x['day'] = (x['day'] - x['day'].min()) / np.timedelta64(1, 'D')", {},
    ),
    "a column of dates with a time zone": (
        FRAME.assign(day=pandas.to_datetime(DATES).tz_localize("UTC")),
        Y,
        "x['day'] = (x['day'] - x['day'].min()) / np.timedelta64(1, 'D')",
        {},
    ),
    "time differences": ((DATES - DATES[0])[:, None], Y, "x = x / np.timedelta64(1, 's')", {}),
    "records": (
        np.array([tuple(row) for row in X], [("height", WIDE), ("age", WIDE)]),
        Y,
        "numpy.lib.recfunctions.structured_to_unstructured(x)",
        {"variable": "x"},
    ),
    "arrays in an array": (STACKED, Y, "x = np.stack(list(x))", {"features": 2}),
    "arrays in a series": (pandas.Series(list(X)), Y, "x = np.stack(list(x))", {"features": 2}),
    "a sparse matrix": (scipy_sparse.csr_matrix(X), Y, ".toarray()", {"variable": "x", "code": "x.toarray()"}),
    "a masked array": (MASKED, Y, "x = x.filled(x.mean(axis=0))", {}),
    "masked labels": (X, np.ma.masked_array(Y, Y == 1), "keep = ~np.ma.getmaskarray(y)" + KEEP, {}),
    "gaps in a frame": (
        FRAME.astype("Float64").mask(FRAME > 5), Y, "x = x.astype(float); x = x.fillna(x.mean())", {},
    ),
    "gaps in a frame of whole numbers": (
        FRAME.astype(int).astype("Int64").mask(FRAME > 5), Y, "x = x.astype(float); x = x.fillna(x.mean())", {},
    ),
    "gaps in labels": (
        FRAME,
        NUMBERED,
        "keep = np.isfinite(np.asarray(y, float))" + KEEP.replace("len(x)", "len(y)"),
        {"next": "y = jnp.asarray(y, int)"},
    ),
    "gaps in an array": (
        np.where(X > 5, None, X), Y, "keep = np.not_equal(np.asarray(x, object), None).astype(bool)" + KEEP, {},
    ),
    "gaps in lists": (
        np.where(X > 5, None, X).tolist(),
        Y.tolist(),
        "keep = np.not_equal(np.asarray(x, object), None).astype(bool)" + KEEP,
        {},
    ),
    "an infinity": (INFINITE, Y, "keep = np.isfinite(np.asarray(x, float))" + KEEP, {}),
    "a NaN in a frame": (FRAME.mask(FRAME > 5), Y, "keep = np.isfinite(np.asarray(x, float))" + KEEP, {}),
    "a NaN in an array of JAX": (
        jnp.asarray(X).at[0, 0].set(jnp.nan), Y, "keep = np.isfinite(np.asarray(x, float))" + KEEP, {},
    ),
    "a NaN in targets": (
        X,
        np.array([[1.0], [np.nan], [0.0], [1.0]]),
        "keep = np.isfinite(np.asarray(y, float))" + KEEP.replace("len(x)", "len(y)"),
        {"outputs": 1, "loss": SQUARED},
    ),
    "large integers": ([[10**30, 1]] * 4, Y, "np.asarray(x, float)", {"variable": "x"}),
    "integers": (X.astype(int), Y, FLOATS, {}),
    "integers in a frame": (FRAME.astype(int).astype("Int64"), Y, FLOATS, {}),
    "integers in lists": (X.astype(int).tolist(), Y, FLOATS, {}),
    "half precision": (X.astype(np.float16), Y, f"x = jnp.asarray(x, jnp.{WIDE})", {}),
    "complex numbers": (X + 1j, Y, "jnp.concatenate([x.real, x.imag], axis=-1)", {"variable": "x"}),
    "floats for labels": (X, Y.astype(float), "y = jnp.asarray(y, int)", {}),
    "floats for labels in a list": (X, [0.0, 1.0, 1.0, 0.0], "y = jnp.asarray(y, int)", {}),
    "labels with an axis more": (FRAME, pandas.DataFrame({"y": Y}), "y = np.asarray(y)[..., 0]", {}),
    "integers for values": (X, Y[:, None], f"y = jnp.asarray(y, jnp.{WIDE})", {"outputs": 1, "loss": SIGMOID}),
    "integers without an axis": (
        X,
        Y,
        f"Then cast the targets once: y = jnp.asarray(y, jnp.{WIDE})",
        {"outputs": 1, "loss": SIGMOID, "code": f"y = np.asarray(y)[..., None]; y = jnp.asarray(y, jnp.{WIDE})"},
    ),
    "values without an axis": (
        FRAME, FRAME.age, "y = np.asarray(y)[..., None]", {"outputs": 1, "loss": SQUARED},
    ),
    "values with an axis more": (X, X[:, :1, None], "y = np.asarray(y)[..., 0]", {"outputs": 1, "loss": SQUARED}),
    "values of another shape": (
        X, X.reshape(4, 1, 2), "y = np.reshape(y, (4, 2))", {"loss": SQUARED},
    ),
    "one class": (X, 0 * Y, "y = jnp.asarray(np.reshape(y, (4, 1)), float)", {"outputs": 1, "then": SIGMOID}),
    "one feature in a series": (FRAME.age, Y, "np.asarray(x)[:, None]", {"variable": "x"}),
    "images": (np.ones((4, 2, 3)), Y, "x.reshape(len(x), -1)", {"variable": "x", "features": 6}),
    "targets and then inputs": (Y, X, "(y, x)", {"variable": "x, y", "features": 2}),
}  # fmt: skip
if not jax.config.read("jax_enable_x64"):
    CASES["numbers beyond float32"] = (X.astype(float) * 1e300, Y, "x / np.abs(x).max()", {"variable": "x"})


@pytest.mark.parametrize(("x", "y", "advice", "how"), CASES.values(), ids=CASES)
def test_the_advice_is_code_that_works(x, y, advice, how):
    """``how``: the variable to which the code is assigned, where it is an expression, the model
    and loss, and the advice on what is left.
    """
    given = {name: value for name, value in how.items() if name in ("outputs", "loss", "features")}
    names = {"x": x, "y": y, "np": np, "numpy": numpy, "jnp": jnp, "pandas": pandas}
    for step in (advice, how["next"]) if "next" in how else (advice,):
        with pytest.raises((ValueError, TypeError)) as caught:
            check(names["x"], names["y"], **given)
        assert step in str(caught.value)
        assert str(caught.value).startswith("fit(data)")
        code = how.get("code", step)
        exec(f"{how['variable']} = {code}" if "variable" in how else code, names)
    batch = check(names["x"], names["y"], **given | ({"loss": how["then"]} if "then" in how else {}))
    assert 1 <= len(batch.x) <= 4


class Tensor:
    """A tensor as PyTorch's: NumPy gets it only detached, and on the host."""

    def __init__(self, array, is_attached=True, is_on_host=False):
        self.array, self.is_attached, self.is_on_host = array, is_attached, is_on_host

    @property
    def shape(self):
        return self.array.shape

    def detach(self):
        return Tensor(self.array, False, self.is_on_host)

    def cpu(self):
        return Tensor(self.array, self.is_attached, True)

    def __array__(self, dtype=None, copy=None):
        if self.is_attached or not self.is_on_host:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        if self.array.dtype == jnp.bfloat16:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.array

    def __dlpack__(self, **settings):
        return jnp.asarray(self.array).__dlpack__(**settings)

    def __dlpack_device__(self):
        return jnp.asarray(self.array).__dlpack_device__()


@pytest.mark.parametrize(
    "value",
    [
        Tensor(X),
        np.array([[decimal.Decimal(str(number)) for number in row] for row in X]),
        np.array([[fractions.Fraction(float(number)) for number in row] for row in X]),
        np.array([[np.float32(number) for number in row] for row in X], object),
        [[jnp.asarray(number) for number in row] for row in X],
        pandas.DataFrame({name: pandas.arrays.SparseArray(FRAME[name]) for name in FRAME}),
        memoryview(X),
    ],
    ids=["tensor", "decimals", "fractions", "objects", "scalars", "sparse columns", "buffer"],
)
def test_numbers_in_another_coat_are_taken(value):
    np.testing.assert_array_equal(np.asarray(check(value, Y).x), X)


def test_a_tensor_in_bfloat16_keeps_its_dtype():
    tensor = plain_array("x", Tensor(np.asarray(jnp.asarray(X, jnp.bfloat16))))
    assert tensor.dtype == jnp.bfloat16
    np.testing.assert_array_equal(tensor, X)


def test_what_holds_no_numbers_has_its_place():
    wrong = np.array([[1.0, datetime], [1.0, 2.0]], object)
    with pytest.raises(TypeError, match=r"<module 'datetime' .* at index \(0, 1\)\. Give numbers in their place"):
        check(wrong, Y[:2])
    with pytest.raises(ValueError, match=r"Give rows of equal length"):
        check([[1.0], [1.0, 2.0]], Y[:2])
