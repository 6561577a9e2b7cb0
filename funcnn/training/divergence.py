"""Divergence: the step at which a run is no longer finite, the largest numbers there, and what to try."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from funcnn.layers.annotation import annotated
from funcnn.layers.traversal import figures_in_order, layer_names
from funcnn.losses import loss_spec
from funcnn.training.errors import RunError
from funcnn.training.results import Trained
from funcnn.training.steps import Carry, TrainingSetup
from funcnn.types import Loss

LARGE = 1e3
"""Larger inputs and activations are mentioned: with scaled inputs and usual kernels both are of order 1."""


class Largest(NamedTuple):
    """The largest absolute value of a kind, and its place. NaN counts as the largest."""

    name: str
    value: float

    def __str__(self) -> str:
        return f"{self.value:.3g} in {self.name}"


class DivergenceError(RunError, FloatingPointError):
    """The loss or a parameter is not finite, and training has stopped.

    Fields:
        step: the step, counted from 1 over all epochs, whose loss or update is not finite.
        epoch: its epoch, from 1.
        trained: the last finite parameters, state and optimizer state, and the history up to them.
        activation, gradient, parameter: the largest of each at that step, with its name.
    """

    def __init__(self, message: str, step: int, epoch: int, trained: Trained, sizes: "Sizes"):
        super().__init__(message)
        self.step, self.epoch, self.trained = step, epoch, trained
        self.activation, self.gradient, self.parameter = sizes.activation, sizes.gradient, sizes.parameter


class Sizes(NamedTuple):
    """The loss and the largest numbers of one step.

    Fields:
        loss: of the step's batch.
        input: the largest floating input; 0 for integer inputs, whose size has no meaning.
        activation, gradient, parameter: the largest of each.
    """

    loss: float
    input: float
    activation: Largest
    gradient: Largest
    parameter: Largest


def are_finite(tree: PyTree) -> bool:
    """Return whether every floating entry of a tree is finite."""
    return bool(_are_finite(tree))


def check_rest_is_finite(setup: TrainingSetup, carry: Carry, step: int, epoch: int, trained: Trained) -> None:
    """Raise where running statistics or the optimizer's state are not finite, and were when training began.

    They are read once, at the end, because reading them takes as long as reading the parameters twice.

    Raises:
        DivergenceError: with the names of these arrays.
    """
    if are_finite((carry.state, carry.opt_state)):
        return
    began = Carry((), setup.model.init(jax.random.key(0))[1], setup.optimizer.init(carry.params))
    now, then = (
        {
            jax.tree_util.keystr(path): bool(_are_finite(leaf))
            for path, leaf in jax.tree_util.tree_leaves_with_path(each)
        }
        for each in (carry._replace(params=()), began)
    )
    wrong = [name.lstrip(".") for name, is_finite in now.items() if not is_finite and then.get(name, True)]
    if not wrong:
        return
    parameter, nothing = _largest(_by_path(carry.params)), Largest("nothing", 0.0)
    raise DivergenceError(
        f"fit: expected finite values everywhere after step {step}, in epoch {epoch}, got others in "
        f"{', '.join(wrong[:3])}; the parameters are finite, and the largest is {parameter}. Try scaled inputs "
        "(standard_scaler), a smaller learning rate, or clipping: optax.chain(clip_by_global_norm(1.0), optimizer). "
        "The result is in this error's .trained.",
        step, epoch, trained, Sizes(float("nan"), 0.0, nothing, nothing, parameter),
    )  # fmt: skip


@jax.jit
def _are_finite(tree):
    floating = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.array([jnp.isfinite(leaf).all() for leaf in floating]).all() if floating else jnp.array(True)


def last_finite(replay: Any, carry: Carry, start: int, stop: int) -> tuple[Carry, int]:
    """Find the newest carry between two positions whose parameters are finite, by bisection.

    Args:
        replay: ``(carry, start, stop) -> carry``, which repeats the steps.
        carry: the finite carry at ``start``.
        start, stop: positions; the carry may not be finite at ``stop``.

    Returns:
        The carry, and its position.
    """
    newest = replay(carry, start, stop)
    if are_finite(newest.params):
        return newest, stop
    while stop - start > 1:
        middle = (start + stop) // 2
        between = replay(carry, start, middle)
        if are_finite(between.params):
            carry, start = between, middle
        else:
            stop = middle
    return carry, start


def measure_sizes(setup: TrainingSetup, carry: Carry, batch: Any, key: Array) -> Sizes:
    """Measure the loss and the largest input, activation, gradient and parameter of one step."""
    loss, activations, gradients = _figures(carry, batch, key, setup=setup)
    activation = _largest(dict(zip(layer_names(setup.model), map(float, activations), strict=True)))
    return Sizes(
        float(loss), _input_size(batch.x),
        activation, _largest(_by_path(gradients)), _largest(_by_path(carry.params)),
    )  # fmt: skip


def _input_size(x: Array) -> float:
    """Return the largest absolute value of floating inputs, 0 for integers."""
    return float(jnp.abs(x).max()) if jnp.issubdtype(x.dtype, jnp.inexact) else 0.0


def divergence_message(loss: Loss, sizes: Sizes, step: int, epoch: int, saved: int | None = None) -> str:
    """Return the message of the error; ``saved`` is the step of the last checkpoint, if there is one."""
    first = f"the loss is {sizes.loss:.3g}" if not np.isfinite(sizes.loss) else "its update isn't finite"
    remedies = ["a smaller learning rate (a tenth)", "clipping: optax.chain(clip_by_global_norm(1.0), optimizer)"]
    if sizes.input > LARGE:
        remedies.insert(0, f"scaled inputs (standard_scaler; the largest is {sizes.input:.3g})")
    if sizes.activation.value > LARGE * max(sizes.input, 1.0):
        remedies.append("smaller kernels at the start (kernel_init=None chooses by the activation), or a normalization")
    if loss_spec(loss).prediction == "probabilities":
        remedies.append("a loss on logits instead of probabilities (softmax_cross_entropy, sigmoid_cross_entropy)")
    kept = "" if saved is None else f" and in the checkpoint of step {saved}; with other settings use another folder"
    return (
        f"fit: training diverged at step {step}, in epoch {epoch}: {first}. The largest activation there is "
        f"{sizes.activation}, the largest gradient {sizes.gradient}, the largest parameter {sizes.parameter}. "
        f"Try {'; or '.join(remedies)}. The last finite parameters are in this error's .trained{kept}."
    )


@partial(jax.jit, static_argnames="setup")
def _figures(carry, batch, key, *, setup):
    (loss, _), gradients = setup.grad(setup.model, setup.loss)(carry.params, carry.state, batch, key=key)
    model = annotated(setup.model, lambda layer, params, residuals, y: _peak(y), lambda layer, peak, *gradients: peak)
    y, _, residuals = model.forward(carry.params, carry.state, batch.x, train=True, key=key)
    peaks, _ = model.backward(residuals, jnp.zeros_like(y))
    activations = figures_in_order(lambda leaf: leaf.note, setup.model, peaks)
    return loss, activations, jax.tree.map(_peak, gradients)


def _peak(array):
    return jnp.abs(array).max() if array.size else jnp.zeros((), array.real.dtype)


def _by_path(tree) -> dict[str, float]:
    return {
        jax.tree_util.keystr(path) or "the root": float(np.abs(np.asarray(leaf, np.float64)).max(initial=0.0))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _largest(sizes: dict[str, float]) -> Largest:
    if not sizes:
        return Largest("nothing", 0.0)
    name = max(sizes, key=lambda name: np.inf if np.isnan(sizes[name]) else sizes[name])
    return Largest(name, sizes[name])
