"""PyTorch by ``torch.compile``: a batch's loss with its backward pass, and the optimizer's step, each compiled."""

import torch

from experiments.benchmarks.speed.contestants import Contestant
from experiments.benchmarks.speed.contestants.pytorch import adam, built, criterion_of, trained_by
from experiments.benchmarks.speed.networks import AnyNetwork


def contestant(network: AnyNetwork, x, y, start) -> Contestant:
    model = built(network, start)
    # The fused kernel is one opaque call; the compiler makes its own of the foreach form.
    optimizer = adam(model, foreach=True)
    criterion = criterion_of(network)
    loss_of = torch.compile(lambda x, y: criterion(model(x), y))
    update = torch.compile(optimizer.step)

    def step(x, y):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(x, y)
        loss.backward()
        update()
        return loss.detach()

    return trained_by(network, x, y, model, optimizer, step)
