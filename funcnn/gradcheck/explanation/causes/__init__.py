"""Detectors of the causes that the two gradients of a leaf show by themselves: a factor, a sign, an order of axes.

A new cause belongs here if it can be read off those two arrays: a function that takes a ``WrongLeaf`` and returns the
cause and a sentence, or ``None``, in one of these modules, and its place in ``EXACT`` or ``LOOSE``. A cause for which
the backward pass of the loss has to be run with the mistake is a mutation in ``explanation/mutations``.

The first detector that explains all of a leaf's difference gives its cause: those in ``EXACT`` before the mutations are
tried, those in ``LOOSE`` after them. The names of all causes are in ``Cause`` in ``gradcheck/report.py``. ``nonfinite``
and ``unknown`` are given by ``explanation/diagnosis.py``, ``shape``, ``dtype`` and ``structure`` by the comparison, and
``noise``, ``kink`` and ``unstable`` by the engine.
"""

from collections.abc import Callable
from typing import TypeAlias

from funcnn.gradcheck.explanation.causes.arrangement import (
    detect_accumulated,
    detect_conjugate,
    detect_moved,
    detect_reshaped,
    detect_swapped,
    detect_symmetrized,
    detect_transposed,
)
from funcnn.gradcheck.explanation.causes.clipping import detect_clipped, detect_normalized
from funcnn.gradcheck.explanation.causes.factors import detect_scaled, detect_zero
from funcnn.gradcheck.explanation.causes.parts import detect_part
from funcnn.gradcheck.explanation.causes.samples import detect_subset_of_batch
from funcnn.gradcheck.explanation.causes.weight_decay import detect_offset_by_parameter
from funcnn.gradcheck.explanation.leaf import Diagnosis, WrongLeaf

Detector: TypeAlias = Callable[[WrongLeaf], Diagnosis | None]

EXACT: tuple[Detector, ...] = (
    detect_zero,
    detect_normalized,
    detect_scaled,  # "scaled" and "sign"
    detect_transposed,
    detect_symmetrized,
    detect_swapped,
    detect_accumulated,
    detect_offset_by_parameter,
    detect_reshaped,
    detect_moved,  # "kernel_flipped" and "shifted"
    detect_conjugate,
    detect_clipped,
)
"""The causes of a whole leaf."""

LOOSE: tuple[Detector, ...] = (
    detect_part,  # "element", "unit", and "subset_of_batch" of x
    detect_subset_of_batch,
)
"""The causes of a part of a leaf, detected where no wrong backward pass of the loss is confirmed."""
