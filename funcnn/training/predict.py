"""The output of a trained model, and its loss and metrics on data."""

from collections.abc import Mapping
from functools import partial

import jax
from jax.typing import ArrayLike
from jaxtyping import Array

from funcnn._checks import check_is_layer, check_is_loss, errors_of
from funcnn.training.input import (
    Data,
    Metric,
    check_fits,
    check_scalar_metrics,
    check_token_values,
    checked_data,
    checked_metrics,
    input_array,
)
from funcnn.types import Layer, Loss, Params, Scalar, State


def predict(model: Layer, params: Params, state: State, x: ArrayLike) -> Array:
    """Compute the model's output in prediction mode: ``forward`` with ``train=False``, without its residuals.

    Args:
        model: any layer.
        params, state: its parameters and running statistics.
        x: floating features ``(batch, ..., features)``, or integer tokens ``(batch, time)``.

    Returns:
        y, ``(batch, ...)``.

    Raises:
        ValueError, TypeError: x does not fit the model; parameters or a state of another model.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from funcnn.models import mlp
        >>> model = mlp((2, 3, 1))
        >>> predict(model, *model.init(jax.random.key(0)), jnp.ones((5, 2))).shape
        (5, 1)
    """
    check_is_layer("predict(model)", model)
    check_fits(model, params, state, "predict")
    x = input_array("predict(x)", x)
    with errors_of("predict(x)"):
        check_token_values(model, params, state, x)
        return _predict(params, state, x, model=model)


def evaluate(
    model: Layer,
    loss: Loss,
    params: Params,
    state: State,
    data: Data,
    *,
    metrics: Mapping[str, Metric] | None = None,
) -> dict[str, Scalar]:
    """Compute loss and metrics of a model in prediction mode.

    Args:
        model: any layer.
        loss: any loss.
        params, state: its parameters and running statistics.
        data: ``Batch(x, y)`` or ``(x, y)``.
        metrics: by name, ``(prediction, target) -> scalar``.

    Returns:
        Scalars by name, ``loss`` and then the metrics.

    Raises:
        ValueError, TypeError: data that does not fit the model or the loss; a metric named ``loss``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from funcnn.losses import softmax_cross_entropy
        >>> from funcnn.metrics import accuracy
        >>> from funcnn.models import mlp
        >>> model = mlp((2, 3))
        >>> params, state = model.init(jax.random.key(0))
        >>> data = (jnp.ones((4, 2)), jnp.array([0, 1, 2, 0]))
        >>> sorted(evaluate(model, softmax_cross_entropy, params, state, data, metrics={"accuracy": accuracy}))
        ['accuracy', 'loss']
    """
    measures = checked_metrics("evaluate(metrics)", metrics)
    check_is_layer("evaluate(model)", model)
    check_is_loss("evaluate(loss)", loss)
    check_fits(model, params, state, "evaluate")
    batch = checked_data("evaluate(data)", model, loss, params, state, data)
    check_scalar_metrics("evaluate(metrics)", measures, model, params, state, batch)
    return evaluate_checked(params, state, batch, model=model, loss=loss, metrics=measures)


@partial(jax.jit, static_argnames="model")
def _predict(params, state, x, *, model):
    return model.forward(params, state, x, train=False)[0]


@partial(jax.jit, static_argnames=("model", "loss", "metrics"))
def evaluate_checked(params, state, batch, *, model, loss, metrics):
    """Evaluate on checked data; metrics are pairs of a name and a function."""
    prediction = model.forward(params, state, batch.x, train=False)[0]
    measured = {name: metric(prediction, batch.y) for name, metric in metrics}
    return {"loss": loss.forward(prediction, batch.y)[0], **measured}


def evaluate_batches(params, state, batches, *, model, loss, metrics):
    """Evaluate on an iterable of batches: means over all samples."""
    sums: dict[str, Array] = {}
    samples = 0
    for batch in batches:
        size = len(batch.x)
        samples += size
        for name, value in evaluate_checked(params, state, batch, model=model, loss=loss, metrics=metrics).items():
            sums[name] = size * value + sums.get(name, 0)
    if not samples:
        raise ValueError(
            "fit(validation): expected an iterable of batches that can be read again, got an empty one. "
            "Pass a list of batches or a loader."
        )
    return {name: value / samples for name, value in sums.items()}
