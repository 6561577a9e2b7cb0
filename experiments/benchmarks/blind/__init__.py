"""Planted bugs and right gradients that were written blind.

Their author had read neither the checker nor its tests, nor the catalogue's cases, nor a description of how the checker
works, and did not run the checker on them. The cases come from general experience with mistakes in backward passes
that are written by hand. The author's test, ``tests/benchmarks/test_blind.py``, compares the gradients with autodiff
and, where a loss is written in NumPy, with central differences. The names of the causes were fixed beforehand; each
bug's causes were chosen from its code alone.

A model is a loss with a complete gradient by hand. A bug replaces one line of the gradient, so that ``case.right`` is
the same function without the bug. ``RIGHT`` has the right gradient of each model, and right gradients at difficult
points. The cases run with JAX's default settings of promotion.
"""

from experiments.benchmarks.blind import (
    attention,
    convolution,
    courses,
    factors_and_regression,
    hard,
    language,
    mixed_precision,
    normalization_and_losses,
    recurrent,
)

COMPOSITE = (*attention.BUGS, *recurrent.BUGS, *convolution.BUGS, *mixed_precision.BUGS)
ELEMENTARY = (*courses.BUGS, *factors_and_regression.BUGS, *language.BUGS, *normalization_and_losses.BUGS)
BUGS = (*COMPOSITE, *ELEMENTARY)
RIGHT = (
    *attention.RIGHT,
    *recurrent.RIGHT,
    *convolution.RIGHT,
    *mixed_precision.RIGHT,
    *courses.RIGHT,
    *factors_and_regression.RIGHT,
    *language.RIGHT,
    *normalization_and_losses.RIGHT,
    *hard.RIGHT,
)
CASES = (*BUGS, *RIGHT)
