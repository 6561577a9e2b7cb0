"""What float16 does to an optimizer's ε is said before training, and nothing where it does nothing."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnn as fnn
from funcnn.training.narrow import warn_of_epsilon
from tests.cases import KEY

NARROW = {"kernel": jnp.ones((2, 2), jnp.float16), "scale": np.ones(2, np.float32)}
HARMLESS = {
    "SGD": fnn.sgd(0.1),
    "momentum": fnn.momentum(0.1),
    "a larger ε": fnn.adam(1e-3, eps=1e-4),
    "a larger ε beside decay": fnn.adamw(1e-3, eps=1e-4),
    "Lion, without ε": fnn.lion(1e-3),
    "gradients of two steps": optax.MultiSteps(fnn.adam(1e-3), 2).gradient_transformation(),
    "an optimizer that takes other parameters": optax.GradientTransformation(
        lambda params: 1 / 0, lambda *given: given
    ),
}


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (fnn.adam(1e-3), r"NaN where a gradient is 0\. Its ε rounds to 0 in float16"),
        (fnn.rmsprop(1e-3), r"NaN where a gradient is 0"),
        (fnn.adam(1e-3, eps=1e-6), r"a gradient of 0\.0001 is \d+ times that for 0\.01.*divides by its ε alone"),
    ],
)
def test_an_epsilon_that_float16_does_not_hold_is_named_and_the_advice_ends_it(optimizer, message):
    with pytest.warns(UserWarning, match=r"fit: float16 parameters: .*" + message) as caught:
        warn_of_epsilon("fit", optimizer, NARROW)
    assert "adam(1e-3, eps=1e-4)" in str(caught[0].message)


@pytest.mark.parametrize("optimizer", HARMLESS.values(), ids=HARMLESS)
def test_nothing_is_said_of_an_optimizer_that_float16_does_not_change(optimizer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_epsilon("fit", optimizer, NARROW)
        warn_of_epsilon("fit", fnn.adam(1e-3), {"kernel": jnp.ones(2, jnp.bfloat16)})


@pytest.mark.parametrize("function", [fnn.train, fnn.fit, partial(fnn.fit, accumulate=2, batch_size=2)])
def test_training_says_it(function):
    params = fnn.LinearParams(*[jnp.ones(shape, jnp.float16) for shape in ((2, 1), (1,))])
    x = jnp.ones((4, 2), jnp.float16)
    name = "train" if function is fnn.train else "fit"
    # Optax's accumulation divides float16 gradients by a float32 count.
    promotion = jax.numpy_dtype_promotion("standard")
    with promotion, pytest.warns(UserWarning, match=rf"{name}: float16 parameters"):
        function(
            fnn.linear(2, 1), fnn.mean_squared_error, fnn.adam(1e-3), (x, x[:, :1]), epochs=1, key=KEY, params=params
        )
