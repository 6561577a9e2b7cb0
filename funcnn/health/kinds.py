"""What a finding is, and which kinds there are."""

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
"""What can be wrong with a run, causes before consequences:

- ``labels that don't fit the loss``: targets outside the range of the output layer or of the loss, an output layer that
  the loss contains already, targets of one class, class numbers or large values in a squared error;
- ``unscaled input``: features far from mean 0 and spread 1, for which no initialization and no learning rate is right;
- ``exploding gradients``: the gradient grows from layer to layer on its way back, or stops being finite;
- ``dead units``: rectifying units that are off for every sample, and so get no gradient that could turn them on;
- ``saturation``: sigmoid or tanh units in their flat tails, which pass next to no gradient;
- ``vanishing gradients``: next to nothing of the gradient reaches a layer with parameters;
- ``learning rate too high``: the loss diverges, or jumps about and ends no better, while the steps are large;
- ``learning rate too low``: the parameters hardly move;
- ``loss doesn't fall``: the run ends no better than a constant prediction; beside another finding, its consequence.
"""


class Finding(NamedTuple):
    """One thing that is wrong with a run.

    Fields:
        kind: which.
        layer: the layer's name where it sits in one: the first or the worst; ``None`` where it doesn't.
        since_step: the first step where it was seen, from 0, and from which it stayed.
        sentence: what was seen, with its figures.
        remedy: what to try.
    """

    kind: Kind
    layer: str | None
    since_step: int
    sentence: str
    remedy: str
