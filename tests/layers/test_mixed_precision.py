"""Mixed precision: narrow inside, wide outside, and as good in the end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from funcnn._numerics.precision import enable_x64
from tests.cases import KEY, WIDEST, cast, relative_gap

X = jax.random.normal(KEY, (64, 4), WIDEST)
LABELS = (X[:, 0] * X[:, 1] > 0).astype(jnp.int32)


@pytest.mark.parametrize("compute_dtype", [jnp.bfloat16, jnp.float16])
def test_gradients_are_wide_and_near_the_wide_layer_s(compute_dtype):
    wide = fnn.mlp((4, 16, 2))
    narrow = fnn.mlp((4, 16, 2), compute_dtype=compute_dtype)
    params, state = wide.init(KEY)

    @jax.jit
    def both(params, state):
        return tuple(
            gradient(model, fnn.softmax_cross_entropy)(params, state, (X, LABELS))[1]
            for model in (narrow, wide)
            for gradient in (fnn.manual_value_and_grad, fnn.autodiff_value_and_grad)
        )

    by_hand, by_autodiff, exact, _ = both(params, state)
    assert {leaf.dtype for leaf in jax.tree.leaves(by_hand)} == {jnp.dtype(WIDEST)}
    epsilon = float(jnp.finfo(compute_dtype).eps)
    assert 0 < relative_gap(by_hand, exact) < 8 * epsilon
    assert relative_gap(by_hand, by_autodiff) < 8 * epsilon


def test_products_are_narrow():
    layer = fnn.mixed_precision(fnn.linear(4, 4))
    program = str(jax.make_jaxpr(lambda params, x: layer.forward(params, (), x, train=True)[0])(layer.init(KEY)[0], X))
    assert "bf16[" in program


def test_statistics_come_back_in_their_own_dtype():
    layer = fnn.mixed_precision(fnn.batch_norm(4))
    params, state = layer.init(KEY)
    y, new_state, _ = layer.forward(params, state, X, train=True)
    assert y.dtype == X.dtype
    assert jax.tree.map(jnp.result_type, new_state) == jax.tree.map(jnp.result_type, state)


def test_a_small_update_is_not_rounded_away():
    params = fnn.mlp((4, 16, 2)).init(KEY)[0]
    settings = {"epochs": 300, "key": KEY, "batch_size": None}
    mixed = fnn.fit(
        fnn.mlp((4, 16, 2), compute_dtype=jnp.bfloat16), fnn.softmax_cross_entropy, fnn.adam(1e-3), (X, LABELS),
        params=params, **settings,
    )  # fmt: skip
    wide = fnn.fit(
        fnn.mlp((4, 16, 2)), fnn.softmax_cross_entropy, fnn.adam(1e-3), (X, LABELS), params=params, **settings
    )
    narrow = fnn.fit(
        fnn.mlp((4, 16, 2)), fnn.softmax_cross_entropy, fnn.adam(1e-3), (cast(X, jnp.bfloat16), LABELS),
        params=cast(params, jnp.bfloat16), **settings,
    )  # fmt: skip
    final = [float(run.history.loss[-1]) for run in (mixed, wide, narrow)]
    np.testing.assert_allclose(final[0], final[1], rtol=0.03)
    assert abs(final[0] - final[1]) < abs(final[2] - final[1])


def test_a_dtype_that_would_be_cut_is_refused():
    with enable_x64(False), pytest.raises(TypeError, match="expected a dtype that JAX is set to, got float64"):
        fnn.mixed_precision(fnn.relu, jnp.float64)


@pytest.mark.parametrize("dtype", [jnp.int32, "wide"])
def test_a_dtype_that_is_not_floating_is_refused(dtype):
    for call in (
        lambda: fnn.mixed_precision(fnn.relu, dtype),
        lambda: fnn.mlp((2, 1), compute_dtype=dtype),
    ):
        with pytest.raises(TypeError, match=r"compute_dtype\): expected a floating dtype"):
            call()
