"""Wrong gradients and right ones of composite and of ordinary losses, for judging a gradient checker."""

from experiments.benchmarks.blind_second import (
    attention,
    attention_kinds,
    convolution,
    experts,
    implicit,
    losses,
    normalization,
    ordinary,
    physics,
    precision,
    recurrent,
    representation,
    units,
)

_MODULES = (
    attention,
    attention_kinds,
    recurrent,
    convolution,
    precision,
    normalization,
    losses,
    representation,
    experts,
    implicit,
    physics,
    ordinary,
    units,
)
BUGS = tuple(case for module in _MODULES for case in module.BUGS)
RIGHT = tuple(case for module in _MODULES for case in module.RIGHT)
CASES = BUGS + RIGHT
