"""Validation during training: which data, how often, and the function that measures it."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, cast

from jax import Array

from funcnn._checks import positive_integer
from funcnn.training.batches import is_stream
from funcnn.training.input import Data, batch_checker, check_scalar_metrics, check_targets, checked_batch
from funcnn.training.interrupts import Interrupts
from funcnn.training.pace import SECONDS
from funcnn.training.predict import evaluate_batches, evaluate_checked
from funcnn.training.steps import Carry, TrainingSetup
from funcnn.types import Batch, Layer, Loss, Params, State

Metrics = tuple[tuple[str, Callable], ...]


class Validation(NamedTuple):
    """Validation data, and how often ``fit`` evaluates the model on it.

    Fields:
        data: ``Batch(x, y)`` or ``(x, y)`` in memory, or an iterable of batches that can be read more than once.
        every: epochs between two validations. The last epoch is always followed by one.

    Example:
        >>> Validation(([[0.0]], [[1.0]]), every=10).every
        10
    """

    data: Data | Iterable
    every: int = 1


def checked_validation(given: Any) -> Validation | None:
    """Return the settings from ``Validation`` itself or from data alone; ``None`` without validation.

    Raises:
        TypeError, ValueError: ``every`` is not a positive integer.
    """
    if given is None:
        return None
    if not isinstance(given, Validation):
        return Validation(given)
    return given._replace(every=positive_integer("Validation(every)", given.every))


def checked_held_out(validation: Validation | None, model: Layer, loss: Loss, params: Params, state: State) -> Any:
    """Return the settings with data in memory as a ``Batch`` that fits the model and the loss.

    Parameters and state may be shapes.

    Raises:
        TypeError, ValueError: the data does not fit the model or the loss.
    """
    if validation is None or is_stream(validation.data):
        return validation
    return validation._replace(data=checked_batch("fit(validation)", model, loss, params, state, validation.data))


def validation_function(
    setup: TrainingSetup,
    metrics: Metrics,
    validation: Validation | None,
    params: Params,
    state: State,
    interrupts: Interrupts,
) -> Callable[[Carry], dict[str, Array]] | None:
    """Return ``(carry) -> figures`` on the validation data, ``None`` without any.

    Args:
        setup: model, loss and placement.
        metrics: pairs of a name and a function.
        validation: from ``checked_held_out``.
        params, state: the initial ones.
        interrupts: the signals of the run, which act at once while an iterable is read or the device is waited for.

    Raises:
        TypeError, ValueError: the targets do not fit the loss, a batch does not fit, or a metric is not a scalar.
    """
    if validation is None:
        return None
    model, loss = setup.model, setup.loss
    measure: dict[str, Any] = {"model": model, "loss": loss, "metrics": metrics}
    if is_stream(validation.data):
        return _validation_of_batches(validation.data, measure, params, state, interrupts)
    held_out = cast(Batch, validation.data)
    check_targets("fit(validation)", model, loss, params, state, held_out)
    check_scalar_metrics("fit(metrics)", metrics, model, params, state, held_out)
    if setup.placement is not None:
        held_out = setup.placement.copy(held_out)
    return _validation_in_memory(held_out, measure, interrupts)


def _validation_in_memory(held_out, measure, interrupts):
    is_brief = False

    def validate(carry):
        nonlocal is_brief
        arguments = (carry.params, carry.state, held_out)
        if not is_brief:
            interrupts.compile(evaluate_checked, *arguments, **measure)
        start = time.monotonic()
        figures = evaluate_checked(*arguments, **measure)
        if not is_brief:
            interrupts.wait_for(figures)
            is_brief = time.monotonic() - start < SECONDS
        return figures

    return validate


def _validation_of_batches(data, measure, params, state, interrupts):
    if isinstance(data, Iterator) or callable(data):
        raise ValueError(
            "fit(validation): expected arrays or an iterable that can be read again, got an iterator or a "
            "function. Pass a list or a loader."
        )
    checked = batch_checker("fit(validation)", measure["model"], measure["loss"], params, state)
    first = next(iter(data), None)
    if first is None:
        raise ValueError(
            "fit(validation): expected an iterable of batches (x, y), got an empty one. Pass at least one."
        )
    check_scalar_metrics("fit(metrics)", measure["metrics"], measure["model"], params, state, checked(first))
    return lambda carry: evaluate_batches(carry.params, carry.state, map(checked, interrupts.each(data)), **measure)
