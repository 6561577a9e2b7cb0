"""Who trains: a module each, with ``contestant(network, x, y, start) -> Contestant | None`` (no such network there)."""

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

BEFORE_UNDERFLOW = 600
"""Steps that leave no number too small to be normal."""


class Contestant(NamedTuple):
    """A network on the point of training, in one library.

    Fields:
        train: n further steps, a multiple of ``block``, over the batches in order, cyclically: the losses of the steps,
            each before its update. It returns when all the work is done.
        epochs: n passes over freshly shuffled samples, from arrays in memory, as the library's users do it.
        predict: the outputs of all samples, a batch at a time.
        restart: back to the first parameters and an optimizer that has seen nothing.
        most: how many steps are timed before it begins anew. A mean of gradients that have become 0 shrinks at every
            step by a tenth, and after some 800 isn't a normal number any more: with those processors are slow, where
            a library doesn't take them for 0. XLA does; NumPy and PyTorch don't.
        block: the steps that ``train`` works in.
        averaged: how many steps' losses come as their one mean.
        checked: how many first steps at most have to give the reference's losses.
        expected: what the losses so far had to be, where that isn't what the reference gives.
        uncorrected_epsilon: whether Adam adds its ε before the second moment is corrected, and not behind that.
    """

    train: Callable[[int], Sequence]
    epochs: Callable[[int], object]
    predict: Callable[[], np.ndarray]
    restart: Callable[[], None]
    most: int = sys.maxsize
    block: int = 1
    averaged: int = 1
    checked: int = 20
    expected: Callable[[], np.ndarray] | None = None
    uncorrected_epsilon: bool = False
