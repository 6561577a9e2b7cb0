"""Gradients written by hand, half of them of composite models: wrong ones, with what is wrong there, and right ones."""

from experiments.benchmarks.blind_fourth import composite_cases, ordinary_cases

BUGS = (*composite_cases.BUGS, *ordinary_cases.BUGS)
RIGHT = (*composite_cases.RIGHT, *ordinary_cases.RIGHT)
CASES = BUGS + RIGHT
