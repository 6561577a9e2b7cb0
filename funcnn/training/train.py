"""Training as a pure function: a scan over epochs and steps."""

from collections.abc import Callable

import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from funcnn._checks import positive_integer
from funcnn.backprop import manual_value_and_grad
from funcnn.training.input import (
    Data,
    check_setup,
    check_targets,
    checked_batch,
    checked_batch_size,
    given_or_shapes,
    start,
)
from funcnn.training.narrow import warn_of_epsilon
from funcnn.training.results import Trained, as_trained, scanned_history
from funcnn.training.steps import Carry, Plan, TrainingSetup, run_epochs
from funcnn.types import GradFn, Layer, Loss, Params, State


def train(
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    data: Data,
    *,
    epochs: int,
    batch_size: int | None = None,
    key: PRNGKeyArray,
    grad: Callable[[Layer, Loss], GradFn] = manual_value_and_grad,
    params: Params | None = None,
    state: State | None = None,
) -> Trained:
    """Train a model, as a pure function.

    ``jit``, ``scan`` and ``vmap`` work on it; ``vmap`` over ``key`` trains many seeds at once.

    Args:
        model: any layer.
        loss: any loss.
        optimizer: an optax transformation, ours or optax's.
        data: ``Batch(x, y)`` or ``(x, y)``, the samples along the first axis. x may be floating features
            ``(batch, ..., features)`` or integer tokens ``(batch, time)``. NumPy's float64 becomes float32 unless JAX's
            64-bit types are enabled, as everywhere in JAX.
        epochs: passes over the data.
        batch_size: samples of a step: ``None`` for all of them, 1 for stochastic descent, n for mini-batches.
        key: random key for the initial parameters, the shuffling and dropout.
        grad: ``manual_value_and_grad``, ``autodiff_value_and_grad``, or another ``(model, loss) -> GradFn``.
        params: parameters to start from; ``None`` draws them from ``key``. Their dtype is that of the training: pass
            them in bfloat16, with x in bfloat16, to train in bfloat16.
        state: running statistics to start from, in the parameters' dtype; ``None`` for the initial ones.

    Returns:
        The trained parameters, state, optimizer state, and the history, whose ``validation`` is empty.

    Raises:
        ValueError: data that does not fit the model or the loss, is empty, or (outside ``jit``) is not finite; labels
            outside the classes; a batch size larger than the data; parameters of another model; a gradient of
            another structure, shape or dtype than the parameters.
        TypeError: data of a dtype that the model's layers do not take; counts that are not integers.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from funcnn.layers.activations import sigmoid
        >>> from funcnn.losses import sigmoid_cross_entropy
        >>> from funcnn.models import mlp
        >>> from funcnn.optimizers import adam
        >>> x = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        >>> xor = (x, jnp.array([[0.0], [1.0], [1.0], [0.0]]))
        >>> run = lambda key: train(mlp((2, 4, 1)), sigmoid_cross_entropy, adam(0.1), xor, epochs=200, key=key)
        >>> trained = jax.vmap(run)(jax.random.split(jax.random.key(0), 8))
        >>> trained.history.loss.shape
        (8, 200)
    """
    epochs = positive_integer("train(epochs)", epochs)
    check_setup("train", model, loss, optimizer, key, grad)
    # Drawing the parameters compiles a program: the data are checked before.
    trees = given_or_shapes("train", model, params, state)
    batch = checked_batch("train(data)", model, loss, *trees, data)
    params, state, loop_key = start(model, key, params, state, trees[1])
    warn_of_epsilon("train", optimizer, params)
    check_targets("train(data)", model, loss, params, state, batch)
    plan = Plan(len(batch.x), checked_batch_size("train", batch_size, len(batch.x)))
    setup = TrainingSetup(model, loss, optimizer, grad, plan.batch_size)
    carry, step_losses = run_epochs(
        Carry(params, state, optimizer.init(params)), batch, loop_key, epochs=epochs, setup=setup
    )
    sizes = np.array([plan.size_of(step) for step in range(plan.steps)])
    return as_trained(carry, scanned_history(step_losses, sizes))
