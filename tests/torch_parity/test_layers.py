"""Every layer beside PyTorch's in float64: forward, dx, and the gradients of all parameters.

A twin is a function of parameters in funcnn's layout, state, and x. It brings them to PyTorch's layout, so that
PyTorch's autodiff returns gradients in funcnn's layout.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name in PyTorch's documentation

import funcnn as fnn
from tests.cases import LAYERS, LayerCase, drawn
from tests.torch_parity.tensors import arrays, first, gradients, last, tensor, tensors


def linear(p, x):
    return F.linear(x, p.kernel.T, p.bias)


def elementwise(function, **settings):
    return lambda p, s, x: function(x, **settings)


def batch_norm(p, s, x, *, train=True):
    mean, variance = s.mean.clone(), s.variance.clone()
    return last(F.batch_norm(first(x), mean, variance, p.scale, p.bias, training=train, momentum=0.1, eps=1e-5))


def group_norm(groups):
    return lambda p, s, x: last(F.group_norm(first(x), groups, p.scale, p.bias, 1e-5))


def layer_norm(p, s, x):
    return F.layer_norm(x, x.shape[-1:], p.scale, p.bias, 1e-5)


def padded(x, pads, value=0.0):
    """Return channels-first images with padding; the pairs in the order of the axes."""
    return F.pad(first(x), [count for pair in reversed(pads) for count in pair], value=value)


def convolution(axes, pads=None, **settings):
    """Return the twin of a convolution over one or two axes; without pads, PyTorch's ``padding="same"``."""
    run = F.conv1d if axes == 1 else F.conv2d
    if pads is None:
        pads, settings = ((0, 0),) * axes, {"padding": "same", **settings}

    def twin(p, s, x):
        weight = p.kernel.movedim((-1, -2), (0, 1))
        return last(run(padded(x, pads), weight, p.bias, **settings))

    return twin


def conv_transpose2d(rows=None, groups=1, **settings):
    """Return the twin of a transposed convolution; ``rows`` is a multiple of x's positions that is kept."""

    def twin(p, s, x):
        # PyTorch's weight has all channels of x and those of a group of y.
        by_group = p.kernel.flip(0, 1).permute(2, 3, 0, 1).chunk(groups, dim=1)
        y = F.conv_transpose2d(first(x), torch.cat(by_group), p.bias, groups=groups, **settings)
        return last(y if rows is None else y[..., : rows * x.shape[1], : rows * x.shape[2]])

    return twin


def pool(run, pads=((0, 0), (0, 0)), value=0.0, **settings):
    return lambda p, s, x: last(run(padded(x, pads, value), **settings))


def rotary(x):
    """Return x with the pairs of features i and i + features/2 multiplied by e^(iθ), as complex numbers."""
    real, imaginary = x.chunk(2, dim=-1)
    frequencies = 10000.0 ** -(torch.arange(real.shape[-1], dtype=x.dtype) / real.shape[-1])
    angles = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * frequencies
    turned = torch.complex(real, imaginary) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], dim=-1)


def attention_module(heads, *, causal=False):
    """Return the twin of self-attention by ``torch.nn.MultiheadAttention``."""

    def twin(p, s, x):
        module = torch.nn.MultiheadAttention(x.shape[-1], heads, batch_first=True, dtype=x.dtype)
        weights = {
            "in_proj_weight": torch.cat([p.query.kernel, p.key.kernel, p.value.kernel], dim=1).T,
            "in_proj_bias": torch.cat([p.query.bias, p.key.bias, p.value.bias]),
            "out_proj.weight": p.output.kernel.T,
            "out_proj.bias": p.output.bias,
        }
        mask = torch.nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype) if causal else None
        settings = {"attn_mask": mask, "is_causal": causal, "need_weights": False}
        return torch.func.functional_call(module, weights, (x, x, x), settings)[0]

    return twin


def grouped_attention(heads, *, turn=lambda x: x, **settings):
    """Return the twin of self-attention with shared keys and values by ``scaled_dot_product_attention``."""

    def twin(p, s, x):
        width = x.shape[-1] // heads
        q, k, v = (linear(part, x).unflatten(-1, (-1, width)).transpose(1, 2) for part in (p.query, p.key, p.value))
        y = F.scaled_dot_product_attention(turn(q), turn(k), v, enable_gqa=True, **settings)
        return linear(p.output, y.transpose(1, 2).flatten(2))

    return twin


def recurrent(run, states=1):
    """Return the twin of a recurrent layer. PyTorch has two biases, one of the inputs and one of the hidden units."""

    def twin(p, s, x):
        features = p.hidden_kernel.shape[0]
        hidden_bias = torch.zeros_like(p.bias)
        if hasattr(p, "hidden_bias"):
            hidden_bias = torch.cat([hidden_bias[: 2 * features], p.hidden_bias])
        start = torch.zeros(1, x.shape[0], features, dtype=x.dtype)
        weights = [p.input_kernel.T.contiguous(), p.hidden_kernel.T.contiguous(), p.bias, hidden_bias]
        return run(x, start if states == 1 else (start,) * states, weights, True, 1, 0.0, False, False, True)[0]

    return twin


def block(p, s, x):
    """The tests' ``linear_block`` in prediction: linear, batch norm by its running statistics, tanh; no dropout."""
    return torch.tanh(batch_norm(p[1], s[1], linear(p[0], x), train=False))


def repeated(p, s, x):
    for number in range(3):
        at = [jax.tree.map(lambda leaf, number=number: leaf[number], tree) for tree in (p, s)]
        x = x + block(at[0].inner, at[1].inner, x)
    return x


def swiglu(p, s, x):
    return linear(p.down, F.silu(linear(p.gate, x)) * linear(p.up, x))


def tied(p, s, x):
    table = p[0].table
    return F.linear(torch.tanh(F.embedding(x, table)), table)


SAME_POOL = ((0, 1), (1, 1))  # of a window of 3 with stride 2 over 4 × 5 positions
EVERY_CONV = {"stride": (2, 1), "dilation": (2, 1), "groups": 2}

TWINS = {
    "identity": elementwise(torch.nn.Identity()),
    "sigmoid": elementwise(torch.sigmoid),
    "tanh": elementwise(torch.tanh),
    "relu": elementwise(F.relu),
    "leaky_relu": elementwise(F.leaky_relu, negative_slope=0.1),
    "softplus": elementwise(F.softplus),
    "elu": elementwise(F.elu),
    "gelu": elementwise(F.gelu),
    "gelu_tanh": elementwise(F.gelu, approximate="tanh"),
    "silu": elementwise(F.silu),
    "softmax": elementwise(F.softmax, dim=-1),
    "selu": elementwise(F.selu),
    "mish": elementwise(F.mish),
    "hard_tanh": elementwise(F.hardtanh),
    "squared_relu": elementwise(lambda x: F.relu(x) ** 2),
    "log_softmax": elementwise(F.log_softmax, dim=-1),
    "linear": lambda p, s, x: linear(p, x),
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm(2),
    "rms_norm": lambda p, s, x: F.rms_norm(x, x.shape[-1:], p.scale, 1e-5),
    "serial": lambda p, s, x: linear(p[2], F.softplus(linear(p[0], x))),
    "skip": lambda p, s, x: x + torch.tanh(linear(p.inner[0], x)),
    "skip_projected": lambda p, s, x: linear(p.shortcut, x) + F.gelu(linear(p.inner[0], x)),
    "repeat": repeated,
    "recompute": block,
    "repeat_recompute": repeated,
    "linear_by_library": lambda p, s, x: linear(p, x),
    "linear_of_sequences": lambda p, s, x: linear(p, x),
    "batch_norm_of_images": batch_norm,
    "layer_norm_of_sequences": layer_norm,
    "softmax_of_sequences": elementwise(F.softmax, dim=-1),
    "block_of_sequences": repeated,
    "conv1d": convolution(1, ((2, 0),), stride=2, dilation=2),
    "conv2d": convolution(2, ((1, 1), (0, 1))),
    "conv2d_every_option": convolution(2, ((1, 0), (2, 1)), **EVERY_CONV),
    "conv2d_depthwise": convolution(2, ((0, 0), (0, 0)), groups=3),
    "conv_transpose2d": conv_transpose2d(2, stride=2),
    # PyTorch's padding p is d (k − 1) − p here, its output_padding is added behind.
    "conv_transpose2d_every_option": conv_transpose2d(
        stride=(2, 3), padding=(1, 1), output_padding=(1, 0), dilation=2, groups=2
    ),
    "max_pool2d": pool(F.max_pool2d, kernel_size=2),
    "max_pool2d_overlapping": pool(F.max_pool2d, SAME_POOL, -torch.inf, kernel_size=3, stride=2),
    "avg_pool2d": pool(F.avg_pool2d, ((1, 0), (2, 1)), kernel_size=(2, 3), stride=(1, 2)),
    "global_avg_pool": lambda p, s, x: F.adaptive_avg_pool2d(first(x), 1).flatten(1),
    "flatten": elementwise(torch.flatten, start_dim=1),
    "group_norm_of_images": group_norm(2),
    "lookup": lambda p, s, x: F.embedding(x, p.table),
    "lookup_of_sequences": lambda p, s, x: linear(p[1], F.embedding(x, p[0].table)),
    "sum_of_lookups": lambda p, s, x: F.embedding(x, p.inner.table) + F.embedding(x, p.shortcut.table),
    "embedding": lambda p, s, x: F.embedding(x, p.table),
    "learned_positions": lambda p, s, x: x + F.embedding(torch.arange(x.shape[1]), p.table),
    "rotary": lambda p, s, x: rotary(x),
    "self_attention": attention_module(2),
    "self_attention_every_option": grouped_attention(4, turn=rotary, is_causal=True),
    "rnn": recurrent(torch.rnn_tanh),
    "lstm": recurrent(torch.lstm, 2),
    "gru": recurrent(torch.gru),
    "last_step": lambda p, s, x: x[:, -1],
    "swiglu": swiglu,
    "tied": tied,
}
"""Twins of the rows of ``tests.cases.LAYERS``, by name."""

WITHOUT_TWIN = {
    "dropout": "it draws other random numbers",
    "dropout_of_images": "it draws other random numbers",
    "sinusoidal_positions": "PyTorch has none",
}
PREDICTING = {"repeat", "recompute", "repeat_recompute", "block_of_sequences"}
"""Rows with dropout, which are compared in prediction."""

MORE = [
    (LayerCase("batch_norm, prediction", fnn.batch_norm(4), (2, 3, 4)),
     lambda p, s, x: batch_norm(p, s, x, train=False)),
    (LayerCase("group_norm, one group", fnn.group_norm(4, 1), (2, 3, 4)), group_norm(1)),
    (LayerCase("group_norm, as many as features", fnn.group_norm(4, 4), (2, 3, 4)), group_norm(4)),
    (LayerCase("conv1d, SAME", fnn.conv1d(2, 3, 5), (7, 2)), convolution(1)),
    (LayerCase("conv1d, groups", fnn.conv1d(4, 6, 3, padding="VALID", groups=2), (7, 4)),
     convolution(1, ((0, 0),), groups=2)),
    (LayerCase("conv2d, stride", fnn.conv2d(2, 3, 3, stride=2, padding="VALID"), (6, 7, 2)),
     convolution(2, ((0, 0), (0, 0)), stride=2)),
    (LayerCase("conv2d, SAME with stride", fnn.conv2d(2, 3, 3, stride=2), (6, 7, 2)),
     convolution(2, ((0, 1), (1, 1)), stride=2)),
    (LayerCase("conv2d, dilation", fnn.conv2d(2, 3, (5, 3), dilation=(1, 2)), (5, 6, 2)),
     convolution(2, dilation=(1, 2))),
    (LayerCase("conv_transpose2d, VALID", fnn.conv_transpose2d(2, 3, 3, stride=2, padding="VALID"), (3, 4, 2)),
     conv_transpose2d(stride=2)),
    (LayerCase("conv_transpose2d, depthwise", fnn.conv_transpose2d(3, 6, 3, stride=2, padding="VALID", groups=3),
               (3, 4, 3)),
     conv_transpose2d(stride=2, groups=3)),
    (LayerCase("self_attention, causal", fnn.self_attention(6, 3, causal=True), (5, 6)),
     attention_module(3, causal=True)),
    (LayerCase("self_attention, blockwise", fnn.self_attention(6, 3, block_size=2), (5, 6)), attention_module(3)),
    (LayerCase("self_attention, one key head", fnn.self_attention(6, 3, key_value_heads=1), (5, 6)),
     grouped_attention(3)),
    (LayerCase("softplus, large", fnn.softplus, 4), elementwise(F.softplus, threshold=700)),
]  # fmt: skip
"""Settings that ``tests.cases`` has no row of."""

ROWS = [(case, TWINS[case.name]) for case in LAYERS if case.name in TWINS] + MORE


def by_funcnn(layer, params, state, x, dy, *, train):
    """Return forward, dx and the gradients of the parameters, and the new state."""

    @jax.jit
    def run(params, state, x, dy):
        y, new_state, residuals = layer.forward(params, state, x, train=train)
        dparams, dx = layer.backward(residuals, dy)
        return y, new_state, dparams, dx

    return run(params, state, x, dy)


@pytest.mark.parametrize(("case", "twin"), ROWS, ids=[case.name for case, _ in ROWS])
def test_layer(case, twin, parity):
    params, state, x = drawn(case)
    train = case.name not in PREDICTING and "prediction" not in case.name
    x = 100 * x if "large" in case.name else x
    leaves, given = tensors(params, is_leaf=True), tensor(x, is_leaf=True)
    y = twin(leaves, tensors(state), given)
    dy = np.random.default_rng(5).normal(size=y.shape)
    ours, _, dparams, dx = by_funcnn(case.layer, params, state, x, jnp.asarray(dy), train=train)
    assert ours.dtype == jnp.float64
    theirs = {"forward": arrays(y)}
    compared = {"forward": ours}
    if given.requires_grad:
        theirs["dx"], compared["dx"] = gradients(y, given, tensor(dy)), dx
    if jax.tree.leaves(params):
        theirs["parameters"], compared["parameters"] = gradients(y, leaves, tensor(dy)), dparams
    assert jax.tree.map(np.shape, compared) == jax.tree.map(np.shape, theirs)
    parity(case.name, compared, theirs)


def test_every_row_has_a_twin_or_a_reason():
    names = {case.name for case in LAYERS}
    assert names == set(TWINS) | set(WITHOUT_TWIN)


def test_running_statistics_of_batch_norm(parity):
    """PyTorch's running variance has the divisor n − 1 where funcnn's has n; the running means are equal."""
    layer = fnn.batch_norm(4)
    params, state, x = drawn(LayerCase("batch_norm_state", layer, (2, 3, 4)))
    _, new, _ = layer.forward(params, state, x, train=True)
    mean, variance = tensor(state.mean), tensor(state.variance)
    F.batch_norm(first(tensor(x)), mean, variance, training=True, momentum=0.1)
    count = x.size // x.shape[-1]
    kept = 0.9 * np.asarray(state.variance)
    unbiased = kept + (np.asarray(new.variance) - kept) * count / (count - 1)
    parity(
        "batch_norm, running statistics", {"mean": new.mean, "variance · n/(n − 1)": unbiased},
        {"mean": arrays(mean), "variance · n/(n − 1)": arrays(variance)},
    )  # fmt: skip


KINKS = [
    # layer, PyTorch's function, z, and the derivatives by funcnn and by PyTorch.
    (fnn.relu, F.relu, 0.0, 0.0, 0.0),
    (fnn.squared_relu, lambda x: F.relu(x) ** 2, 0.0, 0.0, 0.0),
    (fnn.elu, F.elu, 0.0, 1.0, 1.0),
    (fnn.leaky_relu(0.1), lambda x: F.leaky_relu(x, 0.1), 0.0, 0.1, 0.1),
    (fnn.hard_tanh, F.hardtanh, 1.0, 1.0, 0.0),
    (fnn.hard_tanh, F.hardtanh, -1.0, 1.0, 0.0),
]


@pytest.mark.parametrize(("layer", "function", "z", "ours", "theirs"), KINKS)
def test_derivatives_at_kinks(layer, function, z, ours, theirs):
    """They are equal but for hard tanh: funcnn has the slope inside, as ``jax.nn``, and PyTorch the one outside."""
    x = jnp.array([[z]])
    _, _, residuals = layer.forward((), (), x, train=True)
    assert layer.backward(residuals, jnp.ones_like(x))[1] == ours
    given = tensor(x, is_leaf=True)
    assert gradients(function(given).sum(), given) == theirs


def test_ties_of_a_maximum_go_to_the_first_entry_in_both():
    x = jnp.ones((1, 4, 4, 1))
    layer = fnn.max_pool2d(2)
    y, _, residuals = layer.forward((), (), x, train=True)
    given = tensor(x, is_leaf=True)
    theirs = gradients(F.max_pool2d(first(given), 2).sum(), given)
    np.testing.assert_array_equal(layer.backward(residuals, jnp.ones_like(y))[1], theirs)
