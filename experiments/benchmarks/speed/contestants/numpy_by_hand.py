"""NumPy alone: the backward pass by hand, buffers kept from step to step, Adam in place over one flat vector."""

from itertools import pairwise

import numpy as np

from experiments.benchmarks.speed.contestants import BEFORE_UNDERFLOW, Contestant
from experiments.benchmarks.speed.networks import (
    EPSILON,
    LEARNING_RATE,
    MEAN_DECAY,
    SQUARE_DECAY,
    Network,
    rows,
)


def contestant(network: Network, x, y, start) -> Contestant | None:
    """Plain layers only: with batch normalization and skip connections nobody writes it by hand."""
    if not network.is_plain:
        return None
    params, gradients, mean, square, scratch = np.zeros((5, sum(k.size + b.size for k, b in start)), np.float32)
    layers, slopes = _views(network, params), _views(network, gradients)
    activations = [np.empty((network.batch_size, size), np.float32) for size in network.sizes[1:]]
    cotangents = [np.empty_like(a) for a in activations]
    numbers, random = np.arange(network.batch_size), np.random.default_rng(0)
    count = 0

    def restart():
        nonlocal count
        count, mean[...], square[...] = 0, 0, 0
        for layer, initial in zip(layers, start, strict=True):
            for view, value in zip(layer, initial, strict=True):
                view[...] = value

    def forward(x):
        for layer, ((kernel, bias), a) in enumerate(zip(layers, activations, strict=True)):
            np.matmul(x, kernel, out=a)
            a += bias
            if layer < len(layers) - 1 and network.activation == "relu":
                np.maximum(a, 0, out=a)
            elif layer < len(layers) - 1:
                np.negative(a, out=a)
                np.exp(a, out=a)
                a += 1
                np.reciprocal(a, out=a)
            x = a
        return x

    def loss_backward(y):
        """The loss of the outputs that forward left, and its gradient by them."""
        outputs, d = activations[-1], cotangents[-1]
        if network.loss == "mean_squared_error":
            np.subtract(outputs, y, out=d)
            loss = np.vdot(d, d) / d.size
            d *= np.float32(2 / d.size)
            return loss
        np.subtract(outputs, outputs.max(axis=1, keepdims=True), out=d)
        chosen = d[numbers, y]
        np.exp(d, out=d)
        total = d.sum(axis=1, keepdims=True)
        d /= total
        d[numbers, y] -= 1
        d /= len(y)
        return np.mean(np.log(total[:, 0]) - chosen)

    def backward(x):
        for layer in reversed(range(len(layers))):
            before, d = activations[layer - 1] if layer else x, cotangents[layer]
            dkernel, dbias = slopes[layer]
            np.matmul(before.T, d, out=dkernel)
            d.sum(axis=0, out=dbias)
            if layer:
                np.matmul(d, layers[layer][0].T, out=cotangents[layer - 1])
                if network.activation == "relu":
                    cotangents[layer - 1] *= before > 0
                else:
                    cotangents[layer - 1] *= before * (1 - before)

    def update():
        """Adam: m ← β₁ m + (1 − β₁) g and v ← β₂ v + (1 − β₂) g², both corrected; p ← p − α m̂/(√v̂ + ε)."""
        nonlocal count
        count += 1
        np.multiply(gradients, 1 - MEAN_DECAY, out=scratch)
        mean[...] *= MEAN_DECAY
        mean[...] += scratch
        np.square(gradients, out=scratch)
        scratch[...] *= 1 - SQUARE_DECAY
        square[...] *= SQUARE_DECAY
        square[...] += scratch
        np.multiply(square, 1 / (1 - SQUARE_DECAY**count), out=scratch)
        np.sqrt(scratch, out=scratch)
        scratch[...] += EPSILON
        np.divide(mean, scratch, out=scratch)
        scratch[...] *= LEARNING_RATE / (1 - MEAN_DECAY**count)
        params[...] -= scratch

    def step(x, y):
        forward(x)
        loss = loss_backward(y)
        backward(x)
        update()
        return loss

    batches = [(x[rows(network, k)], y[rows(network, k)]) for k in range(network.batches)]

    def train(steps):
        return np.array([step(*batches[number % network.batches]) for number in range(count, count + steps)])

    def epochs(number):
        for _ in range(number):
            order = random.permutation(len(x))
            for k in range(network.batches):
                chosen = order[rows(network, k)]
                step(x[chosen], y[chosen])

    def predictions():
        return np.concatenate([forward(x).copy() for x, _ in batches])

    restart()
    # An only batch needs no order.
    return Contestant(train, epochs if network.batches > 1 else train, predictions, restart, BEFORE_UNDERFLOW)


def _views(network: Network, flat: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(kernel, bias) of every layer as parts of one vector."""
    views, at = [], 0
    for wide, narrow in pairwise(network.sizes):
        middle, end = at + wide * narrow, at + (wide + 1) * narrow
        views.append((flat[at:middle].reshape(wide, narrow), flat[middle:end]))
        at = end
    return views
