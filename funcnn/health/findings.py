"""The diagnosis of a run: rules over its record, causes before consequences.

Each rule finds one mechanism, with a threshold from theory where there is one. Most apply only to runs that don't
learn: a half-dead layer in a run that reaches a low loss is not a finding.
"""

import numpy as np

from funcnn.health.kinds import Finding
from funcnn.health.loss_curve import loss_curve
from funcnn.health.record import HealthRecord, ModelFacts
from funcnn.health.rules import EXPLANATIONS, RULES

FEWEST = 10
"""In fewer steps a loss that doesn't fall and a learning rate that is too low can't be recognised."""

_OF_TIME = ("learning rate too low", "loss doesn't fall")
_OF_DATA = ("labels that don't fit the loss", "unscaled input")
_OF_UNITS = ("dead units", "saturation", "vanishing gradients")


def diagnose_health(record: HealthRecord, facts: ModelFacts) -> tuple[Finding, ...]:
    """Apply the rules to the record of a run.

    The same record always gives the same findings. The likelier cause comes first; what follows is often its
    consequence.

    Args:
        record: the run's figures.
        facts: the facts of its model, from ``model_facts``.

    Returns:
        The findings; none for a healthy run.

    Raises:
        ValueError: the record's names aren't those of the facts' layers, or it has no step.

    Example:
        >>> import numpy as np
        >>> from funcnn.health.measures import LayerMeasures
        >>> from funcnn.health.record import input_facts, model_facts, target_facts
        >>> from funcnn.losses import sigmoid_cross_entropy
        >>> from funcnn.models import perceptron
        >>> facts, ones = model_facts(perceptron(2), 4), np.ones((1, 2))
        >>> record = HealthRecord(
        ...     tuple(layer.name for layer in facts.layers), np.arange(1), LayerMeasures(*[ones] * 9), 1e-3 * ones,
        ...     np.array([0.7]), np.array([]), input_facts([[0.0, 1.0], [1.0, 0.0]]),
        ...     target_facts(np.array([[0.0], [1.0]]), sigmoid_cross_entropy),
        ... )
        >>> diagnose_health(record, facts)[0].remedy
        'Leave the output layer out (output=identity), or take the loss on probabilities.'
    """
    names = tuple(layer.name for layer in facts.layers)
    if record.names != names:
        raise ValueError(
            f"diagnose_health(record): expected the layers of the facts, {names}, got {record.names}. "
            "Make both from the same model: layer_names(model), model_facts(model, batch_size)."
        )
    if not len(record.steps) or not len(record.step_losses):
        raise ValueError(
            "diagnose_health(record): expected at least one step, got none. Call fit with at least one step."
        )
    curve = loss_curve(record)
    found = tuple(finding for rule in RULES for finding in rule(record, facts, curve))
    if np.size(record.step_losses) < FEWEST:
        found = tuple(finding for finding in found if finding.kind not in _OF_TIME)
    explained = next((finding for rule in EXPLANATIONS for finding in rule(record, facts, curve)), None)
    if explained is not None:
        return (*(finding for finding in found if finding.kind in _OF_DATA), explained)
    found = _earlier_cause_first(found)
    if len(found) > 1 and found[-1].kind == "loss doesn't fall":
        return (
            *found[:-1],
            found[-1]._replace(remedy="The findings before this one may be the cause: mend those first."),
        )
    return found


def _earlier_cause_first(found: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Put a learning rate that is too high before units that die, saturate or lose their gradient after its steps."""
    for rate in (finding for finding in found if finding.kind == "learning rate too high"):
        others = [finding for finding in found if finding is not rate]
        later = [
            place
            for place, finding in enumerate(others)
            if finding.kind in _OF_UNITS and finding.since_step > rate.since_step
        ]
        if later:
            return (*others[: later[0]], rate, *others[later[0] :])
    return found
