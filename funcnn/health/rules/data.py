"""Rules on the data: features that need scaling, and targets that the loss or the output layer cannot produce."""

from collections.abc import Iterator

import numpy as np

from funcnn.health.kinds import Finding
from funcnn.health.loss_curve import LossCurve, figure, outcome, percent
from funcnn.health.record import HealthRecord, LayerFacts, ModelFacts, TargetFacts

LARGE_SCALE, SMALL_SCALE = 5.0, 0.1
"""Root mean square of the features. Initializations expect 1. The largest stable learning rate is inversely
proportional to its square: 25 times smaller at 5; at 0.1 the same rate has a hundredth of the effect."""

OFF_CENTRE = 5.0
"""Norm of the features' means over that of their spreads. The loss is then 1 + 5² times steeper along the mean than
along any other direction (LeCun, Bottou, Orr and Müller 1998, section 4.3), and no learning rate suits both."""

UNEVEN = 30.0
"""The largest feature's root mean square over the middle one's: 900 times steeper along that feature."""

LARGE_TARGETS = 10.0
"""Root mean square of a regression's targets. The output starts near 0 with standard deviation 1."""

SORTED = 0.5
"""The share of the targets' variance that lies between batches. In shuffled batches of n samples it is 1/n."""

BEYOND = 0.1
"""How far outside the output's range targets may lie, in their standard deviations: less is noise."""


def unscaled_input(record: HealthRecord, facts: ModelFacts, curve: LossCurve) -> Iterator[Finding]:
    """Find features far from mean 0 and standard deviation 1, where the run doesn't learn."""
    mean, spread, _ = record.input
    if not mean.size:  # Tokens have no scale.
        return
    size: np.ndarray = np.sqrt(mean**2 + spread**2)
    scale = float(np.sqrt((size**2).mean()))
    off_centre = float(np.linalg.norm(mean)) / max(float(np.linalg.norm(spread)), 1e-300)
    uneven = float(size.max()) / float(np.median(size[size > 0])) if size.any() else 1.0
    largest = int(size.argmax())
    signs: list[tuple[float, str]] = [
        (scale / LARGE_SCALE, f"The features' root mean square is {figure(scale)}"),
        (SMALL_SCALE / max(scale, 1e-300), f"The features' root mean square is {figure(scale)}"),
        (off_centre / OFF_CENTRE, f"The features' means are {figure(off_centre)} times their spreads"),
        (uneven / UNEVEN, f"Feature {largest} is {figure(uneven)} times as large as the middle one"),
    ]
    beyond, seen = max(signs)
    if not curve.may_be_hindered(beyond):
        return
    yield Finding(
        "unscaled input",
        record.names[0],
        int(record.steps[0]),
        f"{seen} (the largest, feature {largest}: mean {figure(mean[largest])}, spread {figure(spread[largest])}), "
        f"where initializations expect mean 0 and spread 1; {outcome(curve)}.",
        "Scale the features with standard_scaler, fitted on the training data.",
    )


def unfit_labels(record: HealthRecord, facts: ModelFacts, curve: LossCurve) -> Iterator[Finding]:
    """Find targets that the output layer or the loss cannot produce."""
    for misfit in (_of_output, _of_range, _of_batches, _of_targets, _of_values):
        found = misfit(record.target, facts.output, curve)
        if found is not None:
            yield Finding("labels that don't fit the loss", facts.output.name, int(record.steps[0]), *found)
            return


def _of_output(target: TargetFacts, output: LayerFacts, curve: LossCurve) -> tuple[str, str] | None:
    """Find an output layer that the loss contains already, or that the loss excludes."""
    if target.prediction == "logits" and output.units == "saturating":
        return (
            f"{target.loss} takes logits and contains the output layer already: after {output.name} they lie in "
            f"[{output.lowest:g}, {output.highest:g}], and the loss can't get near 0.",
            "Leave the output layer out (output=identity), or take the loss on probabilities.",
        )
    if target.prediction == "logits" and target.targets == "binary" and output.lowest == 0:
        return (
            f"After {output.name} no logit is negative, so no probability is below ½.",
            "Leave the output layer out: output=identity.",
        )
    if target.prediction == "logits" and output.units == "rectifying" and output.lowest == 0:
        return (
            f"After {output.name} no logit is negative: a class cannot go below 0, and gets no gradient there.",
            "Leave the output layer out: output=identity.",
        )
    if output.sums_to_one and len(target.balance) == 1:
        return (
            f"{output.name} has one output, which is 1 whatever the input.",
            "Use sigmoid for one output, or an output for each class.",
        )
    return None


def _of_range(target: TargetFacts, output: LayerFacts, curve: LossCurve) -> tuple[str, str] | None:
    """Find targets outside the range of the loss or of the output layer."""
    span = f"The targets go from {figure(target.lowest)} to {figure(target.highest)}"
    is_within = target.lowest >= 0 and target.highest <= 1
    if target.targets in ("classes", "binary") and target.form != "labels" and not is_within:
        return f"{span}; {target.loss} takes 0 and 1, or probabilities.", "Turn −1 and 1 into 0 and 1: (y + 1) / 2."
    margin = BEYOND * target.variance**0.5
    if target.form != "labels" and (target.lowest < output.lowest - margin or target.highest > output.highest + margin):
        return (
            f"{span}, but {output.name} stays in [{output.lowest:g}, {output.highest:g}].",
            "Leave the output layer out (output=identity), or scale the targets into its range.",
        )
    return None


def _of_batches(target: TargetFacts, output: LayerFacts, curve: LossCurve) -> tuple[str, str] | None:
    """Find an iterable whose batches are sorted by their targets, whatever the loss, which follows the batches."""
    if target.between_batches < SORTED:
        return None
    return (
        f"{percent(target.between_batches)} of the variance of the targets lies between the batches: they are sorted, "
        "and a step learns the newest batch at the expense of the others.",
        "Shuffle the samples before they are divided into batches, anew in every epoch.",
    )


def _of_targets(target: TargetFacts, output: LayerFacts, curve: LossCurve) -> tuple[str, str] | None:
    """Find targets that are all the same, and rows of several classes at once."""
    if (target.form in ("labels", "one-hot") and target.balance.max() == 1) or target.variance == 0:
        return "All targets are the same, so there is nothing to learn.", "Check how the targets were read."
    if target.targets == "classes" and target.form == "values":
        return (
            f"{target.loss} takes one class for each sample, but the rows of the targets sum to "
            f"{figure(float(target.balance.sum()))} on average.",
            "For several labels at once use sigmoid_cross_entropy.",
        )
    return None


def _of_values(target: TargetFacts, output: LayerFacts, curve: LossCurve) -> tuple[str, str] | None:
    """A loss on values with class numbers or large values for targets, where the run doesn't learn."""
    if target.targets != "values" or curve.learns:
        return None
    size = float(np.sqrt((target.balance**2).mean() + target.variance))
    if size > LARGE_TARGETS:
        return (
            f"The targets' root mean square is {figure(size)}, and the output starts near 0; {outcome(curve)}.",
            "Scale the targets with standard_scaler, and the predictions back.",
        )
    if target.whole and len(target.balance) == 1 and target.lowest == 0 and target.highest >= 2:
        return (
            f"The targets are the whole numbers from 0 to {target.highest:g}; if they number classes, "
            f"{target.loss} takes class 2 for twice class 1. {outcome(curve).capitalize()}.",
            "For classes use softmax_cross_entropy with an output for each and integer labels.",
        )
    return None
