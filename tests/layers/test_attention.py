"""Attention: equal to JAX's own, the same numbers block by block, and in memory that grows with the length alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from tests.cases import KEY, WIDEST, largest_gap, relative_gap

TOLERANCE = 1e-13 if jnp.float64 == WIDEST else 1e-5


def heads(number, *shape):
    return jax.random.normal(jax.random.fold_in(KEY, number), shape, WIDEST)


Q, K, V = heads(1, 2, 4, 7, 6), heads(2, 2, 2, 7, 6), heads(3, 2, 2, 7, 6)
"""Four heads of queries, two of keys and values: ``(batch, heads, time, features)``."""
DY = heads(4, 2, 4, 7, 6)


def by_jax(q, k, v, **settings):
    # JAX's own has the time before the heads, and mixes float64 with float32.
    narrow = (array.swapaxes(1, 2).astype(jnp.float32) for array in (q, k, v))
    with jax.numpy_dtype_promotion("standard"):
        return jax.nn.dot_product_attention(*narrow, **settings).swapaxes(1, 2).astype(q.dtype)


def test_forward_and_backward_are_those_of_jax():
    mask = jax.random.bernoulli(KEY, 0.6, (2, 4, 7, 7)) | jnp.eye(7, dtype=bool)[None, None]

    @jax.jit
    def both(q, k, v, dy):
        found, expected = [], []
        for ours, theirs in (({"causal": True}, {"is_causal": True}), ({"mask": mask}, {"mask": mask})):
            y, residuals = fnn.attention_forward(q, k, v, **ours)
            y_of_jax, pull_back = jax.vjp(lambda q, k, v, theirs=theirs: by_jax(q, k, v, **theirs), q, k, v)
            found.append((y, *fnn.attention_backward(residuals, dy)))
            expected.append((y_of_jax, *pull_back(dy)))
        return found, expected

    found, expected = both(Q, K, V, DY)
    assert relative_gap(found, expected) < 1e-5


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])
def test_blocks_give_the_same_numbers(causal):
    @jax.jit
    def both(q, k, v, dy):
        y, residuals = fnn.attention_forward(q, k, v, causal=causal)
        by_blocks, kept = fnn.blockwise_attention_forward(q, k, v, causal=causal, block_size=3)
        return (y, fnn.attention_backward(residuals, dy)), (by_blocks, fnn.blockwise_attention_backward(kept, dy))

    plain, by_blocks = both(Q, K, V, DY)
    assert relative_gap(by_blocks, plain) < TOLERANCE


def largest_array(jaxpr) -> int:
    """The most entries of an array that a traced function makes."""
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [getattr(variable.aval, "size", 0) for variable in equation.outvars]
        inner = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda value: hasattr(value, "eqns"))
        sizes += [largest_array(getattr(part, "jaxpr", part)) for part in inner if hasattr(part, "eqns")]
    return max(sizes)


def gradient_of(**settings):
    layer = fnn.self_attention(4, 2, causal=True, **settings)

    def gradient(params, x):
        y, _, residuals = layer.forward(params, (), x, train=True)
        return layer.backward(residuals, y)

    params = jax.eval_shape(layer.init, KEY)[0]
    return lambda time: largest_array(jax.make_jaxpr(gradient)(params, jnp.ones((1, time, 4))).jaxpr)


def test_memory_grows_with_the_length_and_not_with_its_square():
    plain, by_blocks = gradient_of(), gradient_of(block_size=16)
    assert plain(512) == 2 * 512 * 512
    assert by_blocks(512) == 2 * 512 * 16
    assert by_blocks(2048) == 4 * by_blocks(512)


def test_a_query_without_a_visible_key_gets_nothing():
    mask = jnp.tri(7, dtype=bool).at[2].set(False)

    @jax.jit
    def both(q, k, v, dy):
        def output(q, k, v):
            return fnn.attention_forward(q, k, v, mask=mask)[0]

        y, residuals = fnn.attention_forward(q, k, v, mask=mask)
        return y, fnn.attention_backward(residuals, dy), jax.vjp(output, q, k, v)[1](dy)

    y, by_hand, by_autodiff = both(1e3 * Q, K, V, DY)
    assert not y[:, :, 2].any()
    assert np.isfinite(y).all()
    assert relative_gap(by_hand, by_autodiff) < 100 * TOLERANCE


def test_gradients_with_dropout_are_autodiff_s():
    forms = {
        "plain": (fnn.attention_forward, fnn.attention_backward, {}),
        "by blocks": (fnn.blockwise_attention_forward, fnn.blockwise_attention_backward, {"block_size": 3}),
    }

    @jax.jit
    def both(q, k, v, dy):
        found, expected = {}, {}
        for name, (forward, backward, settings) in forms.items():
            run = functools.partial(forward, causal=True, dropout=0.25, key=KEY, **settings)
            found[name] = backward(run(q, k, v)[1], dy)
            expected[name] = jax.vjp(lambda q, k, v, run=run: run(q, k, v)[0], q, k, v)[1](dy)
        return found, expected, fnn.attention_forward(q, k, v, dropout=0.25, key=KEY)[1].multiplier

    found, expected, multiplier = both(Q, K, V, DY)
    assert relative_gap(found, expected) < 10 * TOLERANCE
    assert relative_gap(found["plain"], found["by blocks"]) > 1e-3
    np.testing.assert_allclose(np.unique(multiplier), [0, 1 / 0.75], rtol=1e-6)
    assert 0.65 < (multiplier > 0).mean() < 0.85


def test_a_causal_layer_sees_no_later_position():
    layer = fnn.self_attention(4, 2, causal=True, rotary=True, key_value_heads=1)
    params, _ = layer.init(KEY)
    x = heads(5, 2, 6, 4)
    run = jax.jit(lambda x: layer.forward(params, (), x, train=False)[0])
    y, changed = run(x), run(x.at[:, 4:].add(1.0))
    np.testing.assert_array_equal(y[:, :4], changed[:, :4])
    assert (y[:, 4:] != changed[:, 4:]).any()


def test_rotated_products_depend_on_the_distance_alone():
    q, k = heads(6, 1, 8), heads(7, 1, 8)

    @jax.jit
    def products(q, k):
        rotated_q, rotated_k = (
            fnn.rotary_forward(jnp.broadcast_to(vector[:, None, :], (1, 6, 8)))[0][0] for vector in (q, k)
        )
        return rotated_q @ rotated_k.T

    table = np.asarray(products(q, k))
    for distance in range(-5, 6):
        along = np.diagonal(table, distance)
        np.testing.assert_allclose(along, along[0], rtol=0, atol=20 * TOLERANCE)
    assert abs(table[0, 0] - table[0, 3]) > 1e-3
    assert largest_gap(np.diagonal(table), (q @ k.T)[0, 0]) < 20 * TOLERANCE


BAD_LAYERS = {
    "heads that don't divide": (
        lambda: fnn.self_attention(6, 4),
        r"self_attention\(heads\): expected a divisor of the 6 features, got 4\. Choose one of 1, 2, 3, 6\.",
    ),
    "shared heads that don't divide": (
        lambda: fnn.self_attention(8, 4, key_value_heads=3),
        r"self_attention\(key_value_heads\): expected a divisor of the 4 heads, got 3",
    ),
    "odd heads with rotary": (
        lambda: fnn.self_attention(6, 2, rotary=True),
        r"self_attention\(rotary\): expected an even number of features in each head, got 6 features in 2 heads",
    ),
    "a rate of 1": (lambda: fnn.self_attention(4, 2, dropout=1.0), r"self_attention\(dropout\): expected the probab"),
    "a block of nothing": (
        lambda: fnn.self_attention(4, 2, block_size=0),
        r"\(block_size\): expected a positive",
    ),
    "a causal word": (
        lambda: fnn.self_attention(4, 2, causal="yes"),
        r"self_attention\(causal\): expected True or",
    ),
    "an odd width": (
        lambda: fnn.rotary_forward(Q[..., :3]),
        "rotary: expected an even number of features, got 3",
    ),
    "keys of another width": (
        lambda: fnn.attention_forward(Q, K[..., :3], V),
        r"attention: expected q .*, got \(2, 4, 7, 6\), \(2, 2, 7, 3\) and \(2, 2, 7, 6\)",
    ),
    "three heads of keys": (
        lambda: fnn.attention_forward(Q, jnp.tile(K[:, :1], (1, 3, 1, 1)), jnp.tile(V[:, :1], (1, 3, 1, 1))),
        "expected a number of query heads that the 3 heads of k and v divide, got 4",
    ),
    "integers": (lambda: fnn.attention_forward(Q.astype(int), K, V), r"attention\(q\): expected a floating dtype"),
    "two dtypes": (
        lambda: fnn.attention_forward(Q, K.astype(jnp.bfloat16), V),
        "attention: expected q, k and v of one dtype, got float.*, bfloat16",
    ),
    "causal with fewer queries": (
        lambda: fnn.attention_forward(Q[:, :, :3], K, V, causal=True),
        r"attention\(causal\): expected as many keys as queries, got 7 keys and 3 queries",
    ),
    "a mask of numbers": (
        lambda: fnn.attention_forward(Q, K, V, mask=jnp.ones((7, 7))),
        r"attention\(mask\): expected a boolean mask",
    ),
    "a mask of another shape": (
        lambda: fnn.attention_forward(Q, K, V, mask=jnp.ones((7, 3), bool)),
        r"attention\(mask\): expected shape \(7, 7\) or \(2, 4, 7, 7\)",
    ),
    "dropout without a key": (
        lambda: fnn.attention_forward(Q, K, V, dropout=0.5),
        r"attention\(dropout\): expected a random key for dropout, got key=None",
    ),
    "a layer's dropout without a key": (
        lambda: fnn.self_attention(4, 2, dropout=0.5).forward(
            *fnn.self_attention(4, 2).init(KEY), jnp.ones((1, 3, 4)), train=True
        ),
        r"self_attention\(dropout=0\.5\): expected a random key while training, got key=None.*key=jax\.random\.key",
    ),
    "blockwise dropout without a key": (
        lambda: fnn.blockwise_attention_forward(Q, K, V, dropout=0.5),
        r"attention\(dropout\): expected a random key",
    ),
    "one axis too few": (
        lambda: fnn.attention_forward(Q[0, 0], K, V),
        r"attention\(q\): expected shape",
    ),
}


@pytest.mark.parametrize(("call", "message"), BAD_LAYERS.values(), ids=BAD_LAYERS)
def test_bad_input(call, message, as_for_users):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


@pytest.mark.parametrize(
    ("mask", "advice", "follow"),
    [
        (jnp.ones((2, 7), bool).at[1, 5:].set(False), r"mask\[:, None, None, :\]", lambda m: m[:, None, None, :]),
        (jnp.tile(jnp.tri(7, dtype=bool), (2, 1, 1)), r"mask\[:, None\]", lambda m: m[:, None]),
        (jnp.ones((3, 7, 7), bool), "make it for 7 queries and 7 keys", lambda m: m[0]),
    ],
)
def test_the_advice_on_a_mask_works(mask, advice, follow, as_for_users):
    with pytest.raises(ValueError, match=rf"got \({', '.join(map(str, mask.shape))}\)\. Reshape the mask.*{advice}"):
        fnn.attention_forward(Q, K, V, mask=mask)
    assert fnn.attention_forward(Q, K, V, mask=follow(mask))[0].shape == (2, 4, 7, 6)
