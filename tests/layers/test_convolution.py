"""Convolutions and pooling: the conventions of jax.lax, ties, costs, and input that doesn't fit."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import funcnn as fnn
from funcnn.health import monitored_value_and_grad
from tests.cases import KEY, WIDEST

X = jax.random.normal(KEY, (2, 5, 6, 4), WIDEST)
LAYOUT = ("NHWC", "HWIO", "NHWC")
TOLERANCE = 1e-12 if WIDEST == jnp.float64 else 1e-4


def drawn(shape, number):
    return jax.random.normal(jax.random.fold_in(KEY, number), shape, WIDEST)


def test_forward_passes_are_those_of_jax_lax():
    """With every option, in one program."""
    kernel, transposed = drawn((3, 2, 2, 6), 1), drawn((3, 2, 4, 3), 2)
    bias = drawn((6,), 3)
    pads = ((2, 1), (0, 3))

    @jax.jit
    def both(x):
        ours = (
            fnn.conv2d_forward(fnn.ConvParams(kernel, bias), x, stride=(2, 1), padding=pads, dilation=(1, 2), groups=2)[
                0
            ],
            *(
                fnn.conv_transpose2d_forward(fnn.ConvParams(transposed, bias[:3]), x, stride=stride, padding=padding)[0]
                for stride, padding in TRANSPOSED
            ),
            fnn.conv2d_forward(fnn.ConvParams(transposed, bias[:3]), x, stride=3)[0],
            fnn.conv_transpose2d_forward(fnn.ConvParams(kernel, 0 * bias), x, stride=(2, 1), groups=2)[0],
        )
        theirs = (
            lax.conv_general_dilated(
                x, kernel, (2, 1), pads, rhs_dilation=(1, 2), dimension_numbers=LAYOUT, feature_group_count=2
            )
            + bias[None, None, None],
            *(
                lax.conv_transpose(x, transposed, stride, padding, dimension_numbers=LAYOUT)
                + bias[None, None, None, :3]
                for stride, padding in TRANSPOSED
            ),
            lax.conv_general_dilated(x, transposed, (3, 3), "SAME", dimension_numbers=LAYOUT)
            + bias[None, None, None, :3],
            jnp.concatenate(
                [
                    lax.conv_transpose(of_x, of_kernel, (2, 1), "SAME", dimension_numbers=LAYOUT)
                    for of_x, of_kernel in zip(jnp.split(x, 2, -1), jnp.split(kernel, 2, -1), strict=True)
                ],
                axis=-1,
            ),
        )
        return ours, theirs

    for ours, theirs in zip(*both(X), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


TRANSPOSED = [((2, 2), "SAME"), ((1, 3), "VALID"), ((3, 2), ((1, 2), (0, 1)))]


@pytest.mark.parametrize(
    ("window", "stride", "padding"), [(3, 2, "SAME"), (2, 3, ((1, 1), (0, 1))), ((2, 3), 1, "VALID")]
)
def test_a_tie_goes_where_jax_grad_of_reduce_window_sends_it(window, stride, padding):
    x = jnp.round(X)
    layer = fnn.max_pool2d(window, stride=stride, padding=padding)

    @jax.jit
    def both(x):
        y, _, residuals = layer.forward((), (), x, train=True)
        dy = jnp.arange(y.size, dtype=WIDEST).reshape(y.shape)
        return layer.backward(residuals, dy)[1], jax.vjp(lambda x: layer.forward((), (), x, train=True)[0], x)[1](dy)[0]

    by_hand, by_autodiff = both(x)
    np.testing.assert_array_equal(by_hand, by_autodiff)


@pytest.mark.parametrize(
    ("constructor", "shape"),
    [
        (partial(fnn.conv2d, stride=2, groups=2), (3, 8, 8, 4)),
        (partial(fnn.conv_transpose2d, stride=2), (3, 4, 4, 4)),
        (partial(fnn.conv1d, dilation=2), (3, 8, 4)),
    ],
)
def test_every_convolution_keeps_the_order_of_axes_that_is_fast_in_a_loop_on_cpus(constructor, shape):
    layer = constructor(4, 6, 3)

    def step(params, x):
        y, _, residuals = layer.forward(params, (), x, train=True)
        return layer.backward(residuals, y)

    program = jax.make_jaxpr(step)(layer.init(jax.random.key(0))[0], jnp.ones(shape))
    convolutions = [equation for equation in program.eqns if equation.primitive.name == "conv_general_dilated"]
    assert len(convolutions) == 3
    for equation in convolutions:
        image, kernel, result = equation.params["dimension_numbers"]
        axes = len(shape)
        assert image == result == (0, axes - 1, *range(1, axes - 1))
        assert kernel == (axes - 1, axes - 2, *range(axes - 2))


def test_a_convolution_s_operations_by_hand():
    """Forward, and both of the convolutions backward, cost the same, with a stride too."""
    (row,), _ = fnn.summarize(fnn.conv2d(4, 6, 3, stride=2, groups=2), (2, 8, 8, 4))
    places, kernel = 2 * 4 * 4, 3 * 3 * 2 * 6
    assert row.output_shape == (2, 4, 4, 6)
    assert row.parameters == kernel + 6
    assert row.forward_flops == 2 * places * kernel + places * 6
    assert row.backward_flops == 2 * 2 * places * kernel + places * 6
    assert row.residual_bytes == 2 * 8 * 8 * 4 * 4
    (row,), _ = fnn.summarize(fnn.avg_pool2d(2), (2, 8, 8, 4))
    assert row.forward_flops == 2 * 8 * 8 * 4 + 2 * 4 * 4 * 4


def test_dead_channels_are_measured():
    """A channel is dead where no sample passes a gradient at any position."""
    model = fnn.serial(fnn.conv2d(4, 4, 3), fnn.relu, fnn.global_avg_pool)
    params, state = model.init(KEY)
    params = (params[0]._replace(bias=jnp.array([-1e3, 1.0, 1.0, 1.0], WIDEST)), *params[1:])
    step = jax.jit(monitored_value_and_grad(model, fnn.softmax_cross_entropy))
    _, _, measures = step(params, state, (X, jnp.array([0, 1])))
    assert measures.dead.tolist() == [0.0, 0.25, 0.0]


@pytest.mark.thorough
def test_a_residual_network_is_checked_trained_saved_and_wrapped(tmp_path):
    inner = fnn.cnn(4, (3,), 2, kernel_size=2, normalization=fnn.batch_norm, skip=True)
    model = fnn.recompute(inner)
    batch = fnn.Batch(X[:, :4, :4], jnp.array([0, 1]))
    assert fnn.check_model(inner, fnn.softmax_cross_entropy, batch).ok
    trained = fnn.fit(model, fnn.softmax_cross_entropy, fnn.sgd(0.1), batch, epochs=2, key=KEY)
    assert trained.history.loss[1] < trained.history.loss[0]
    fnn.save(tmp_path / "cnn.safetensors", trained.params, trained.state)
    params, state = fnn.load(tmp_path / "cnn.safetensors", model)
    jax.tree.map(np.testing.assert_array_equal, (params, state), (trained.params, trained.state))
    narrow = fnn.mixed_precision(model)
    y, _, residuals = narrow.forward(params, state, batch.x, train=True)
    dparams, dx = narrow.backward(residuals, jnp.ones_like(y))
    assert {leaf.dtype for leaf in (y, dx, *jax.tree.leaves(dparams))} == {jnp.dtype(WIDEST)}


def forward(layer, x):
    params, state = jax.tree.map(lambda leaf: leaf.astype(WIDEST), layer.init(KEY))
    return layer.forward(params, state, x, train=True)


BAD = {
    "a kernel larger than the padded image": (
        lambda: forward(fnn.conv2d(4, 2, 7, padding=((0, 0), (1, 1))), X),
        ValueError,
        r"conv2d\(4, 2\): expected an image of at least 7 × 7 positions with its padding.*got 5 × 8",
    ),
    "a window larger than the image": (
        lambda: forward(fnn.max_pool2d(6), X),
        ValueError,
        r"max_pool2d: expected an image of at least 6 × 6 positions",
    ),
    "a sequence shorter than the kernel": (
        lambda: forward(fnn.conv1d(4, 2, 3, padding="VALID", dilation=3), X[0]),
        ValueError,
        r"conv1d\(4, 2\): expected an image of at least 7 positions with its padding",
    ),
    "channels first": (
        lambda: forward(fnn.conv2d(5, 2, 3), X),
        ValueError,
        r"conv2d\(5, 2\): expected x of shape \(batch, height, width, 5\), got \(2, 5, 6, 4\).*moveaxis\(x, 1, -1\)",
    ),
    "other channels": (
        lambda: forward(fnn.conv2d(3, 2, 3), X),
        ValueError,
        r"Give it 3 channels, or build the layer for the 4 that x has",
    ),
    "images without channels": (
        lambda: forward(fnn.conv2d(1, 2, 3), X[..., 0]),
        ValueError,
        r"expected x of shape \(batch, height, width, channels\), got \(2, 5, 6\).*x\[\.\.\., None\]",
    ),
    "another float": (
        lambda: forward(fnn.conv2d(4, 2, 3), X.astype(jnp.bfloat16)),
        TypeError,
        r"expected x in the parameters' dtype .*, got bfloat16",
    ),
    "groups that do not divide": (
        lambda: fnn.conv2d(4, 6, 3, groups=3),
        ValueError,
        r"conv2d\(groups\): expected a divisor of in_channels=4 and of out_channels=6, got 3",
    ),
    "groups of features that do not divide": (
        lambda: fnn.group_norm(6, 4),
        ValueError,
        r"group_norm\(groups\): expected a divisor of the 6 features, got 4. Pass one of \[1, 2, 3, 6\]",
    ),
    "a kernel size of three numbers": (
        lambda: fnn.conv2d(4, 2, (3, 3, 3)),
        TypeError,
        r"conv2d\(kernel_size\): expected a positive integer, or 2 of them",
    ),
    "a stride of zero": (lambda: fnn.conv1d(4, 2, 3, stride=0), ValueError, r"conv1d\(stride\): expected a positive"),
    "PyTorch's padding": (
        lambda: fnn.conv2d(4, 2, 3, padding=1),
        ValueError,
        r"conv2d\(padding\): expected 'SAME', 'VALID', or a pair .*got 1\. For one .* pass \(\(1, 1\), \(1, 1\)\)",
    ),
    "padding in lower case": (lambda: fnn.max_pool2d(2, padding="same"), ValueError, r"got 'same'"),
    "as much padding as window": (
        lambda: fnn.avg_pool2d(2, padding=((0, 0), (2, 0))),
        ValueError,
        r"avg_pool2d\(padding\): expected less padding than the window's 2 positions, got \(2, 0\)",
    ),
    "a mean over no positions": (
        lambda: forward(fnn.global_avg_pool, X[:, 0, 0]),
        ValueError,
        r"global_avg_pool: expected x of shape \(batch, \.\.\., channels\) with an axis of positions",
    ),
    "a network of no blocks": (lambda: fnn.cnn(1, (), 10), ValueError, r"cnn\(channels\): expected the channels"),
    "a pooling by its name": (
        lambda: fnn.cnn(1, (4,), 2, pooling="max"),
        TypeError,
        r"cnn\(pooling\): expected a layer",
    ),
    "an initializer that was not called": (
        lambda: fnn.conv2d(4, 2, 3, kernel_init=jax.nn.initializers.he_normal).init(KEY),
        ValueError,
        r"conv2d\(kernel_init\): expected a function that draws a kernel of shape \(3, 3, 4, 2\)",
    ),
    "zeros for signs": (
        lambda: fnn.hinge.forward(X, jnp.zeros_like(X)),
        ValueError,
        r"hinge\(target\): expected targets of -1 and 1, got 0.0 at index .*2 \* y - 1",
    ),
    "scores for log-probabilities": (
        lambda: fnn.kl_divergence.forward(X, jnp.ones_like(X)),
        ValueError,
        r"kl_divergence\(prediction\): expected log-probabilities, at most 0, got .*log_softmax",
    ),
    "no delta": (lambda: fnn.huber(0.0), ValueError, r"huber\(delta\): expected a number above 0, got 0"),
    "floats where labels belong": (
        lambda: fnn.softmax_cross_entropy_with(ignore_label=-1).forward(X, jnp.zeros(X.shape[:-1], WIDEST)),
        TypeError,
        r"softmax_cross_entropy_with\(ignore_label=-1\): expected class labels of an integer dtype, got float",
    ),
    "a label that is neither a class nor ignored": (
        lambda: fnn.softmax_cross_entropy_with(ignore_label=-1).forward(X, jnp.full(X.shape[:-1], -2)),
        ValueError,
        r"softmax_cross_entropy_with\(target\): expected class labels from 0 to 3, got -2",
    ),
    "all smoothing": (
        lambda: fnn.softmax_cross_entropy_with(label_smoothing=1.0),
        ValueError,
        r"label_smoothing\): expected a number in \[0, 1\), got 1",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD)
def test_what_is_refused(call, error, message, as_for_users):
    with pytest.raises(error, match=message):
        call()


def test_where_every_label_is_ignored_loss_and_gradient_are_zero():
    loss = fnn.softmax_cross_entropy_with(ignore_label=-1)
    value, residuals = loss.forward(X[0, 0], jnp.full(6, -1))
    assert value == 0
    assert not loss.backward(residuals, jnp.ones_like(value)).any()


@pytest.mark.parametrize(
    ("loss", "rows"),
    [
        (fnn.absolute_error, [[0.0], [1.0], [9.0]]),
        (fnn.huber(1.5), [[0.0], [1.0], [9.0]]),
        (fnn.hinge, [[1.0], [1.0], [-1.0]]),
    ],
    ids=["absolute_error", "huber", "hinge"],
)
def test_the_best_constant_is_the_best_of_a_grid(loss, rows):
    targets = jnp.array(rows, WIDEST)
    grid = jnp.linspace(-2, 10, 481, dtype=WIDEST)
    losses = jax.vmap(lambda constant: loss.forward(jnp.full_like(targets, constant), targets)[0])(grid)
    constant, lowest = loss.spec.constant_loss(np.float64(rows))
    np.testing.assert_allclose(constant, losses.min(), rtol=1e-3)
    assert lowest == 0
