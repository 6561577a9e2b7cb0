"""Optimizers against PyTorch's, at settings where the two definitions are equal."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnn as fnn
from tests.cases import WIDEST

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(WIDEST is not jnp.float64, reason="the two round alike only in float64")

STEPS = 100
START = np.array([0.5, 0.5, -0.5, 1.0])
# Slopes differ by a factor of a thousand. The last one is zero, as of an unused parameter.
SLOPES, ENDS = np.array([10.0, 1.0, 1e-2, 0.0]), np.array([1.0, -0.5, 1.5, 0.0])


def gradient(w):
    """The gradient of a loss that is slightly steeper than a parabola."""
    return SLOPES * ((w - ENDS) + 0.1 * (w - ENDS) ** 3)


def torch_optimizer(name, **settings):
    """Return PyTorch's constructor, with its single-tensor implementation."""
    return lambda params: getattr(torch.optim, name)(params, foreach=False, **settings)


# name: (ours, PyTorch's), with PyTorch's defaults for what isn't named.
PAIRS = {
    "sgd": (fnn.sgd(0.1), torch_optimizer("SGD", lr=0.1)),
    # Dampening is 0 by default; the learning rate stands outside the velocity in both.
    "momentum": (fnn.momentum(0.1), torch_optimizer("SGD", lr=0.1, momentum=0.9)),
    "nesterov": (fnn.nesterov(0.1), torch_optimizer("SGD", lr=0.1, momentum=0.9, nesterov=True)),
    # PyTorch's weight decay is coupled: added to the gradient, in front of the optimizer.
    "sgd, L2": (
        optax.chain(fnn.add_decayed_weights(0.1), fnn.momentum(0.1)),
        torch_optimizer("SGD", lr=0.1, momentum=0.9, weight_decay=0.1),
    ),
    # ε outside the root; 0.99 where ours has 0.9.
    "rmsprop": (fnn.rmsprop(0.01, decay=0.99, eps_in_sqrt=False), torch_optimizer("RMSprop", lr=0.01)),
    # The learning rate comes before the momentum in ours, after it in PyTorch's, which is equal for a constant rate.
    # The variance of a constant gradient is rounding error. The large ε makes it negligible.
    "rmsprop, centered, momentum": (
        fnn.rmsprop(0.01, decay=0.95, eps=1e-2, eps_in_sqrt=False, centered=True, momentum=0.9),
        torch_optimizer("RMSprop", lr=0.01, alpha=0.95, eps=1e-2, centered=True, momentum=0.9),
    ),
    # ε is inside the root in ours and outside in PyTorch's, so it is 0 here. The initial value above 0 avoids 0/0.
    "adagrad": (
        fnn.adagrad(0.1, initial_accumulator_value=0.1, eps=0.0),
        torch_optimizer("Adagrad", lr=0.1, initial_accumulator_value=0.1, eps=0.0),
    ),
    "adam": (fnn.adam(0.01), torch_optimizer("Adam", lr=0.01)),
    "adam, L2": (
        optax.chain(fnn.add_decayed_weights(0.1), fnn.adam(0.01, b1=0.8, b2=0.95, eps=1e-3)),
        torch_optimizer("Adam", lr=0.01, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1),
    ),
    # Decoupled in both; 1e-2 where ours has 1e-4.
    "adamw": (fnn.adamw(0.01, weight_decay=1e-2), torch_optimizer("AdamW", lr=0.01)),
    # PyTorch's m̂ has a warm-up of β₁, β₁ (1 − 0.96^(t ψ)/2). With a large ψ the power is 0 and it is β₁ at every step.
    "nadam": (fnn.nadam(0.01), torch_optimizer("NAdam", lr=0.01, momentum_decay=1e5)),
    # ε inside the maximum in both.
    "adamax": (fnn.adamax(0.01), torch_optimizer("Adamax", lr=0.01)),
}


@pytest.fixture(scope="module")
def ours_after_every_step():
    """The parameters of all of funcnn's optimizers at every step, computed in one scan."""
    optimizers = [ours for ours, _ in PAIRS.values()]

    def step(carry, _):
        after = []
        for optimizer, (params, state) in zip(optimizers, carry, strict=True):
            updates, state = optimizer.update(gradient(params), state, params)
            after.append((optax.apply_updates(params, updates), state))
        return after, [params for params, _ in after]

    start = [(jnp.asarray(START), optimizer.init(jnp.asarray(START))) for optimizer in optimizers]
    paths = jax.jit(lambda: jax.lax.scan(step, start, length=STEPS)[1])()
    return dict(zip(PAIRS, paths, strict=True))


@pytest.fixture
def doubles():
    """PyTorch's NAdam stores the product of β₁ in the default dtype, not in that of the parameters."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("name", PAIRS)
def test_every_step_matches_pytorch(ours_after_every_step, name):
    params = torch.tensor(START, requires_grad=True)
    optimizer, path = PAIRS[name][1]([params]), []
    for _ in range(STEPS):
        params.grad = torch.from_numpy(gradient(params.detach().numpy()))
        optimizer.step()
        path.append(params.detach().numpy().copy())
    np.testing.assert_allclose(ours_after_every_step[name], np.stack(path), rtol=1e-10, atol=1e-10)
