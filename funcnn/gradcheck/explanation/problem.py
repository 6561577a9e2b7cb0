"""The problem that a diagnosis is about."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import PyTree

from funcnn._numerics.program import Program


class Problem(NamedTuple):
    """A loss at a point, with what is known of it besides its gradients.

    Fields:
        params: the parameters, in the precision of the comparison.
        arguments: the further arguments of the loss.
        program, gradient_program: the programs of the loss and of the hand-written gradient; ``None`` for one that
            can't be traced.
        spacing: ε of the coarsest numbers to which either rounds.
        sizes: numbers of this problem with their names: ``(32, "the batch size")``.
        contributions: from a leaf's position to the gradient of each sample alone, ``(samples, *shape)``, or ``None``
            if there are no samples.
        loss: the function of ``(params, *arguments)`` itself.
    """

    params: PyTree
    arguments: tuple
    program: Program | None
    gradient_program: Program | None
    spacing: float
    sizes: Callable[[], Sequence[tuple[float, str]]]
    contributions: Callable[[int], np.ndarray | None]
    loss: Callable[..., Any] | None = None
