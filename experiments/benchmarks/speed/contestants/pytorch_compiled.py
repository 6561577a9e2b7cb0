"""PyTorch by ``torch.compile``: forward and backward as one compiled function of the batch, Adam's step as another."""

import torch
from torch import nn

from experiments.benchmarks.speed.contestants import Contestant
from experiments.benchmarks.speed.contestants.pytorch import built, fused_adam, trained_by
from experiments.benchmarks.speed.networks import Network


def contestant(network: Network, x, y, start) -> Contestant:
    model = built(network, start)
    optimizer = fused_adam(model)
    criterion = nn.MSELoss() if network.loss == "mean_squared_error" else nn.CrossEntropyLoss()

    @torch.compile
    def loss_of(x, y):
        return criterion(model(x), y)

    def step(x, y):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(x, y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return trained_by(network, x, y, model, step)
