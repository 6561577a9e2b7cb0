"""A GPT, a small ResNet and an LSTM beside PyTorch's with equal weights: all gradients, and ten steps of training.

The weights, the gradients and the trained weights of the GPT and the ResNet are read by ``fnn.load_torch``.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import funcnn as fnn
from funcnn.layers.recurrent import RecurrentParams
from tests.torch_parity import networks
from tests.torch_parity.tensors import arrays

SIZES = (11, 8, 12, 3, 2)
RNG = np.random.default_rng(7)
TOKENS = RNG.integers(0, 11, (4, 9))
GPT_BATCH = fnn.Batch(TOKENS[:, :-1], TOKENS[:, 1:])
IMAGES = fnn.Batch(RNG.normal(size=(6, 8, 8, 3)), RNG.integers(0, 4, 6))
RESNET = fnn.cnn(3, (4, 4, 6), 4, convolutions=2, normalization=fnn.batch_norm, skip=True)
LSTM = fnn.serial(fnn.embedding(11, 5), fnn.lstm(5, 6), fnn.lstm(6, 6), fnn.linear(6, 11))
EQUAL_LOSSES = {torch.float64: 1e-10, torch.float32: 1e-5}


@pytest.fixture
def read(tmp_path):
    """Return parameters and state of a model from tensors, by ``torch.save`` and ``fnn.load_torch``."""

    def load(model, tensors):
        torch.save(tensors, tmp_path / "tensors.pt")
        return fnn.load_torch(tmp_path / "tensors.pt", model)

    return load


def lstm_params(tensors):
    """Return the parameters of ``LSTM`` from a ``state_dict``."""

    def layer(number):
        names = (f"lstm.weight_ih_l{number}", f"lstm.weight_hh_l{number}", f"lstm.bias_ih_l{number}")
        return RecurrentParams(*(jnp.asarray(arrays(tensors[name]).T) for name in names))

    linear = (jnp.asarray(arrays(tensors[name]).T) for name in ("head.weight", "head.bias"))
    table = jnp.asarray(arrays(tensors["embedding.weight"]))
    return fnn.EmbeddingParams(table), layer(0), layer(1), fnn.LinearParams(*linear)


def losses_of(model, optimizer, batch, params, state):
    """Return the losses of ten steps, and what was trained."""
    trained = fnn.train(
        model, fnn.softmax_cross_entropy, optimizer, batch, epochs=10, key=jax.random.key(0), params=params, state=state
    )
    return trained.history.loss, trained


def gradients_of(model, batch, params, state):
    run = jax.jit(fnn.manual_value_and_grad(model, fnn.softmax_cross_entropy))
    (loss, _), grads = run(params, state, fnn.Batch(*map(jnp.asarray, batch)))
    return loss, grads


@pytest.mark.parametrize("linear", [networks.Conv1D, nn.Linear])
def test_every_gradient_of_a_gpt(linear, read, parity):
    model, module = fnn.gpt(*SIZES), networks.drawn(networks.GPT(*SIZES, linear=linear))
    params, state = read(model, module.state_dict())
    loss, grads = gradients_of(model, GPT_BATCH, params, state)
    theirs, tensors = networks.with_gradients(module, *map(torch.from_numpy, GPT_BATCH))
    expected, _ = read(model, tensors)
    ours = {"loss": loss, "parameters": grads}
    parity(f"GPT, gradients ({linear.__name__})", ours, {"loss": theirs, "parameters": expected})


@pytest.mark.parametrize("dtype", EQUAL_LOSSES, ids=str)
def test_ten_steps_of_adamw_on_a_gpt(dtype, read, parity):
    model, module = fnn.gpt(*SIZES), networks.drawn(networks.GPT(*SIZES)).to(dtype)
    params, state = read(model, module.state_dict())
    assert params[0].table.dtype == str(dtype).removeprefix("torch.")
    losses, trained = losses_of(model, fnn.adamw(3e-3, weight_decay=0.1), GPT_BATCH, params, state)
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=0.1)
    theirs = networks.train(module, optimizer, *map(torch.from_numpy, GPT_BATCH))
    ours, expected = {"losses": losses}, {"losses": np.array(theirs)}
    if dtype is torch.float64:
        ours["parameters"], expected["parameters"] = trained.params, read(model, module.state_dict())[0]
    parity(f"GPT, ten steps of AdamW ({dtype})", ours, expected, EQUAL_LOSSES[dtype])
    assert np.max(np.abs(np.asarray(losses) - theirs)) <= EQUAL_LOSSES[dtype]
    assert theirs[-1] < 0.9 * theirs[0]


def channels_first(batch, dtype=torch.float64):
    return torch.from_numpy(np.moveaxis(batch.x, -1, 1).copy()).to(dtype), torch.from_numpy(batch.y)


def test_every_gradient_of_a_resnet(read, parity):
    module = networks.drawn(networks.ResNet(3, (4, 4, 6), 4))
    params, state = read(RESNET, module.state_dict())
    loss, grads = gradients_of(RESNET, IMAGES, params, state)
    theirs, tensors = networks.with_gradients(module, *channels_first(IMAGES))
    expected, _ = read(RESNET, tensors)
    parity("ResNet, gradients", {"loss": loss, "parameters": grads}, {"loss": theirs, "parameters": expected})


@pytest.mark.parametrize("dtype", EQUAL_LOSSES, ids=str)
def test_ten_steps_of_momentum_on_a_resnet(dtype, read, parity):
    module = networks.drawn(networks.ResNet(3, (4, 4, 6), 4)).to(dtype)
    params, state = read(RESNET, module.state_dict())
    batch = IMAGES._replace(x=jnp.asarray(IMAGES.x, params[-1].kernel.dtype))
    losses, trained = losses_of(RESNET, fnn.momentum(0.02), batch, params, state)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.9)
    theirs = networks.train(module, optimizer, *channels_first(IMAGES, dtype))
    ours, expected = {"losses": losses}, {"losses": np.array(theirs)}
    if dtype is torch.float64:
        after, statistics = read(RESNET, module.state_dict())
        ours |= {"parameters": trained.params, "running means": means(trained.state)}
        expected |= {"parameters": after, "running means": means(statistics)}
    parity(f"ResNet, ten steps of momentum ({dtype})", ours, expected, EQUAL_LOSSES[dtype])
    assert np.max(np.abs(np.asarray(losses) - theirs)) <= EQUAL_LOSSES[dtype]
    assert theirs[-1] < 0.9 * theirs[0]


def means(state):
    """Return the running means. The running variances of PyTorch have another divisor."""
    is_norm = lambda node: isinstance(node, fnn.BatchNormState)  # noqa: E731
    return [norm.mean for norm in jax.tree.leaves(state, is_leaf=is_norm) if is_norm(norm)]


@pytest.mark.parametrize("dtype", EQUAL_LOSSES, ids=str)
def test_gradients_and_ten_steps_of_adam_on_an_lstm(dtype, parity):
    module = networks.drawn(networks.LSTM(11, 5, 6, 2)).to(dtype)
    params, state = lstm_params(module.state_dict()), ((), (), (), ())
    x, y = map(torch.from_numpy, GPT_BATCH)
    loss, grads = gradients_of(LSTM, GPT_BATCH, params, state)
    theirs, tensors = networks.with_gradients(module, x, y)
    if dtype is torch.float64:
        expected = {"loss": theirs, "parameters": lstm_params(tensors)}
        parity("LSTM, gradients", {"loss": loss, "parameters": grads}, expected)
    losses, trained = losses_of(LSTM, fnn.adam(1e-2), GPT_BATCH, params, state)
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    theirs = networks.train(module, torch.optim.Adam(trainable, lr=1e-2), x, y)
    ours, expected = {"losses": losses}, {"losses": np.array(theirs)}
    if dtype is torch.float64:
        ours["parameters"], expected["parameters"] = trained.params, lstm_params(module.state_dict())
    parity(f"LSTM, ten steps of Adam ({dtype})", ours, expected, EQUAL_LOSSES[dtype])
    assert np.max(np.abs(np.asarray(losses) - theirs)) <= EQUAL_LOSSES[dtype]
    assert theirs[-1] < 0.99 * theirs[0]
