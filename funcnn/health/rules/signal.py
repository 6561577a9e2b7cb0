"""Rules on the signal through the layers: vanishing and exploding gradients, dead and saturated units."""

from collections.abc import Iterator

import numpy as np

from funcnn.health.kinds import Finding
from funcnn.health.loss_curve import LossCurve, figure, has_parameters, outcome, percent, sampled, since, usual
from funcnn.health.record import HealthRecord, ModelFacts

VANISHED = 1e-3
"""The share of the output's gradient that is left at a layer. Initializations that keep the variance (Glorot and Bengio
2010, He et al. 2015) leave about 1; below this a layer learns a thousand times slower than the last one."""

EXPLODED = 30.0
"""How often a later layer's gradient is found at an earlier one. Initializations that keep the variance leave about 1;
ten layers would each have to be 1.4 times too large to get here."""

MOST = 0.5
"""A layer of which more than half is dead or saturated works with less than half of its width."""

NEARLY_ALL = 0.9
"""A layer with this share of dead units does not recover, even in a run that learns: they get no gradient."""

FEW_SAMPLES = 8
"""In smaller batches too many healthy units are off for every sample: 2⁻⁸ of them at this size, for units that are on
half of the time."""


def dead_units(record: HealthRecord, facts: ModelFacts, curve: LossCurve) -> Iterator[Finding]:
    """Find rectifying units that are off for every sample of a batch, in the last half of the run."""
    if _constant_output(record, facts) is not None:
        return
    rows = [row for row, layer in enumerate(facts.layers) if layer.units == "rectifying"]
    needed = NEARLY_ALL if curve.learns else MOST
    if facts.batch_size < FEW_SAMPLES:
        needed = 1.0
    dead = sampled(record, "dead")
    late = np.median(dead[len(dead) // 2 :], axis=0)
    for row in rows:
        if late[row] >= needed:
            more = sum(bool(late[other] >= needed) for other in rows) - 1
            yield Finding(
                "dead units",
                record.names[row],
                since(record, dead[:, row] >= needed),
                f"{percent(late[row])} of the units of {record.names[row]} are off for every sample of a batch"
                + (f" (and in {more} more layer{'s' * (more > 1)})" if more else "")
                + "; a unit that is off for all gets no gradient and stays off.",
                "Lower the learning rate, start with biases of 0 and He's kernels, or use leaky_relu or gelu.",
            )
            return


def saturation(record: HealthRecord, facts: ModelFacts, curve: LossCurve) -> Iterator[Finding]:
    """Find saturating units in their flat tails; at the output only where nearly all are and the run doesn't learn."""
    saturated = usual(sampled(record, "saturated"))
    for row, layer in enumerate(facts.layers):
        is_output = row == len(facts.layers) - 1
        if not curve.learns and layer.units == "saturating" and saturated[row] >= (NEARLY_ALL if is_output else MOST):
            yield Finding(
                "saturation",
                layer.name,
                since(record, sampled(record, "saturated")[:, row] >= MOST),
                f"{percent(saturated[row])} of the units of {layer.name} lie in the flat tails, where the slope is "
                f"below a twentieth of its maximum; {outcome(curve)}.",
                "Start with smaller kernels (xavier, the default) and biases of 0, scale the input to mean 0 and "
                "spread 1, or put batch_norm before the activation.",
            )
            return


def vanishing(record: HealthRecord, facts: ModelFacts, curve: LossCurve) -> Iterator[Finding]:
    """Find layers with parameters whose gradient is a tiny share of the output's."""
    relative, rows = sampled(record, "relative_cotangent"), has_parameters(record)
    constant = _constant_output(record, facts)
    if constant is not None:
        row, seen, remedy = constant
        yield Finding(
            "vanishing gradients",
            record.names[row],
            int(record.steps[0]),
            f"{seen}: its output is the same for every input, and no gradient passes through it. "
            f"{_sentence(outcome(curve))}",
            remedy,
        )
        return
    if not rows.any():
        return
    # The first step comes first: where the gradient vanishes, units are soon dead or saturated as well.
    for window in (slice(0, 1), slice(0, max(1, len(relative) // 4)), slice(None)):
        left = usual(relative[window])
        weakest, worst = int(np.flatnonzero(rows)[left[rows].argmin()]), int(_change(left).argmin())
        measure = {"rectifying": "dead", "saturating": "saturated"}.get(facts.layers[worst].units or "")
        beyond = VANISHED / max(left[weakest], 1e-300)
        if not curve.may_be_hindered(beyond) or (measure and usual(sampled(record, measure)[window])[worst] >= MOST):
            continue  # the finding of a mostly dead or saturated layer explains more
        yield Finding(
            "vanishing gradients",
            record.names[worst],
            since(record, relative[:, weakest] < VANISHED),
            f"The gradient at {record.names[weakest]} is {figure(left[weakest])} of that at the output; most is lost "
            f"in {record.names[worst]}, which passes on {figure(_change(left)[worst])}. {_sentence(outcome(curve))}",
            "Use relu, gelu or tanh for sigmoid, kernels that keep the variance (xavier, he), batch_norm or skip=True.",
        )
        return


def _constant_output(record: HealthRecord, facts: ModelFacts) -> tuple[int, str, str] | None:
    """Return the first layer that normalizes one entry at a time, which gives 0 for any input, with words on it."""
    if facts.batch_size * record.input.positions == 1:
        for row, layer in enumerate(facts.layers):
            if layer.mixes_samples:
                seen = f"A batch is a single sample, which {layer.name} takes for its own mean"
                return row, seen, "Use a batch_size of 32 or more, or layer_norm, which does not depend on the batch."
    cotangent, norm = sampled(record, "cotangent"), sampled(record, "parameter_norm")
    if not np.isfinite(cotangent).all():
        return None
    is_blocked = (cotangent[:, :-1] == 0).all(axis=0) & (cotangent[:, 1:] > 0).all(axis=0)
    for place in np.flatnonzero(is_blocked & (norm[:, 1:] > 0).all(axis=0)):
        layer = facts.layers[place + 1]
        if layer.units is None:
            seen = f"{layer.name} passes on exactly 0 at every step, as a normalization of one entry does"
            return (
                int(place) + 1,
                seen,
                "Normalize more entries at a time: fewer groups, more features, or a larger batch.",
            )
    return None


def exploding(record: HealthRecord, facts: ModelFacts, curve: LossCurve) -> Iterator[Finding]:
    """Find gradients that grow from layer to layer, or from step to step of a sequence, in the backward pass.

    From layer to layer they are those at the start of the run.
    """
    through_time = _exploding_through_time(record, curve)
    if through_time is not None:
        yield through_time
        return
    first = sampled(record, "relative_cotangent")[0]
    remedy = "Use kernels that keep the variance (xavier, he), batch_norm or layer_norm, or clip the gradients' norm."
    if not np.isfinite(first).all():
        name, step = record.names[np.flatnonzero(~np.isfinite(first))[-1]], int(record.steps[0])
        sentence = f"The gradient at {name} is no finite number at step {step}. {_sentence(outcome(curve))}"
        yield Finding("exploding gradients", name, step, sentence, remedy)
        return
    with np.errstate(divide="ignore", invalid="ignore"):
        grown = np.nan_to_num(first / np.minimum.accumulate(first[::-1])[::-1], nan=1.0, posinf=np.inf)
    strongest = int(grown.argmax())
    if not curve.may_be_hindered(grown[strongest] / EXPLODED):
        return
    worst = int(_change(first).argmax())
    yield Finding(
        "exploding gradients",
        record.names[worst],
        int(record.steps[0]),
        f"The gradient at {record.names[strongest]} is {figure(grown[strongest])} times that at a layer nearer the "
        f"output; it grows most in {record.names[worst]}, {figure(_change(first)[worst])} times. "
        f"{_sentence(outcome(curve))}",
        remedy,
    )


def _exploding_through_time(record: HealthRecord, curve: LossCurve) -> Finding | None:
    """Return the finding on the recurrent layer whose gradient grows most from the last step to an earlier one."""
    measured = np.broadcast_to(np.asarray(record.measures.growth_over_time, np.float64), record.update_ratios.shape)
    growth = np.where(np.isfinite(measured), measured, np.inf)
    usual_growth = np.maximum(growth[0], np.median(growth, axis=0))
    worst = int(usual_growth.argmax())
    if not curve.may_be_hindered(usual_growth[worst] / EXPLODED):
        return None
    return Finding(
        "exploding gradients",
        record.names[worst],
        since(record, growth[:, worst] > EXPLODED),
        f"The gradient by the input of {record.names[worst]} is {_times(usual_growth[worst])} as large at an early "
        f"step of a sequence as at its last step: it grows at every step back through the hidden kernel. "
        f"{_sentence(outcome(curve))}",
        "Clip the gradients' norm, start with an orthogonal hidden kernel (the default), or use lstm or gru.",
    )


def _times(ratio: float) -> str:
    return f"{figure(ratio)} times" if np.isfinite(ratio) else "infinitely many times"


def _change(relative: np.ndarray) -> np.ndarray:
    """Return the gradient at the layer before over each layer's own; 1 for the first layer, and for 0 over 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.append(1.0, relative[:-1] / relative[1:])
    return np.where(np.isnan(change), 1.0, change)


def _sentence(clause: str) -> str:
    return clause[0].upper() + clause[1:] + "."
