"""Small networks on halves of the digits, one for each seed."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import funcnn as fnn
from experiments.harness.experiment import Settings, checked_value_and_grad
from experiments.shared.initialization import he_mlp_params


def checked_mlp_value_and_grad(settings: Settings, loss: fnn.Loss, target: Array):
    """Return the settings' gradients after checking a small network of the same form with the loss."""
    rng = np.random.default_rng(settings.seed)
    x, params = jnp.asarray(rng.normal(size=(len(target), 5)), jnp.float32), he_mlp_params(rng, (5, 7, 10))
    return checked_value_and_grad(settings, fnn.mlp((5, 7, 10)), loss, (x, target), params=params, state=((),) * 3)


def split_digits(seeds: int) -> tuple[Array, Array]:
    """Return digits ``(seeds, 1792, 64)`` and labels, the first half for training; every seed has its own split."""
    x, y = load_digits(return_X_y=True)
    x, y = x[:1792], y[:1792]
    orders = [np.concatenate(train_test_split(np.arange(len(y)), stratify=y, test_size=0.5, random_state=seed))
              for seed in range(seeds)]  # fmt: skip
    return jnp.asarray(x[orders] / 16, jnp.float32), jnp.asarray(y[orders])


def train_and_predict(
    sizes: tuple[int, ...], loss: fnn.Loss, grad, epochs: int, keys: Array, x: Array, y: Array, new: Array
):
    """Train a network for each seed on its own data, in float32, and predict new ones."""
    model, state = fnn.mlp(sizes), ((),) * (2 * len(sizes) - 3)

    def one(key, params, x, y, new):
        trained = fnn.train(model, loss, fnn.adam(0.005), (x, y), epochs=epochs, batch_size=32, key=key, grad=grad,
                            params=params, state=state)  # fmt: skip
        return fnn.predict(model, trained.params, trained.state, new)

    starts = he_mlp_params(np.random.default_rng(0), sizes, len(keys))
    return np.asarray(jax.jit(jax.vmap(one))(keys, starts, x, y, new))
