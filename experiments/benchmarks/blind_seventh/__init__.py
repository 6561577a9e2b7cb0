"""Gradients written by hand, half of them of composite models: wrong ones, with what is wrong there, and right ones."""

from experiments.benchmarks.blind_seventh import cases_one, cases_two

BUGS = (*cases_one.BUGS, *cases_two.BUGS)
RIGHT = (*cases_one.RIGHT, *cases_two.RIGHT)
CASES = BUGS + RIGHT
