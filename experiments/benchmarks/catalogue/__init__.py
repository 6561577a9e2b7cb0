"""The catalogue: planted bugs and right but hard gradients, one module a theme.

``BUGS`` are mistakes that people make in a backward pass, each beside the right one; ``RIGHT`` are hand-written
gradients that are right where a checker may stumble.
"""

from experiments.benchmarks.catalogue import (
    activations,
    arrays,
    attention_and_convolution,
    code_and_formulas,
    extremes,
    formulas,
    gates_and_buffers,
    kinks,
    linear,
    losses,
    normalization,
    precision,
    programs,
    regularization,
    structure,
    surroundings,
    training,
    trees_and_arguments,
)
from experiments.benchmarks.catalogue.case import Case as Case

BUGS = (
    *losses.CASES,
    *activations.CASES,
    *linear.CASES,
    *normalization.CASES,
    *regularization.CASES,
    *structure.CASES,
    *attention_and_convolution.CASES,
    *formulas.CASES,
    *training.CASES,
    *arrays.CASES,
    *precision.CASES,
    *gates_and_buffers.CASES,
    *surroundings.CASES,
)
RIGHT = (*kinks.CASES, *extremes.CASES, *trees_and_arguments.CASES, *code_and_formulas.CASES, *programs.CASES)
CASES = (*BUGS, *RIGHT)
