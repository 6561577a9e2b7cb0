"""The CNN, the LSTM and the GPT of PyTorch's own layers; queries, keys and values are one map, as in nanoGPT."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from experiments.benchmarks.speed import architectures
from experiments.benchmarks.speed.architectures import Architecture, Start


class CNN(nn.Module):
    def __init__(self, start: Start):
        super().__init__()
        blocks: list[nn.Module] = []
        for number, (before, width) in enumerate(((1, architectures.CHANNELS[0]), architectures.CHANNELS)):
            kernel, bias = start[f"convolution{number}.kernel"], start[f"convolution{number}.bias"]
            convolution = nn.Conv2d(before, width, 3, padding=1)
            # PyTorch keeps its kernels (out, in, height, width).
            fill(convolution, weight=kernel.transpose(3, 2, 0, 1), bias=bias)
            blocks += [convolution, nn.ReLU(), nn.MaxPool2d(2)]
        self.blocks, self.output = nn.Sequential(*blocks), linear(start, "output")

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.blocks(x.movedim(-1, 1)).mean((2, 3)))


class LSTM(nn.Module):
    def __init__(self, start: Start):
        super().__init__()
        self.lstm, self.output = (
            nn.LSTM(architectures.IMAGE, architectures.HIDDEN, batch_first=True),
            linear(start, "output"),
        )
        fill(
            self.lstm, weight_ih_l0=start["input.kernel"].T, weight_hh_l0=start["hidden.kernel"].T,
            bias_ih_l0=start["bias"], bias_hh_l0=np.zeros_like(start["bias"]),
        )  # fmt: skip
        # PyTorch adds two biases, each of which Adam would move by a whole step.
        self.lstm.bias_hh_l0.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.lstm(x)[0][:, -1])


class Block(nn.Module):
    def __init__(self, start: Start, layer: int):
        super().__init__()
        self.norm1, self.norm2 = (norm(start, name, layer) for name in ("norm1", "norm2"))
        joined = {
            f"attention.{leaf}": np.concatenate(
                [start[f"{name}.{leaf}"] for name in ("query", "key", "value")], axis=-1
            )
            for leaf in ("kernel", "bias")
        }
        self.attention = linear(joined, "attention", layer)
        self.output, self.wide, self.narrow = (linear(start, name, layer) for name in ("output", "wide", "narrow"))
        self.gelu = nn.GELU(approximate="tanh")

    def forward(self, x: Tensor) -> Tensor:
        parts = self.attention(self.norm1(x)).split(architectures.FEATURES, dim=-1)
        q, k, v = (part.unflatten(-1, (architectures.HEADS, -1)).transpose(1, 2) for part in parts)
        x = x + self.output(scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.narrow(self.gelu(self.wide(self.norm2(x))))


class GPT(nn.Module):
    def __init__(self, start: Start):
        super().__init__()
        self.tokens, self.positions = (
            nn.Embedding(architectures.VOCABULARY, architectures.FEATURES),
            nn.Embedding(architectures.CONTEXT, architectures.FEATURES),
        )
        fill(self.tokens, weight=start["tokens"])
        fill(self.positions, weight=start["positions"])
        self.blocks = nn.Sequential(*(Block(start, layer) for layer in range(architectures.LAYERS)))
        self.norm = norm(start, "norm")

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.blocks(self.tokens(tokens) + self.positions.weight)
        return self.norm(x) @ self.tokens.weight.T


def fill(module: nn.Module, **arrays: np.ndarray) -> None:
    """Set the parameters of a layer."""
    with torch.no_grad():
        for name, array in arrays.items():
            getattr(module, name).copy_(torch.from_numpy(np.array(array)))


def linear(start: Start, name: str, layer: int | None = None) -> nn.Linear:
    """Return a linear layer with our parameters; PyTorch keeps its kernels ``(out, in)``."""
    kernel, bias = _of(start, f"{name}.kernel", layer), _of(start, f"{name}.bias", layer)
    module = nn.Linear(*kernel.shape)
    fill(module, weight=kernel.T, bias=bias)
    return module


def norm(start: Start, name: str, layer: int | None = None) -> nn.LayerNorm:
    module = nn.LayerNorm(architectures.FEATURES)
    fill(module, weight=_of(start, f"{name}.scale", layer), bias=_of(start, f"{name}.bias", layer))
    return module


def _of(start, name, layer):
    return start[name] if layer is None else start[name][layer]


def built(network: Architecture, start: Start) -> nn.Module:
    return {"CNN": CNN, "LSTM": LSTM, "GPT": GPT}[network.name](start)
