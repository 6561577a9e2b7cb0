"""The kinds of findings, and the record of one."""

from typing import Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal[
    "labels that don't fit the loss",
    "unscaled input",
    "exploding gradients",
    "dead units",
    "saturation",
    "vanishing gradients",
    "learning rate too high",
    "learning rate too low",
    "loss doesn't fall",
]
"""The kinds of findings, causes before consequences:

- ``labels that don't fit the loss``: targets outside the range of the output layer or of the loss, an output layer that
  the loss contains already, targets of one class, class numbers or large values in a squared error;
- ``unscaled input``: features far from mean 0 and spread 1, for which no initialization and no learning rate is right;
- ``exploding gradients``: the gradient grows from layer to layer, or from step to step of a sequence, in the backward
  pass, or is not finite;
- ``dead units``: rectifying units that are off for every sample; they get no gradient and stay off;
- ``saturation``: sigmoid or tanh units in their flat tails, where f′ is nearly 0;
- ``vanishing gradients``: the gradient at a layer with parameters is a tiny share of the output's;
- ``learning rate too high``: the loss diverges, or fluctuates without getting better, while the steps are large;
- ``learning rate too low``: the parameters hardly move;
- ``loss doesn't fall``: the run ends no better than a constant prediction; beside another finding, its consequence.
"""


class Finding(NamedTuple):
    """One fault of a training run.

    Fields:
        kind: the kind of fault.
        layer: the name of the first or the worst layer with the fault; ``None`` for a fault of the whole run.
        since_step: the first step, from 0, from which the fault persists.
        sentence: the evidence, with its figures.
        remedy: what to try.
    """

    kind: Kind
    layer: str | None
    since_step: int
    sentence: str
    remedy: str
