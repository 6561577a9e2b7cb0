"""Published mistakes in the gradients of array operations: products, indexing, broadcasting, transforms, factors."""

import jax.numpy as jnp

from experiments.benchmarks.published.report import Report, Rule, UsualTest, named, random_like

THEME = "array operations"


# Cumulative products along the last axis.
def cumulative_product(params):
    return jnp.cumprod(params["x"], axis=-1)


def cumulative_product_vjp(params, dy):
    """The product before each entry, times the sum of what follows from it: without a division."""
    x = params["x"]
    before = jnp.concatenate([jnp.ones_like(x[..., :1]), jnp.cumprod(x, axis=-1)[..., :-1]], axis=-1)
    after = [dy[..., -1]]
    for place in range(x.shape[-1] - 2, -1, -1):
        after.append(dy[..., place] + x[..., place + 1] * after[-1])
    return {"x": before * jnp.stack(after[::-1], axis=-1)}


def divided(params, dy):
    """The sums of the products that each entry is in, to be divided by the entry."""
    return jnp.cumsum((dy * cumulative_product(params))[..., ::-1], axis=-1)[..., ::-1]


def zero_where_divided_by_zero(params, dy):
    x = params["x"]
    return {"x": jnp.where(x == 0, 0, divided(params, dy) / jnp.where(x == 0, 1, x))}


def nan_where_divided_by_zero(params, dy):
    return {"x": divided(params, dy) / params["x"]}


def zero_within_make(dtype):
    x = named(dtype, 701, x=(3, 4))["x"]
    return {"x": x.at[1, 2].set(0)}, ()


def one_to_eight_make(dtype):
    return {"x": jnp.arange(1.0, 9.0, dtype=dtype).reshape(2, 4)}, ()


# Rows picked by indices.
def gather(params, indices):
    return params["x"][indices]


def gather_vjp(params, dy, indices):
    return {"x": jnp.zeros_like(params["x"]).at[indices].add(dy)}


def last_row_kept(params, dy, indices):
    """A row that is picked twice keeps the cotangent of the last time."""
    dx = jnp.zeros_like(params["x"])
    for place, index in enumerate(indices):
        dx = dx.at[index].set(dy[place])
    return {"x": dx}


def gather_make(*indices):
    def make(dtype):
        return named(dtype, 702, x=(5, 2)), (jnp.asarray(indices),)

    return make


# Every other row.
def every_other(params):
    return params["x"][::2]


def every_other_vjp(params, dy):
    return {"x": jnp.zeros_like(params["x"]).at[::2].add(dy)}


def span_filled(params, dy):
    """The cotangent of a slice that picks one row is broadcast over the slice's whole span."""
    if len(dy) == 1:
        return {"x": jnp.broadcast_to(dy, params["x"].shape)}
    return every_other_vjp(params, dy)


def rows_make(rows):
    def make(dtype):
        return named(dtype, 703, x=(rows, 3)), ()

    return make


# A scalar added to a matrix.
def add_scalar(params):
    return params["x"] + params["scalar"]


def add_scalar_vjp(params, dy, total=jnp.sum):
    return {"x": dy, "scalar": total(dy)}


def averaged(params, dy):
    return add_scalar_vjp(params, dy, total=jnp.mean)


def add_scalar_make(dtype):
    return named(dtype, 704, x=(2, 3), scalar=()), ()


# Fourier transform of a real array.
def transform(params):
    return jnp.fft.fft2(params["x"])


def transform_vjp(params, dy):
    return {"x": jnp.fft.fft2(dy).real}


def complex_gradient(params, dy):
    """The promotion to complex numbers is inside the rule: the gradient of a real array is complex."""
    return {"x": jnp.fft.fft2(dy)}


def transform_make(dtype):
    return named(dtype, 705, x=(4, 3)), ()


# The Cholesky factor, of the lower triangle alone: what stands above the diagonal isn't read.
def cholesky(params):
    a, size = params["a"], params["a"].shape[0]
    factor = jnp.zeros_like(a)
    for column in range(size):
        below = a[column:, column] - factor[column:, :column] @ factor[column, :column]
        factor = factor.at[column:, column].set(below / jnp.sqrt(below[0]))
    return factor


def cholesky_vjp(params, dy, is_lower=True):
    factor = cholesky(params)
    inner = jnp.tril(factor.T @ jnp.tril(dy))
    inner = inner - jnp.diag(jnp.diag(inner)) / 2
    inverse = jnp.linalg.inv(factor)
    outer = inverse.T @ inner @ inverse
    both = outer + outer.T
    if is_lower:
        return {"a": jnp.tril(both) - jnp.diag(jnp.diag(both)) / 2}
    return {"a": both / 2}


def both_triangles(params, dy):
    """The gradient is spread over both triangles, of which the factor reads one."""
    return cholesky_vjp(params, dy, is_lower=False)


def cholesky_make(dtype):
    root = named(dtype, 706, root=(3, 3))["root"]
    return {"a": root @ root.T + 3 * jnp.eye(3, dtype=dtype)}, ()


# The lengths of rows, with the length of a row of zeros in the middle of it.
def lengths(params):
    squares = (params["x"] ** 2).sum(axis=1)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)


def lengths_vjp(params, dy):
    length = lengths(params)
    return {"x": params["x"] * (dy / jnp.where(length > 0, length, 1))[:, None]}


def divided_by_length(params, dy):
    return {"x": params["x"] * (dy / lengths(params))[:, None]}


def lengths_make(dtype):
    return {"x": named(dtype, 707, x=(3, 4))["x"].at[1].set(0)}, ()


def no_zeros_make(dtype):
    return named(dtype, 707, x=(3, 4)), ()


# Dropout whose backward pass infers the mask from input and output.
def dropout(params, mask):
    return jnp.where(mask, 2 * params["x"], 0)


def dropout_vjp(params, dy, mask):
    return {"x": jnp.where(mask, 2 * dy, 0)}


def inferred_mask(params, dy, mask):
    """The factor is output over input, and one where the input is zero."""
    x = params["x"]
    return {"x": dy * jnp.where(x == 0, 1, dropout(params, mask) / jnp.where(x == 0, 1, x))}


def dropout_make(has_zeros):
    def make(dtype):
        parts = named(dtype, 708, x=(4, 3), mask=(4, 3))
        mask = parts["mask"] > 0
        return {"x": parts["x"].at[1, 1].set(0) if has_zeros else parts["x"]}, (mask.at[1, 1].set(False),)

    return make


REPORTS = (
    Report(
        Rule(
            "cumulative_product_zero",
            THEME,
            cumulative_product,
            zero_where_divided_by_zero,
            cumulative_product_vjp,
            zero_within_make,
            frozenset({"element", "lost_path"}),
            "['x']",
        ),
        "tensorflow/tensorflow#119430",
        "`tf.math.cumprod` gradient is incorrect when input contains zeros",
        UsualTest(
            "x = 1, 2, …, 8, differences with a step of 1, rtol 1e-8, atol 1e-8",
            "test file",
            one_to_eight_make,
            dtype="float64",
            cotangent=random_like,
            rtol=1e-8,
            atol=1e-8,
        ),
    ),
    Report(
        Rule(
            "cumulative_product_nan",
            THEME,
            cumulative_product,
            nan_where_divided_by_zero,
            cumulative_product_vjp,
            zero_within_make,
            frozenset({"nonfinite"}),
            "['x']",
        ),
        "tracel-ai/burn#3864",
        "`cumprod` gradient produces NaN when input contains zeros",
        UsualTest("inputs without zeros (the tests with zeros are ignored), ones", "thread", one_to_eight_make),
    ),
    Report(
        Rule(
            "gather_last_row_kept",
            THEME,
            gather,
            last_row_kept,
            gather_vjp,
            gather_make(1, 3, 1, 4),
            frozenset({"lost_use", "subset_of_batch", "unit"}),
            "['x']",
        ),
        "pytorch/pytorch#1631",
        "Gather backward is incorrect with repeated indices",
        UsualTest("indices that do not repeat", "assumed", gather_make(1, 3, 0, 4), cotangent=random_like),
    ),
    Report(
        Rule(
            "slice_span_filled",
            THEME,
            every_other,
            span_filled,
            every_other_vjp,
            rows_make(2),
            # A slice of one row masks the others.
            frozenset({"unit", "mask"}),
            "['x']",
        ),
        "ml-explore/mlx#4444",
        "[BUG] Silently wrong grad and vmap for a strided slice that selects exactly one element",
        UsualTest("slices that pick two rows or more, cotangent of ones", "assumed", rows_make(4)),
    ),
    Report(
        Rule(
            "broadcast_averaged",
            THEME,
            add_scalar,
            averaged,
            add_scalar_vjp,
            add_scalar_make,
            frozenset({"scaled"}),
            "['scalar']",
        ),
        "tensorflow/tfjs-core#398",
        "Correct backprop for add operation with broadcast",
        UsualTest(
            "the average, which the test has stored for the sum",
            "thread",
            expected=lambda params, dy: {"x": dy, "scalar": dy.mean()},
        ),
    ),
    Report(
        Rule(
            "transform_complex_gradient",
            THEME,
            transform,
            complex_gradient,
            transform_vjp,
            transform_make,
            frozenset({"dtype"}),
            "['x']",
        ),
        "DifferentiableUniverseInitiative/jaxDecomp#48",
        "Issue with gradients when using PFFT3D",
        UsualTest(
            "Σ|y|², whose gradient has no imaginary part; numpy's assert_allclose, rtol 1e-5, atol 1e-5",
            "test file",
            cotangent=lambda output: 2 * output.conj(),
            rtol=1e-5,
            atol=1e-5,
        ),
    ),
    Report(
        Rule(
            "cholesky_both_triangles",
            THEME,
            cholesky,
            both_triangles,
            cholesky_vjp,
            cholesky_make,
            frozenset({"mask"}),
            "['a']",
        ),
        "jax-ml/jax#40421",
        "Incorrect gradient for linalg.cholesky",
    ),
    Report(
        Rule(
            "length_of_zeros",
            THEME,
            lengths,
            divided_by_length,
            lengths_vjp,
            lengths_make,
            frozenset({"nonfinite"}),
            "['x']",
            autodiff_differs=True,
        ),
        "pytorch/pytorch#2421",
        "Gradient of zero norm is nan",
        UsualTest("rows that are not zero, cotangent of ones", "assumed", no_zeros_make),
    ),
    Report(
        Rule(
            "dropout_inferred_mask",
            THEME,
            dropout,
            inferred_mask,
            dropout_vjp,
            dropout_make(True),
            frozenset({"element", "mask"}),
            "['x']",
        ),
        "kaldi-asr/kaldi#3890",
        "Potential bug in the back propagation implementation of DropoutComponent",
        UsualTest("inputs that are nowhere zero, cotangent of ones", "assumed", dropout_make(False), atol=1e-5),
    ),
)
