"""The contracts that every room of funcnn keeps: what a layer, a loss and a gradient function are.

Nothing here computes. A layer is three pure functions over pytrees, a loss is two; both are plain tuples, so
anything that has their fields, yours included, is a layer or a loss.

Words
-----
primal
    A value of the forward pass.
cotangent
    The gradient of the loss by a primal: ``dy`` belongs to ``y`` and has its shape and dtype.
residuals
    What forward keeps for backward. Backward sees nothing else, as ``bwd`` of ``jax.custom_vjp`` doesn't.
state
    What forward changes that isn't learned by gradient: the running statistics of batch normalization.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Array, Float, PRNGKeyArray, PyTree

Params: TypeAlias = PyTree
"""The learned arrays of a layer or model; ``()`` where there are none."""

State: TypeAlias = PyTree
"""The running statistics of a layer or model; ``()`` where there are none."""

Residuals: TypeAlias = PyTree
"""What a forward pass keeps for its backward pass."""

Scalar: TypeAlias = Float[Array, ""]
"""A floating array of shape ``()``."""


@runtime_checkable
class Forward(Protocol):
    """``(params, state, x, *, train, key=None) -> (y, new_state, residuals)``.

    ``x`` has the batch as its first axis. ``train`` is a Python bool, known when JAX traces. ``key`` is a random key
    for the layers that draw random numbers while training, and ``None`` otherwise.
    """

    def __call__(
        self, params: Params, state: State, x: Array, *, train: bool, key: PRNGKeyArray | None = None
    ) -> tuple[Array, State, Residuals]: ...


class Layer(NamedTuple):
    """Three pure functions: how to begin, what to compute, and its gradient.

    Fields:
        init: ``(key) -> (params, state)``.
        forward: ``(params, state, x, *, train, key=None) -> (y, new_state, residuals)``.
        backward: ``(residuals, dy) -> (dparams, dx)``: the vector-Jacobian product of forward at the point that the
            residuals remember. ``dparams`` has the structure, shapes and dtypes of ``params``.
    """

    init: Callable[[PRNGKeyArray], tuple[Params, State]]
    forward: Forward
    backward: Callable[[Residuals, Array], tuple[Params, Array]]


class Loss(NamedTuple):
    """Two pure functions: a scalar loss, and its gradient by the prediction.

    Fields:
        forward: ``(prediction, target) -> (loss, residuals)``. The batch mean is taken here, and only here.
        backward: ``(residuals, dloss) -> dprediction``.
    """

    forward: Callable[[Array, Array], tuple[Scalar, Residuals]]
    backward: Callable[[Residuals, Scalar], Array]


class Batch(NamedTuple):
    """Inputs and their targets, the batch axis first in both.

    Fields:
        x: features, ``(batch, ...)``, floating.
        y: targets, ``(batch, ...)``: values, probabilities or one-hot rows in the dtype of the prediction, or integer
            class labels of shape ``(batch,)``.
    """

    x: Array
    y: Array


@runtime_checkable
class GradFn(Protocol):
    """``(params, state, batch, *, key=None) -> ((loss, new_state), grads)``.

    The order of ``jax.value_and_grad(..., has_aux=True)``, so that either can stand in the other's place.
    """

    def __call__(
        self, params: Params, state: State, batch: Batch | tuple[Array, Array], *, key: PRNGKeyArray | None = None
    ) -> tuple[tuple[Scalar, State], Params]: ...
