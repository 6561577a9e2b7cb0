"""The catalogue: planted bugs and right but hard gradients, one module a theme.

``BUGS`` are mistakes that people make in a backward pass, each beside the right one; ``RIGHT`` are hand-written
gradients that are right where a checker may stumble.
"""

from experiments.benchmarks.catalogue import (
    activations,
    arrays,
    attention_and_convolution,
    blocks,
    code_and_formulas,
    convolutions,
    extremes,
    formulas,
    gates_and_buffers,
    heads,
    images,
    kinks,
    linear,
    losses,
    normalization,
    outputs,
    precision,
    programs,
    recurrence,
    regularization,
    right_layers,
    structure,
    surroundings,
    tokens,
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
    *convolutions.CASES,
    *images.CASES,
    *tokens.CASES,
    *heads.CASES,
    *recurrence.CASES,
    *outputs.CASES,
    *blocks.CASES,
)
RIGHT = (
    *kinks.CASES,
    *extremes.CASES,
    *trees_and_arguments.CASES,
    *code_and_formulas.CASES,
    *programs.CASES,
    *right_layers.CASES,
)
CASES = (*BUGS, *RIGHT)
