"""Gradients written by hand over many losses: wrong ones, with what is wrong there, and right ones."""

from experiments.benchmarks.blind_third import (
    attention,
    contrast,
    convolution,
    dynamic,
    graphs,
    mixture,
    normalization_cases,
    precision,
    processes,
    recurrent_cases,
    signals_cases,
    unusual,
)

_MODULES = (
    attention,
    recurrent_cases,
    convolution,
    precision,
    normalization_cases,
    mixture,
    contrast,
    dynamic,
    graphs,
    processes,
    signals_cases,
    unusual,
)
BUGS = tuple(case for module in _MODULES for case in module.BUGS)
RIGHT = tuple(case for module in _MODULES for case in module.RIGHT)
CASES = BUGS + RIGHT
