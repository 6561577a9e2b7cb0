"""The layers, losses and models under test. Adding a layer is adding a row; every row gets every check."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import funcnn as fnn

# What is said to be in a narrower dtype is the same whatever JAX's default is: once is enough.
FLOATS = (jnp.float64, jnp.float32, jnp.bfloat16) if jax.config.read("jax_enable_x64") else (jnp.float32,)
WIDEST = FLOATS[0]
BATCH = 5
KEY = jax.random.key(20)
TOKENS = 7


class LayerCase(NamedTuple):
    """A layer and the shape of a sample of its input, features last; ``dtype`` is x's where it isn't floating."""

    name: str
    layer: fnn.Layer
    shape: tuple[int, ...] | int
    dtype: Any = None

    @property
    def sample(self) -> tuple[int, ...]:
        return self.shape if isinstance(self.shape, tuple) else (self.shape,)

    @property
    def features(self) -> int:
        return self.sample[-1]


class LossCase(NamedTuple):
    name: str
    loss: fnn.Loss
    prediction: jax.Array
    target: jax.Array


def _tokens(x):
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(f"lookup: expected tokens of an integer dtype, got {x.dtype}.")
    return x


def linear_block(features):
    return fnn.serial(fnn.linear(features, features), fnn.batch_norm(features), fnn.tanh, fnn.dropout(0.3))


class LookupParams(NamedTuple):
    table: jax.Array


def _lookup_backward(residuals, dy):
    tokens, table = residuals
    rows = tokens.ravel()
    return LookupParams(jnp.zeros_like(table).at[rows].add(dy.reshape(rows.size, table.shape[1]))), None


LOOKUP = fnn.Layer(
    lambda key: (LookupParams(jax.random.normal(key, (TOKENS, 4))), ()),
    lambda params, state, x, *, train, key=None: (params.table[_tokens(x)], state, (x, params.table)),
    _lookup_backward,
    fnn.LayerSpec("lookup", settings=(("tokens", TOKENS),)),
)
"""A layer of tokens, of the tests' own: a row of a table for each token."""


LAYERS = [
    LayerCase("identity", fnn.identity, 4),
    LayerCase("sigmoid", fnn.sigmoid, 4),
    LayerCase("tanh", fnn.tanh, 4),
    LayerCase("relu", fnn.relu, 4),
    LayerCase("leaky_relu", fnn.leaky_relu(0.1), 4),
    LayerCase("softplus", fnn.softplus, 4),
    LayerCase("elu", fnn.elu, 4),
    LayerCase("gelu", fnn.gelu, 4),
    LayerCase("gelu_tanh", fnn.gelu_tanh, 4),
    LayerCase("silu", fnn.silu, 4),
    LayerCase("softmax", fnn.softmax, 4),
    LayerCase("selu", fnn.selu, 4),
    LayerCase("mish", fnn.mish, 4),
    LayerCase("hard_tanh", fnn.hard_tanh, 4),
    LayerCase("squared_relu", fnn.squared_relu, 4),
    LayerCase("log_softmax", fnn.log_softmax, 4),
    LayerCase("linear", fnn.linear(4, 3), 4),
    LayerCase("batch_norm", fnn.batch_norm(4), 4),
    LayerCase("layer_norm", fnn.layer_norm(4), 4),
    LayerCase("group_norm", fnn.group_norm(6, 2), 6),
    LayerCase("rms_norm", fnn.rms_norm(4), 4),
    LayerCase("dropout", fnn.dropout(0.5), 4),
    LayerCase("serial", fnn.serial(fnn.linear(4, 6), fnn.softplus, fnn.linear(6, 2)), 4),
    LayerCase("skip", fnn.skip(fnn.serial(fnn.linear(4, 4), fnn.tanh)), 4),
    LayerCase("skip_projected", fnn.skip(fnn.serial(fnn.linear(4, 3), fnn.gelu), fnn.linear(4, 3)), 4),
    LayerCase("repeat", fnn.repeat(fnn.skip(linear_block(4)), 3), 4),
    LayerCase("recompute", fnn.recompute(linear_block(4)), 4),
    LayerCase("repeat_recompute", fnn.repeat(fnn.recompute(fnn.skip(linear_block(4))), 3), 4),
    LayerCase("linear_by_library", fnn.linear(30, 30), 30),
    # Free axes between the batch and the features.
    LayerCase("linear_of_sequences", fnn.linear(4, 3), (6, 4)),
    LayerCase("batch_norm_of_images", fnn.batch_norm(4), (2, 3, 4)),
    LayerCase("layer_norm_of_sequences", fnn.layer_norm(4), (6, 4)),
    LayerCase("softmax_of_sequences", fnn.softmax, (6, 4)),
    LayerCase("dropout_of_images", fnn.dropout(0.5), (2, 3, 4)),
    LayerCase("block_of_sequences", fnn.repeat(fnn.skip(linear_block(4)), 3), (6, 4)),
    # Convolutions and pooling.
    LayerCase("conv1d", fnn.conv1d(2, 3, 3, stride=2, padding=((2, 0),), dilation=2), (7, 2)),
    LayerCase("conv2d", fnn.conv2d(2, 3, (3, 2)), (4, 3, 2)),
    LayerCase(
        "conv2d_every_option",
        fnn.conv2d(2, 4, (2, 3), stride=(2, 1), padding=((1, 0), (2, 1)), dilation=(2, 1), groups=2),
        (5, 4, 2),
    ),
    LayerCase("conv2d_depthwise", fnn.conv2d(3, 3, 2, padding="VALID", groups=3), (3, 3, 3)),
    LayerCase("conv_transpose2d", fnn.conv_transpose2d(2, 3, 3, stride=2), (2, 3, 2)),
    LayerCase(
        "conv_transpose2d_every_option",
        fnn.conv_transpose2d(4, 6, (2, 3), stride=(2, 3), padding=((1, 2), (3, 3)), dilation=(2, 2), groups=2),
        (3, 2, 4),
    ),
    LayerCase("max_pool2d", fnn.max_pool2d(2), (4, 5, 2)),
    LayerCase("max_pool2d_overlapping", fnn.max_pool2d(3, stride=2, padding="SAME"), (4, 5, 2)),
    LayerCase("avg_pool2d", fnn.avg_pool2d((2, 3), stride=(1, 2), padding=((1, 0), (2, 1))), (4, 5, 2)),
    LayerCase("global_avg_pool", fnn.global_avg_pool, (2, 3, 4)),
    LayerCase("flatten", fnn.flatten, (2, 3, 4)),
    LayerCase("group_norm_of_images", fnn.group_norm(4, 2), (2, 3, 4)),
    # Tokens.
    LayerCase("lookup", LOOKUP, (), jnp.int32),
    LayerCase("lookup_of_sequences", fnn.serial(LOOKUP, fnn.linear(4, 3)), (6,), jnp.int32),
    LayerCase("sum_of_lookups", fnn.skip(LOOKUP, fnn.recompute(LOOKUP)), (6,), jnp.int32),
    # Sequences.
    LayerCase("embedding", fnn.embedding(TOKENS, 4), (6,), jnp.int32),
    LayerCase("learned_positions", fnn.learned_positions(8, 4), (6, 4)),
    LayerCase("sinusoidal_positions", fnn.sinusoidal_positions(8, 3), (6, 3)),
    LayerCase("rotary", fnn.rotary, (6, 4)),
    LayerCase("self_attention", fnn.self_attention(4, 2), (5, 4)),
    LayerCase(
        "self_attention_every_option",
        fnn.self_attention(8, 4, causal=True, key_value_heads=2, rotary=True, block_size=3),
        (5, 8),
    ),
    LayerCase("rnn", fnn.rnn(4, 3), (5, 4)),
    LayerCase("lstm", fnn.lstm(4, 3), (5, 4)),
    LayerCase("gru", fnn.gru(4, 3), (5, 4)),
    LayerCase("last_step", fnn.last_step, (5, 4)),
    LayerCase("swiglu", fnn.swiglu(4, 6), (2, 4)),
    LayerCase("tied", fnn.tied(fnn.embedding(TOKENS, 4), fnn.tanh, fnn.unembedding(TOKENS, 4)), (2, 3), jnp.int32),
]

MODELS = [
    LayerCase("perceptron", fnn.perceptron(3), 3),
    LayerCase("mlp", fnn.mlp((3, 5, 2)), 3),
    LayerCase(
        "mlp_every_option",
        fnn.mlp((3, 5, 5, 2), fnn.silu, fnn.softmax, normalization=fnn.layer_norm, skip=True, dropout=0.2),
        3,
    ),
    LayerCase("gpt", fnn.gpt(TOKENS, 6, 4, 2, 2), (5,), jnp.int32),
    LayerCase(
        "cnn",
        fnn.cnn(2, (3,), 2, convolutions=2, kernel_size=2, normalization=fnn.batch_norm, skip=True, dropout=0.2),
        (2, 2, 2),
    ),
]


def _random(number, *shape):
    return jax.random.normal(jax.random.fold_in(KEY, number), shape, WIDEST)


_labels = jnp.array([0, 2, 1, 2, 0])
_one_hot = jax.nn.one_hot(_labels, 3, dtype=WIDEST)
_soft = jax.nn.softmax(_random(1, BATCH, 3))
_bits = (_random(2, BATCH, 3) > 0).astype(WIDEST)
_probabilities = jax.nn.softmax(_random(3, BATCH, 3))
_sequence_labels = jnp.array([[0, 2], [1, 1], [2, 0], [0, 1], [2, 2]])
_sequence_one_hot = jax.nn.one_hot(_sequence_labels, 3, dtype=WIDEST)
_sequence_probabilities = jax.nn.softmax(_random(8, BATCH, 2, 3))
_labels_or_none = jnp.array([[0, 2], [-1, 1], [2, -1], [-1, -1], [2, 2]])
_signs = 2 * _bits - 1
_image_bits = (_random(9, BATCH, 2, 2, 3) > 0).astype(WIDEST)

LOSSES = [
    LossCase("mean_squared_error", fnn.mean_squared_error, _random(4, BATCH, 3), _random(5, BATCH, 3)),
    LossCase("absolute_error", fnn.absolute_error, _random(4, BATCH, 3), _random(5, BATCH, 3)),
    LossCase("huber", fnn.huber(0.7), _random(4, BATCH, 3), _random(5, BATCH, 3)),
    LossCase("hinge", fnn.hinge, _random(6, BATCH, 3), _signs),
    LossCase("kl_divergence", fnn.kl_divergence, jnp.log(_probabilities), _soft),
    LossCase("kl_divergence_one_hot", fnn.kl_divergence, jnp.log(_probabilities), _one_hot),
    LossCase(
        "softmax_cross_entropy_with_smoothing",
        fnn.softmax_cross_entropy_with(label_smoothing=0.2),
        _random(7, BATCH, 3),
        _soft,
    ),
    LossCase(
        "softmax_cross_entropy_with_ignored",
        fnn.softmax_cross_entropy_with(ignore_label=-1, label_smoothing=0.2),
        _random(7, BATCH, 2, 3),
        _labels_or_none,
    ),
    LossCase("binary_cross_entropy", fnn.binary_cross_entropy, _probabilities, _bits),
    LossCase("binary_cross_entropy_soft", fnn.binary_cross_entropy, _probabilities, _soft),
    LossCase("categorical_cross_entropy_labels", fnn.categorical_cross_entropy, _probabilities, _labels),
    LossCase("categorical_cross_entropy_one_hot", fnn.categorical_cross_entropy, _probabilities, _one_hot),
    LossCase("sigmoid_cross_entropy_multi_label", fnn.sigmoid_cross_entropy, _random(6, BATCH, 3), _bits),
    LossCase("softmax_cross_entropy_labels", fnn.softmax_cross_entropy, _random(7, BATCH, 3), _labels),
    LossCase("softmax_cross_entropy_one_hot", fnn.softmax_cross_entropy, _random(7, BATCH, 3), _one_hot),
    LossCase("softmax_cross_entropy_soft", fnn.softmax_cross_entropy, _random(7, BATCH, 3), _soft),
    LossCase("softmax_cross_entropy_any_weights", fnn.softmax_cross_entropy, _random(7, BATCH, 3), _bits),
    LossCase(
        "mean_squared_error_images", fnn.mean_squared_error, _random(4, BATCH, 2, 2, 3), _random(5, BATCH, 2, 2, 3)
    ),
    LossCase("sigmoid_cross_entropy_images", fnn.sigmoid_cross_entropy, _random(6, BATCH, 2, 2, 3), _image_bits),
    LossCase(
        "categorical_cross_entropy_sequence_labels",
        fnn.categorical_cross_entropy,
        _sequence_probabilities,
        _sequence_labels,
    ),
    LossCase(
        "categorical_cross_entropy_sequence_one_hot",
        fnn.categorical_cross_entropy,
        _sequence_probabilities,
        _sequence_one_hot,
    ),
    LossCase(
        "softmax_cross_entropy_sequence_labels", fnn.softmax_cross_entropy, _random(7, BATCH, 2, 3), _sequence_labels
    ),
    LossCase(
        "softmax_cross_entropy_sequence_one_hot", fnn.softmax_cross_entropy, _random(7, BATCH, 2, 3), _sequence_one_hot
    ),
]


def cast(tree, dtype):
    """Floating leaves in ``dtype``; integers and keys as they are."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


@functools.cache
def drawn(case: LayerCase, dtype=WIDEST, batch=BATCH):
    """Params, state and x of a row, nothing at its default: no scale is 1, no bias 0, no running mean 0.

    NumPy draws them, so that nothing compiles; the state is positive, as variances are.
    """
    if dtype != WIDEST:  # The same numbers, rounded.
        return cast(drawn(case, batch=batch), dtype)
    params, state = jax.eval_shape(case.layer.init, KEY)
    rng = np.random.default_rng(len(case.name))
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0.2, 0.6, leaf.shape), leaf.dtype), params)
    state = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.3, 1.3, leaf.shape), leaf.dtype), state)
    return params, state, drawn_input(case, dtype, batch)


def drawn_input(case: LayerCase, dtype=WIDEST, batch=BATCH) -> jax.Array:
    """An input of a row: normal numbers, or tokens."""
    rng, shape = np.random.default_rng(2), (batch, *case.sample)
    if case.dtype is None:
        return jnp.asarray(rng.normal(size=shape), dtype)
    return jnp.asarray(rng.integers(0, TOKENS, shape), case.dtype)


def in_numpy(leaf):
    """The leaf in the widest dtype, as NumPy's array: nothing compiles for its shape."""
    return np.asarray(leaf).astype(WIDEST)


def largest(tree) -> float:
    """The largest absolute entry of a tree; NaN where there is one, which Python's max would pass over."""
    return float(np.max([np.abs(in_numpy(leaf)).max(initial=0.0) for leaf in jax.tree.leaves(tree)], initial=0.0))


def largest_gap(first, second) -> float:
    """The largest difference of an entry between two trees of one structure."""
    return largest(jax.tree.map(lambda a, b: in_numpy(a) - in_numpy(b), first, second))


def relative_gap(first, reference) -> float:
    """The largest difference, over the largest entry of the reference tree."""
    return largest_gap(first, reference) / (largest(reference) or 1.0)


def named(cases):
    """Arguments of ``pytest.mark.parametrize`` for rows of this file."""
    return {"argnames": "case", "argvalues": cases, "ids": [case.name for case in cases]}
