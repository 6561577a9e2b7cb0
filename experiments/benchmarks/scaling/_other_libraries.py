"""One network after another: the same training in NumPy by hand, scikit-learn and PyTorch.

Each maker takes a ``Task`` and returns ``train(epochs) -> losses``, which goes on with the same network; a loop over
many networks has the rate of one. Where an epoch has several batches, each is shuffled anew.
"""

import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

try:
    import torch
except ImportError:
    torch = None

Train = Callable[[int], np.ndarray]


class Task(NamedTuple):
    """What is trained, by Adam, with ReLU between the layers.

    Fields:
        sizes: as for ``fnn.mlp``; one output is for the sigmoid cross-entropy, more are for the softmax's.
        x, y: float32 features, integer labels.
        batch_size: divides the number of samples.
        start: ``(kernel, bias)`` of every layer; NumPy's may have many networks as first axis.
    """

    sizes: tuple[int, ...]
    x: np.ndarray
    y: np.ndarray
    batch_size: int
    learning_rate: float
    start: tuple[tuple[np.ndarray, np.ndarray], ...]

    @property
    def steps(self) -> int:
        return len(self.x) // self.batch_size


def batches(task: Task, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches of an epoch."""
    if task.steps == 1:
        yield task.x, task.y
        return
    for rows in rng.permutation(len(task.x)).reshape(task.steps, task.batch_size):
        yield task.x[rows], task.y[rows]


def numpy_by_hand(task: Task) -> Train:
    """Forward, backward and Adam in NumPy; all networks at once where the start has an axis for them."""
    networks = task.start[0][0].shape[:-2]
    # All layers are views of one array: Adam is the same few calls however many there are.
    count = sum((before + 1) * after for before, after in pairwise(task.sizes))
    p, g, m, v, change = (np.zeros((*networks, count), np.float32) for _ in range(5))
    layers, gradients = _layers_of(p, task.sizes), _layers_of(g, task.sizes)
    for (kernel, bias), start in zip(layers, task.start, strict=True):
        kernel[...], bias[...] = start[0], start[1][..., None, :]
    output_gradient = _sigmoid_gradient if task.sizes[-1] == 1 else _softmax_gradient
    rng, step = np.random.default_rng(0), 0

    def backward(x, y):
        inputs = [x]
        for kernel, bias in layers[:-1]:
            z = inputs[-1] @ kernel
            z += bias
            inputs.append(np.maximum(z, 0, out=z))
        logits = inputs[-1] @ layers[-1][0]
        logits += layers[-1][1]
        loss, dz = output_gradient(logits, y)
        dz /= task.batch_size
        for number in reversed(range(len(layers))):
            dkernel, dbias = gradients[number]
            np.matmul(np.swapaxes(inputs[number], -1, -2), dz, out=dkernel)
            np.sum(dz, axis=-2, keepdims=True, out=dbias)
            if number:
                dz = dz @ np.swapaxes(layers[number][0], -1, -2)
                dz *= inputs[number] > 0
        return loss

    def update():
        np.multiply(m, 0.9, out=m)
        np.add(m, np.multiply(g, 1 - 0.9, out=change), out=m)
        np.multiply(v, 0.999, out=v)
        np.multiply(g, g, out=g)
        np.add(v, np.multiply(g, 1 - 0.999, out=g), out=v)
        np.sqrt(np.divide(v, 1 - 0.999**step, out=change), out=change)
        np.add(change, 1e-8, out=change)
        np.divide(m, change, out=change)
        np.subtract(p, np.multiply(change, task.learning_rate / (1 - 0.9**step), out=change), out=p)

    def train(epochs: int) -> np.ndarray:
        nonlocal step
        losses = []
        for _ in range(epochs):
            for x, y in batches(task, rng):
                step += 1
                losses.append(backward(x, y))
                update()
        return np.array(losses)

    return train


def _layers_of(flat: np.ndarray, sizes: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Views of the last axis: kernels ``(..., in, out)`` and biases ``(..., 1, out)``."""
    layers, at = [], 0
    for before, after in pairwise(sizes):
        kernel = flat[..., at : at + before * after].reshape(*flat.shape[:-1], before, after)
        at += before * after
        layers.append((kernel, flat[..., None, at : at + after]))
        at += after
    return layers


def _sigmoid_gradient(logits, y):
    """The loss of every network, and what its gradient by the logits is before it is divided by the batch."""
    z, target = logits[..., 0], y.astype(np.float32)
    loss = (np.logaddexp(0, z) - z * target).mean(axis=-1)
    return loss, (1 / (1 + np.exp(-z)) - target)[..., None]


def _softmax_gradient(logits, y):
    rows = np.arange(len(y))
    logits -= logits.max(axis=-1, keepdims=True)
    dz = np.exp(logits)
    sums = dz.sum(axis=-1, keepdims=True)
    loss = (np.log(sums[..., 0]) - logits[..., rows, y]).mean(axis=-1)
    dz /= sums
    dz[..., rows, y] -= 1
    return loss, dz


def scikit_learn(task: Task) -> Train:
    """``MLPClassifier``; two classes are one logistic output to it, and the start is its own."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    def train(epochs: int) -> np.ndarray:
        network = MLPClassifier(
            task.sizes[1:-1], solver="adam", alpha=0.0, batch_size=task.batch_size, max_iter=epochs, tol=0.0,
            learning_rate_init=task.learning_rate, n_iter_no_change=epochs + 1, shuffle=task.steps > 1, random_state=0,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            network.fit(task.x, task.y)
        return np.array(network.loss_curve_)

    return train


def pytorch(task: Task) -> Train | None:
    """A plain loop with the fused Adam, on one thread; ``None`` where PyTorch isn't installed.

    For networks this small a second thread only waits: one is faster, and much faster where cores are busy.
    """
    if torch is None:
        return None
    linears = [torch.nn.Linear(before, after) for before, after in pairwise(task.sizes)]
    with torch.no_grad():
        for linear, (kernel, bias) in zip(linears, task.start, strict=True):
            linear.weight.copy_(torch.from_numpy(np.array(kernel.T)))
            linear.bias.copy_(torch.from_numpy(np.array(bias)))
    model = torch.nn.Sequential(*[part for linear in linears for part in (linear, torch.nn.ReLU())][:-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=task.learning_rate, fused=True)
    x, y = torch.from_numpy(task.x), torch.from_numpy(task.y).long()
    loss_of = torch.nn.functional.cross_entropy
    if task.sizes[-1] == 1:
        y, loss_of = y.float()[:, None], torch.nn.functional.binary_cross_entropy_with_logits

    def train(epochs: int) -> np.ndarray:
        losses, threads = [], torch.get_num_threads()
        torch.set_num_threads(1)
        for _ in range(epochs):
            parts = [(x, y)]
            if task.steps > 1:
                order = torch.randperm(len(x)).split(task.batch_size)
                parts = ((x[rows], y[rows]) for rows in order)
            for features, target in parts:
                optimizer.zero_grad(set_to_none=True)
                loss = loss_of(model(features), target)
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
        torch.set_num_threads(threads)
        return torch.stack(losses).numpy()

    return train
