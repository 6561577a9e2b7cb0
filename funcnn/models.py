"""Models: compositions of layers, without arithmetic of their own."""

import math
from collections.abc import Sequence
from itertools import pairwise

from jax.typing import DTypeLike

from funcnn._checks import check_callable, check_is_layer, checked_bool, positive_integer
from funcnn.layers.activations import gelu_tanh, identity, relu, sigmoid
from funcnn.layers.combinators import repeat, serial, skip as skip_connection
from funcnn.layers.convolution import Size
from funcnn.layers.convolution_layers import conv2d
from funcnn.layers.dropout import check_rate, dropout as dropout_layer
from funcnn.layers.embedding import embedding, unembedding
from funcnn.layers.initializers import normal, xavier
from funcnn.layers.linear import linear
from funcnn.layers.mixed_precision import checked_compute_dtype, mixed_precision
from funcnn.layers.normalization import layer_norm
from funcnn.layers.pooling import max_pool2d
from funcnn.layers.positions import learned_positions
from funcnn.layers.reshaping import global_avg_pool
from funcnn.layers.self_attention import self_attention
from funcnn.layers.tied import tied
from funcnn.layers.traversal import spec_of
from funcnn.types import KernelInit, Layer


def perceptron(in_features: int, activation: Layer = sigmoid) -> Layer:
    """A single neuron, y = activation(x · w + b).

    Args:
        in_features: features of x.
        activation: an activation layer.

    Returns:
        The model, from ``(batch, in_features)`` to ``(batch, 1)``.

    Raises:
        ValueError, TypeError: in_features isn't a positive integer, or activation isn't a layer.

    Example:
        >>> import jax
        >>> model = perceptron(3)
        >>> params, state = model.init(jax.random.key(0))
        >>> params[0].kernel.shape
        (3, 1)

    Source:
        Rosenblatt, "The perceptron: a probabilistic model for information storage and organization in the brain", 1958;
        with a differentiable activation, Widrow and Hoff 1960.
    """
    check_is_layer("perceptron(activation)", activation)
    return mlp((positive_integer("perceptron(in_features)", in_features), 1), output=activation)


def mlp(
    sizes: Sequence[int],
    activation: Layer = relu,
    output: Layer = identity,
    *,
    kernel_init: KernelInit | None = None,
    normalization=None,
    skip: bool = False,
    dropout: float = 0.0,
    compute_dtype: DTypeLike | None = None,
) -> Layer:
    """A multi-layer perceptron: blocks of linear, normalization, activation and dropout, then a linear output layer.

    Args:
        sizes: features of the input, units of every hidden layer, outputs: at least two numbers.
        activation: the activation layer of the hidden layers.
        output: the activation layer of the output: ``identity`` for a regression and for the losses on logits,
            ``sigmoid`` or ``softmax`` for the losses on probabilities.
        kernel_init: ``(key, shape) -> kernel``; ``None`` takes the initializer in the activation's spec: He for the
            ReLU family (ReLU, leaky ReLU, softplus, ELU, GELU, SiLU), Xavier for the others. Projections of skip
            connections take Xavier.
        normalization: a constructor of the width, ``batch_norm`` or ``layer_norm``, put before every hidden
            activation; or ``None``.
        skip: whether every hidden block has a skip connection, with a linear projection where the width changes.
        dropout: the probability to drop a hidden unit, in [0, 1).
        compute_dtype: the dtype in which the linear layers compute, by ``mixed_precision``: with ``jnp.bfloat16`` the
            matrix products are in bfloat16, parameters and all else in float32; ``None`` for the parameters' dtype.

    Returns:
        The model, a ``serial`` from ``(batch, sizes[0])`` to ``(batch, sizes[-1])``.

    Raises:
        ValueError, TypeError: fewer than two sizes, a size that isn't a positive integer, a rate outside [0, 1), an
            activation that isn't a layer, a normalization that isn't a constructor, a skip that isn't a bool, a
            compute_dtype that isn't floating.

    Example:
        >>> import jax
        >>> from funcnn.layers.normalization import batch_norm
        >>> model = mlp((64, 128, 64, 10), normalization=batch_norm, dropout=0.1)
        >>> params, state = model.init(jax.random.key(0))
        >>> sum(leaf.size for leaf in jax.tree.leaves(params))
        17610

    Source:
        Rumelhart, Hinton and Williams 1986; He et al. 2015 and Glorot and Bengio 2010 for the initializations.
    """
    if isinstance(sizes, str) or not isinstance(sizes, Sequence) or len(sizes) < 2:
        advice = "A network from 64 features to 10 classes with one hidden layer of 128 is mlp((64, 128, 10))."
        if getattr(sizes, "ndim", 0) == 1 and getattr(sizes, "size", 0) > 1:
            advice = "Pass a tuple in the place of the array: mlp(tuple(sizes))."
        raise ValueError(
            "mlp(sizes): expected at least two numbers in a tuple or a list, the input's features and the outputs, "
            f"got {sizes!r}. {advice}"
        )
    for size in sizes:
        positive_integer("mlp(sizes)", size)
    sizes = tuple(map(int, sizes))
    check_is_layer("mlp(activation)", activation)
    check_is_layer("mlp(output)", output)
    if normalization is not None:
        check_callable("mlp(normalization)", normalization, "Pass the constructor itself: normalization=batch_norm.")
    skip = checked_bool("mlp(skip)", skip)
    if compute_dtype is not None:
        compute_dtype = checked_compute_dtype("mlp(compute_dtype)", compute_dtype)
    dropped = dropout_layer(dropout)

    def affine(*settings):
        return linear(*settings) if compute_dtype is None else mixed_precision(linear(*settings), compute_dtype)

    hidden_init, output_init = (
        kernel_init if kernel_init is not None else spec_of(layer).kernel_init or xavier
        for layer in (activation, output)
    )
    layers: list[Layer] = []
    for in_features, out_features in pairwise(sizes[:-1]):
        block = [affine(in_features, out_features, hidden_init)]
        if normalization is not None:
            block.append(_normalization_layer("mlp", normalization, out_features))
        block.append(activation)
        if dropout != 0:
            block.append(dropped)
        if skip:
            projection = affine(in_features, out_features, xavier if kernel_init is None else kernel_init)
            shortcut = identity if in_features == out_features else projection
            block = [skip_connection(serial(*block), shortcut)]
        layers.extend(block)
    layers.append(affine(sizes[-2], sizes[-1], output_init))
    if output != identity:
        layers.append(output)
    return serial(*layers)


def cnn(
    in_channels: int,
    channels: Sequence[int],
    outputs: int,
    activation: Layer = relu,
    output: Layer = identity,
    *,
    kernel_size: Size = 3,
    convolutions: int = 1,
    pooling: Layer | None = max_pool2d(2),  # noqa: B008
    normalization=None,
    skip: bool = False,
    dropout: float = 0.0,
    kernel_init: KernelInit | None = None,
    compute_dtype: DTypeLike | None = None,
) -> Layer:
    """A convolutional network: blocks of convolution, normalization, activation and pooling, then a linear output.

    Every block keeps the image's size up to its pooling. After the last one come the mean of each channel over the
    positions, dropout, and a linear layer, so that images may have any size that the poolings leave something of. With
    ``skip``, two convolutions in a block and batch normalization it is a small ResNet: the activation follows the sum.

    Args:
        in_channels: channels of the images, ``(batch, height, width, in_channels)``.
        channels: the channels of each block, at least one number.
        outputs: classes, or numbers to predict.
        activation: the activation layer after each convolution.
        output: the activation layer of the output, as for ``mlp``.
        kernel_size: positions of the kernels, a number or a pair.
        convolutions: how many convolutions a block has, each with normalization and activation.
        pooling: the layer at the end of each block, ``max_pool2d(2)``, ``avg_pool2d(2)``, or ``None``.
        normalization: a constructor of the width, ``batch_norm``, put before every activation; or ``None``.
        skip: whether a skip connection leads around the convolutions of each block, with a convolution of one position
            where the channels change.
        dropout: the probability to drop a feature in front of the linear layer, in [0, 1).
        kernel_init: ``(key, shape) -> kernel``; ``None`` takes that in the activation's spec, as for ``mlp``.
        compute_dtype: the dtype in which convolutions and the linear layer compute, as for ``mlp``.

    Returns:
        The model, a ``serial`` from ``(batch, height, width, in_channels)`` to ``(batch, outputs)``.

    Raises:
        ValueError, TypeError: no channels, a count that isn't a positive integer, a layer or a constructor that isn't
            one, a rate outside [0, 1), a skip that isn't a bool, a compute_dtype that isn't floating.

    Example:
        >>> import jax
        >>> model = cnn(1, (16, 32), 10)
        >>> params, state = model.init(jax.random.key(0))
        >>> model.forward(params, state, jax.numpy.ones((2, 28, 28, 1)), train=False)[0].shape
        (2, 10)
        >>> sum(leaf.size for leaf in jax.tree.leaves(params))
        5130

    Source:
        LeCun et al. 1989; He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016, for the skips;
        Lin, Chen and Yan 2014 for the mean over positions.
    """
    widths = _channels_of_blocks(in_channels, channels)
    outputs, convolutions = (
        positive_integer("cnn(outputs)", outputs),
        positive_integer("cnn(convolutions)", convolutions),
    )
    for name, layer in (("activation", activation), ("output", output), ("pooling", pooling)):
        if name != "pooling" or layer is not None:
            check_is_layer(f"cnn({name})", layer)
    if normalization is not None:
        check_callable("cnn(normalization)", normalization, "Pass the constructor itself: normalization=batch_norm.")
    skip, dropped = checked_bool("cnn(skip)", skip), dropout_layer(dropout)
    if compute_dtype is not None:
        compute_dtype = checked_compute_dtype("cnn(compute_dtype)", compute_dtype)
    hidden_init, output_init, skip_init = (
        kernel_init if kernel_init is not None else suited or xavier
        for suited in (spec_of(activation).kernel_init, spec_of(output).kernel_init, xavier)
    )

    def computed(layer):
        return layer if compute_dtype is None else mixed_precision(layer, compute_dtype)

    layers: list[Layer] = []
    for before, width in pairwise(widths):
        block: list[Layer] = []
        for number in range(convolutions):
            block.append(computed(conv2d(width if number else before, width, kernel_size, kernel_init=hidden_init)))
            if normalization is not None:
                block.append(_normalization_layer("cnn", normalization, width))
            block.append(activation)
        if skip:
            shortcut = identity if before == width else computed(conv2d(before, width, 1, kernel_init=skip_init))
            block = [skip_connection(serial(*block[:-1]), shortcut), activation]
        layers.extend(block)
        if pooling is not None:
            layers.append(pooling)
    layers.append(global_avg_pool)
    if dropout != 0:
        layers.append(dropped)
    layers.append(computed(linear(widths[-1], outputs, output_init)))
    if output != identity:
        layers.append(output)
    return serial(*layers)


def _channels_of_blocks(in_channels, channels) -> list[int]:
    """Return the channels of the images and of each block."""
    if isinstance(channels, str) or not isinstance(channels, Sequence) or not channels:
        raise ValueError(
            f"cnn(channels): expected the channels of each block in a tuple or a list, got {channels!r}. Two blocks "
            "of 16 and 32 channels are cnn(1, (16, 32), 10)."
        )
    return [
        positive_integer("cnn(in_channels)", in_channels),
        *(positive_integer("cnn(channels)", width) for width in channels),
    ]


def _normalization_layer(model: str, normalization, features: int) -> Layer:
    """Return the normalization of a width, or raise where the constructor is none of a width."""
    name = getattr(normalization, "__name__", repr(normalization))
    advice = "Pass the constructor itself: normalization=batch_norm."
    if normalization is dropout_layer:
        advice = "Dropout has an argument of its own: dropout=0.1."
    try:
        layer = normalization(features)
        check_is_layer(f"{name}({features})", layer)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{model}(normalization): expected a constructor of the width, batch_norm or layer_norm, got {name}, and "
            f"{name}({features}) raises: {error} {advice}"
        ) from error
    return layer


def gpt(vocabulary_size: int, context: int, features: int, heads: int, layers: int, *, dropout: float = 0.0) -> Layer:
    """GPT-2: a transformer that predicts the next token at every position from the tokens up to it.

    Tokens are embedded and learned positions are added. Then come ``layers`` equal blocks, each with two skip
    connections::

        x ← x + attention(layer_norm(x))
        x ← x + linear(gelu_tanh(linear(layer_norm(x))))

    with causal attention and 4 · features units between the two linear layers; then a layer norm. The logits are
    products with the rows of the embedding, whose gradient is the sum over the two uses of its table (``tied``). The
    blocks are in a ``repeat``, so that compile time does not grow with ``layers``.

    Kernels and tables start with normal numbers of standard deviation 0.02, the kernels in front of the additions with
    0.02 / √(2 · layers), as in the paper; biases start at 0.

    Args:
        vocabulary_size: how many tokens there are.
        context: the most positions of a sequence.
        features: features of a position.
        heads: heads of the attention, a divisor of features.
        layers: how many blocks there are.
        dropout: the probability to drop an entry of the embedded input, of the attention weights, and of the output of
            each part of a block, in [0, 1).

    Returns:
        The model, from tokens ``(batch, time)`` with at most ``context`` positions to logits
        ``(batch, time, vocabulary_size)``. Train it by ``softmax_cross_entropy`` on the tokens shifted by one;
        ``generate`` samples from it.

    Raises:
        ValueError, TypeError: a size that isn't a positive integer, heads that don't divide the features, a rate
            outside [0, 1).

    Example:
        >>> import jax
        >>> params, _ = jax.eval_shape(gpt(50257, 1024, 768, 12, 12).init, jax.random.key(0))
        >>> f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,}"
        '124,439,808'

    Source:
        Radford, Wu, Child, Luan, Amodei and Sutskever, "Language models are unsupervised multitask learners", 2019,
        section 2.3.
    """
    for name, size in (("vocabulary_size", vocabulary_size), ("context", context), ("features", features)):
        positive_integer(f"gpt({name})", size)
    heads, layers = positive_integer("gpt(heads)", heads), positive_integer("gpt(layers)", layers)
    if features % heads:
        raise ValueError(
            f"gpt(heads): expected a divisor of the {features} features, got {heads}. "
            "Choose features as a multiple of the heads."
        )
    check_rate("gpt(dropout)", dropout)
    start, end = normal(0.02), normal(0.02 / math.sqrt(2 * layers))
    dropped = () if dropout == 0 else (dropout_layer(dropout),)
    attention = self_attention(features, heads, causal=True, dropout=dropout, kernel_init=start, output_init=end)
    hidden = (linear(features, 4 * features, start), gelu_tanh, linear(4 * features, features, end))
    block = serial(
        skip_connection(serial(layer_norm(features), attention, *dropped)),
        skip_connection(serial(layer_norm(features), *hidden, *dropped)),
    )
    return tied(
        embedding(vocabulary_size, features, start),
        learned_positions(context, features),
        *dropped,
        repeat(block, layers),
        layer_norm(features),
        unembedding(vocabulary_size, features, start),
    )
