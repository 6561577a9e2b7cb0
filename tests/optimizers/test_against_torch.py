"""Optimizers against PyTorch's, at settings where the two definitions meet."""

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
# Slopes a thousand times as large in one entry as in another, and none in the last: a parameter that isn't used.
SLOPES, ENDS = np.array([10.0, 1.0, 1e-2, 0.0]), np.array([1.0, -0.5, 1.5, 0.0])


def gradient(w):
    """Of a loss that is a little steeper than a parabola."""
    return SLOPES * ((w - ENDS) + 0.1 * (w - ENDS) ** 3)


def torch_optimizer(name, **settings):
    """PyTorch's constructor; one tensor at a time, as its reference does, and not several fused into one."""
    return lambda params: getattr(torch.optim, name)(params, foreach=False, **settings)


# name: (ours, PyTorch's), with PyTorch's defaults for what isn't named.
MEETINGS = {
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
    # The learning rate comes before the momentum in ours, after it in PyTorch's: constant, it makes no difference.
    # The variance of a gradient that stays the same rounds to something near 0, which an ε well above rounding hides.
    "rmsprop, centered, momentum": (
        fnn.rmsprop(0.01, decay=0.95, eps=1e-2, eps_in_sqrt=False, centered=True, momentum=0.9),
        torch_optimizer("RMSprop", lr=0.01, alpha=0.95, eps=1e-2, centered=True, momentum=0.9),
    ),
    # ε inside the root in ours and outside in PyTorch's: none, and a start above 0, so that nothing divides by 0.
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
    # PyTorch warms β₁ up in the look-ahead, to β₁ (1 − 0.96^(t ψ)/2): with a ψ at which the power is 0 at once, it is
    # β₁ throughout. At ψ = 0 the power is 1 throughout, and that β₁ half of the β₁ of the mean.
    "nadam": (fnn.nadam(0.01), torch_optimizer("NAdam", lr=0.01, momentum_decay=1e5)),
    # ε inside the maximum in both.
    "adamax": (fnn.adamax(0.01), torch_optimizer("Adamax", lr=0.01)),
}


@pytest.fixture(scope="module")
def ours_after_every_step():
    """The parameters of all of ours in one scan, each on its own path."""
    optimizers = [ours for ours, _ in MEETINGS.values()]

    def step(carry, _):
        after = []
        for optimizer, (params, state) in zip(optimizers, carry, strict=True):
            updates, state = optimizer.update(gradient(params), state, params)
            after.append((optax.apply_updates(params, updates), state))
        return after, [params for params, _ in after]

    start = [(jnp.asarray(START), optimizer.init(jnp.asarray(START))) for optimizer in optimizers]
    paths = jax.jit(lambda: jax.lax.scan(step, start, length=STEPS)[1])()
    return dict(zip(MEETINGS, paths, strict=True))


@pytest.fixture
def doubles():
    """NAdam keeps its product of β₁'s in PyTorch's default dtype, whatever the parameters'."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("name", MEETINGS)
def test_every_step_is_pytorch_s(ours_after_every_step, name):
    params = torch.tensor(START, requires_grad=True)
    optimizer, path = MEETINGS[name][1]([params]), []
    for _ in range(STEPS):
        params.grad = torch.from_numpy(gradient(params.detach().numpy()))
        optimizer.step()
        path.append(params.detach().numpy().copy())
    np.testing.assert_allclose(ours_after_every_step[name], np.stack(path), rtol=1e-10, atol=1e-10)
