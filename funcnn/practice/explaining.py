"""The cause of a wrong backward pass by the gradient checker, in a sentence without the right formula."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnn._numerics.precision import enable_x64
from funcnn.gradcheck import check_gradients
from funcnn.gradcheck.report import Cause

SENTENCES: dict[Cause, str] = {
    "subset_of_batch": "{name} counts only some of the samples of the batch.",
    "offset_by_parameter": "{name} differs by a multiple of the variable: is that the gradient of a penalty?",
    "activation_derivative": "{name}: the derivative of the activation is another function's. Differentiate it on "
    "paper, and check at one number.",
    "loss_derivative": "{name}: the derivative of the loss is another one's. Differentiate the loss for one entry.",
    "updated_weights": "{name} is computed from parameters that are already updated.",
    "lost_use": "{name}: a value is used more than once, and one of the uses doesn't count.",
    "lost_path": "{name}: a path from the loss back to the variable is left out.",
    "scaled_path": "{name}: one of several terms has a wrong factor.",
    "stop_gradient": "{name}: something that depends on the variable is taken for a constant.",
    "normalization_term": "{name}: the mean and the variance depend on the input, and a path through one of them is "
    "wrong or left out.",
    "mask": "{name}: the mask is not the one of the forward pass.",
    "wrong_operand": "{name}: a product takes another array than the one that the forward pass has there.",
    "wrong_axis": "{name}: a sum or a mean runs over another axis.",
    "clipped": "{name} is right for small entries and cut off for large ones.",
    "normalized": "{name} has the right direction and another length: is it divided by its norm?",
    "noise": "{name} is right up to noise: is something random in it, or of a coarse dtype?",
    "unit": "{name} is right but for one column: what is special about it?",
}


def find_cause(
    reference: Callable[..., tuple[Callable, Any]], arguments: tuple, answer: Any, index: int, name: str
) -> tuple[str, str] | None:
    """Return the cause of a wrong gradient and a sentence that describes it, where the checker finds one.

    Args:
        reference: the task's.
        arguments: one list of arguments.
        answer: the gradients that the answer returned for them, arrays of the right shapes.
        index: the position of the wrong one.
        name: its name.
    """
    with enable_x64(True):
        loss, variables = reference(*arguments)
        variables = jax.tree.map(jnp.asarray, variables)
        report = check_gradients(jax.jit(loss), lambda _: answer, variables)
    cause = report.leaves[index].cause
    sentence = (
        SENTENCES.get(cause) if cause is not None and np.isfinite(report.leaves[index].max_abs_difference) else None
    )
    return (str(cause), sentence.format(name=name)) if sentence is not None else None
