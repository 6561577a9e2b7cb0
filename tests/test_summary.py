"""Summaries: parameters, operations and bytes as counted by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import funcnn as fnn
from funcnn.summary import summarize
from funcnn.types import Structure
from tests.cases import KEY, LAYERS, MODELS, WIDEST, named

B = 7
NEST = fnn.serial(
    fnn.linear(3, 4),
    fnn.repeat(fnn.skip(fnn.serial(fnn.linear(4, 4), fnn.batch_norm(4), fnn.gelu, fnn.dropout(0.1))), 3),
    fnn.skip(fnn.tanh, fnn.linear(4, 4)),
)


def opaque(layer):
    """The same layer, its parts unknown: one row."""
    return layer._replace(forward=lambda *args, **settings: layer.forward(*args, **settings), spec=fnn.LayerSpec())


def test_a_linear_layer_by_hand():
    (row,), total = summarize(fnn.linear(30, 40), (B, 30))
    product, additions = 2 * B * 30 * 40, B * 40
    assert row == ("linear", (B, 40), 30 * 40 + 40, product + additions, 2 * product + additions, B * 30 * 4)
    assert total == row._replace(name="total")


@pytest.mark.parametrize(("dtype", "bytes_each"), [(jnp.float32, 4), (jnp.bfloat16, 2), ("float16", 2)])
def test_residuals_by_hand_and_counted_once(dtype, bytes_each):
    """Each linear layer keeps its input, a ReLU its output, which is the next one's input; kernels cost nothing."""
    summary = summarize(fnn.mlp((3, 5, 4, 2)), (B, 3), dtype)
    numbers = [B * 3, B * 5, 0, B * 4, 0]
    assert [row.residual_bytes for row in summary.rows] == [bytes_each * count for count in numbers]
    assert summary.total.residual_bytes == bytes_each * sum(numbers)


def test_a_repeat_stacks_what_every_part_keeps():
    rows, total = summarize(fnn.repeat(fnn.serial(fnn.linear(4, 4), fnn.relu), 3), (B, 4))
    assert [row.name for row in rows[:3]] == ["repeat[0].layers[0] linear", "repeat[0].layers[1] relu",
                                             "repeat[1].layers[0] linear"]  # fmt: skip
    assert [row.residual_bytes for row in rows] == [4 * B * 4] * 6
    assert total.parameters == 3 * (16 + 4)


def test_the_addition_of_a_skip_has_a_row_and_its_input_counts_once():
    rows, _ = summarize(fnn.skip(fnn.linear(3, 4), fnn.linear(3, 4)), (B, 3))
    assert [row.name for row in rows] == ["inner linear", "shortcut linear", "skip"]
    assert [row.residual_bytes for row in rows] == [4 * B * 3, 0, 0]
    assert rows[-1] == ("skip", (B, 4), 0, B * 4, B * 3, 0)


def test_an_identity_passes_its_input_on():
    rows, _ = summarize(fnn.serial(fnn.linear(3, 4), fnn.relu, fnn.identity, fnn.linear(4, 1)), (B, 3))
    assert rows[2] == ("layers[2] identity", (B, 4), 0, 0, 0, 0)
    assert rows[3].residual_bytes == 0


def test_names_are_check_model_s():
    model = fnn.repeat(fnn.skip(fnn.serial(fnn.linear(3, 3), fnn.identity)), 2)
    report = fnn.check_model(model, fnn.mean_squared_error, (jnp.ones((1, 3), WIDEST), jnp.ones((1, 3), WIDEST)))
    checked = {step.path.rpartition(": ")[0] for step in report.steps} - {"loss"}
    assert {row.name for row in summarize(model, (1, 3)).rows if not row.name.endswith(" skip")} == checked
    assert "repeat[1].inner.layers[0] linear" in checked


@pytest.mark.parametrize(**named([*LAYERS, *MODELS]))
def test_the_total_is_what_the_whole_layer_costs(case):
    dtype = case.dtype or jnp.float32
    parts, whole = (summarize(layer, (B, *case.sample), dtype).total for layer in (case.layer, opaque(case.layer)))
    params = jax.eval_shape(case.layer.init, KEY)[0]
    assert parts.parameters == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert parts._replace(residual_bytes=0) == whole._replace(residual_bytes=0)
    if not case.name.startswith(
        ("repeat", "block", "gpt")
    ):  # Before JAX forwarded a scan's inputs to its outputs, a repeat copied its kernels.
        assert parts.residual_bytes == whole.residual_bytes


def convolved(x):
    return lax.conv_general_dilated(x[:, None], jnp.ones((2, 1, 3), x.dtype), (1,), "VALID")[:, 0]


def looped(x):
    return lax.while_loop(lambda carry: carry.sum() < 0, lambda carry: carry * 2, x)


FUNCTIONS = {
    "a convolution": (convolved, 2 * (B * 2 * 4) * 3),
    "a scan": (lambda x: lax.scan(lambda carry, _: (carry * 2 + 1, None), x, length=5)[0], 5 * 2 * B * 6),
    "a while": (looped, B * 6 + 1 + B * 6),
    "the dearer branch": (lambda x: lax.cond(x[0, 0] > 0, lambda x: x * 2, lambda x: jnp.exp(x) + 1, x), 1 + 2 * B * 6),
    "a maximum": (lambda x: x.max(axis=1, keepdims=True), B * 6),
    "an index": (lambda x: x[:, ::-1][:, jnp.array([0, 2])].T.reshape(B, 2), 0),
    "integers": (lambda x: (jnp.arange(6) * 2 + 1)[None, :].astype(x.dtype), 0),
    "a scatter": (lambda x: jnp.zeros_like(x).at[0].add(x[1]), 6),
    "a rule of its own": (jax.nn.relu, B * 6),
    "a product of batches": (lambda x: jnp.einsum("bi,bij->bj", x, x[:, :, None]), 2 * B * 6),
}


@pytest.mark.parametrize(("function", "flops"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_operations_by_hand(function, flops):
    layer = fnn.Layer(
        lambda key: ((), ()),
        lambda params, state, x, *, train, key=None: (function(x), state, ()),
        lambda residuals, dy: ((), 2 * dy),
    )
    row = summarize(layer, (B, 6)).rows[0]
    assert row.forward_flops == flops
    assert row.backward_flops == row.output_shape[0] * row.output_shape[1]
    assert row.residual_bytes == 0


def test_nothing_is_allocated_or_run():
    """A model of ten million million parameters."""
    summary = summarize(fnn.repeat(fnn.linear(10**6, 10**6), 10), (10**6, 10**6), jnp.bfloat16)
    assert summary.total.parameters == 10 * (10**12 + 10**6)
    assert summary.total.forward_flops == 10 * (2 * 10**18 + 10**12)


def test_the_table():
    lines = str(summarize(NEST, (B, 3))).splitlines()
    assert lines[0].split("  ")[0] == "layer"
    assert lines[-1].startswith("total")
    assert len(lines) == 3 + len(summarize(NEST, (B, 3)).rows)
    assert not any(line != line.rstrip() for line in lines)
    long = str(summarize(fnn.repeat(fnn.linear(4, 4), 50), (B, 4))).splitlines()
    assert long[-2].split()[:4] == ["total", f"({B},", "4)", f"{50 * 20:,}"]
    assert long[-1] == "10 more layers, counted in the total, are left out."


BAD = {
    "no layer": ((fnn.mlp, (B, 3)), TypeError, r"summarize\(model\): expected a layer, got <function mlp"),
    "no batch": ((NEST, (3,)), ValueError, r"summarize\(input_shape\): expected .*got \(3,\).*pass \(64, 784\)"),
    "a number": ((NEST, 3), ValueError, r"summarize\(input_shape\): expected .*got 3"),
    "a size of zero": ((NEST, (0, 3)), ValueError, r"summarize\(input_shape\): expected a positive integer, got 0"),
    "half a sample": ((NEST, (0.5, 3)), TypeError, r"summarize\(input_shape\): expected a positive integer, got 0\.5"),
    "another width": ((NEST, (B, 2)), ValueError, r"linear\(3, 4\): expected x of shape \(batch, 3\), got \(7, 2\)"),
    "integers": ((NEST, (B, 3), jnp.int32), TypeError, r"linear\(3, 4\): expected a floating dtype, got int32"),
    "no dtype": ((NEST, (B, 3), "half a float"), TypeError, r"summarize\(dtype\): expected a floating dtype"),
    "a skip that does not fit": ((fnn.skip(fnn.linear(3, 4)), (B, 3)), ValueError, "skip: expected the shortcut's"),
    "a repeat that does not fit": ((fnn.repeat(fnn.linear(3, 4), 2), (B, 3)), ValueError, "repeat: expected a layer"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input(arguments, error, message, as_for_users):
    with pytest.raises(error, match=message):
        summarize(*arguments)


@pytest.mark.skipif(jax.config.read("jax_enable_x64"), reason="64-bit types are enabled")
def test_64_bits_need_jax_s():
    with pytest.raises(ValueError, match=r"summarize\(dtype\): expected a dtype of at most 32 bits, got float64"):
        summarize(NEST, (B, 3), "float64")


def test_copies_of_parameters_in_another_dtype_count():
    """A narrow kernel is kept beside the wide one, for backward; x is kept in the narrow dtype too."""
    narrow = fnn.mixed_precision(fnn.linear(8, 4))
    (row,), _ = summarize(narrow, (B, 8))
    assert row.residual_bytes == 2 * B * 8 + 2 * 8 * 4
    (row,), _ = summarize(narrow, (B, 8), jnp.bfloat16)
    assert row.residual_bytes == 2 * B * 8


def test_a_wrapper_that_does_not_recompute_shows_its_parts():
    def wrap(layer):
        return outer

    inner = fnn.serial(fnn.linear(3, 4), fnn.tanh)
    outer = fnn.Layer(*inner[:3], fnn.LayerSpec("wrap", structure=Structure(wrap, (inner,), ("wrap",), trees="same")))
    assert [row.name for row in summarize(outer, (B, 3)).rows] == ["wrap.layers[0] linear", "wrap.layers[1] tanh"]
    assert [row.name for row in summarize(fnn.recompute(inner), (B, 3)).rows] == ["recompute"]
