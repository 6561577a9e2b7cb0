"""PyTorch, eager: ``nn.Sequential`` and the fused Adam in a plain loop, gradients set to ``None``.

Batches are slices and gathers of tensors in memory, which is faster than a ``DataLoader`` over a ``TensorDataset``.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from experiments.benchmarks.speed.architectures import Architecture
from experiments.benchmarks.speed.contestants import BEFORE_UNDERFLOW, Contestant, pytorch_architectures
from experiments.benchmarks.speed.networks import (
    EPSILON,
    LEARNING_RATE,
    MEAN_DECAY,
    SQUARE_DECAY,
    AnyNetwork,
    Network,
    rows,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Step = Criterion = Callable[[Tensor, Tensor], Tensor]


class Skip(nn.Module):
    """y = inner(x) + shortcut(x)."""

    def __init__(self, inner: nn.Module, shortcut: nn.Module):
        super().__init__()
        self.inner, self.shortcut = inner, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.shortcut(x)


def contestant(network: AnyNetwork, x, y, start) -> Contestant:
    model = built(network, start)
    optimizer, criterion = adam(model, fused=True), criterion_of(network)

    def step(x, y):
        optimizer.zero_grad(set_to_none=True)
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return trained_by(network, x, y, model, optimizer, step)


def built(network: AnyNetwork, start) -> nn.Module:
    """The model with our parameters."""
    made = pytorch_architectures.built if isinstance(network, Architecture) else _perceptron
    return made(network, start).to(DEVICE)


def _perceptron(network: Network, start) -> nn.Sequential:
    """Linear layers and activations; PyTorch keeps its kernels ``(out, in)``."""
    activation = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}[network.activation]
    linears = [_linear(*pair) for pair in start]
    count = len(network.sizes) - 1
    blocks: list[nn.Module] = []
    for layer, linear in enumerate(linears[: count - 1]):
        norm = [nn.BatchNorm1d(network.sizes[layer + 1])] if network.normalization else []
        block = [linear, *norm, activation()]
        if network.skip:
            is_projected = layer in network.projected
            shortcut = linears[count + network.projected.index(layer)] if is_projected else nn.Identity()
            block = [Skip(nn.Sequential(*block), shortcut)]
        blocks += block
    return nn.Sequential(*blocks, linears[count - 1])


def _linear(kernel: np.ndarray, bias: np.ndarray) -> nn.Linear:
    linear = nn.Linear(*kernel.shape)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(kernel.T.copy()))
        linear.bias.copy_(torch.from_numpy(bias))
    return linear


def adam(model: nn.Module, **form: bool) -> torch.optim.Adam:
    decays = (MEAN_DECAY, SQUARE_DECAY)
    return torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, betas=decays, eps=EPSILON, **form)


def criterion_of(network: AnyNetwork) -> Criterion:
    if network.name == "GPT":
        return lambda logits, y: nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten())
    return nn.MSELoss() if network.loss == "mean_squared_error" else nn.CrossEntropyLoss()


def trained_by(network: AnyNetwork, x, y, model: nn.Module, optimizer: torch.optim.Adam, step: Step) -> Contestant:
    x = torch.from_numpy(x).to(DEVICE)
    y = torch.from_numpy(y if network.loss == "mean_squared_error" else y.astype(np.int64)).to(DEVICE)
    batches = [(x[rows(network, k)], y[rows(network, k)]) for k in range(network.batches)]
    first = {name: value.clone() for name, value in model.state_dict().items()}
    position = 0

    def train(steps):
        nonlocal position
        losses = [step(*batches[number % network.batches]) for number in range(position, position + steps)]
        position += steps
        return torch.stack(losses).cpu().numpy()

    def epochs(number):
        for _ in range(number):
            for chosen in torch.randperm(len(x), device=DEVICE).split(network.batch_size):
                loss = step(x[chosen], y[chosen])
        return loss.item()

    @torch.inference_mode()
    def predictions():
        model.eval()
        outputs = torch.cat([model(batch) for batch, _ in batches])
        model.train()
        return outputs.cpu().numpy()

    @torch.no_grad()
    def restart():
        nonlocal position
        position = 0
        model.load_state_dict(first)
        for moments in optimizer.state.values():
            for moment in moments.values():
                moment.zero_()

    # An only batch needs no order.
    return Contestant(train, epochs if network.batches > 1 else train, predictions, restart, BEFORE_UNDERFLOW)
