"""Exercises on optimizers."""

import numpy as np

from funcnn.practice.builders import batches, predict, repair, write

SECTION = "Gradient descent variants"


def _three(r, n, f):
    return r.normal(size=(n, f)), r.normal(size=(n, f)), r.normal(size=(n, f))


SGD_STEP = write(
    "sgd-step", "A step of gradient descent", SECTION, "p ← p − rate g, with p the params and g the gradient, arrays of one shape. Return the new params.",
    "step(params, gradient, rate)",
    inputs=batches(lambda r, n, f: (*_three(r, n, f)[:2], 0.1)), hints=("Downhill.", "The gradient points uphill.", "Scale it by the rate."),
    fact="Adam and momentum only change what stands in the gradient's place.", outputs=("params",),
    example=(np.array([[1.0]]), np.array([[2.0]]), 0.1),
)  # fmt: skip

MOMENTUM_STEP = write(
    "momentum-step", "A step with momentum", SECTION,
    "v ← decay v + g, then p ← p − rate v with the new v; p params, v velocity, g gradient, of one shape. Return (params, velocity).",
    "step(params, velocity, gradient, rate, decay)",
    inputs=batches(lambda r, n, f: (*_three(r, n, f), 0.1, 0.9), (np.ones((1, 2)), np.zeros((1, 2)), np.ones((1, 2)), 0.5, 0.0)),
    hints=("Two lines.", "The velocity comes first.", "The step takes the velocity that was just computed."),
    fact="With a constant gradient the step grows to rate / (1 − decay): ten times at 0.9.", outputs=("params", "velocity"),
    example=(np.array([1.0]), np.array([0.5]), np.array([2.0]), 0.1, 0.9),
)  # fmt: skip

NESTEROV_STEP = write(
    "nesterov-step", "A step of Nesterov's momentum", SECTION,
    "v ← decay v + g, then p ← p − rate (decay v + g) with the new v; p params, v velocity, g gradient. Return (params, velocity).",
    "step(params, velocity, gradient, rate, decay)",
    inputs=batches(lambda r, n, f: (*_three(r, n, f), 0.1, 0.9)), hints=("As momentum, and one look ahead.", "decay v + g is computed twice.", "The second time with the new v."),
    fact="optax.sgd(nesterov=True) and PyTorch write it this way.", outputs=("params", "velocity"),
    example=(np.array([1.0]), np.array([0.5]), np.array([2.0]), 0.1, 0.9),
)  # fmt: skip

RMSPROP_STEP = write(
    "rmsprop-step", "A step of RMSProp", SECTION,
    "s ← 0.9 s + 0.1 g², then p ← p − rate g / (√s + 1e−8) with the new s; p params, g gradient. Return (params, s).",
    "step(params, s, gradient, rate)",
    inputs=batches(lambda r, n, f: (r.normal(size=(n, f)), r.uniform(size=(n, f)), r.normal(size=(n, f)), 0.1)),
    hints=("An average of squares.", "Its root divides the gradient.", "Take the average that was just updated."),
    fact="The step hardly depends on the gradient's size: multiply all gradients by 100 and nothing changes after a while.", outputs=("params", "s"),
    example=(np.array([1.0]), np.array([0.5]), np.array([2.0]), 0.1),
)  # fmt: skip

ADAM_STEP = write(
    "adam-step", "A step of Adam", SECTION,
    """
    m ← β1 m + (1 − β1) g, v ← β2 v + (1 − β2) g², m̂ = m / (1 − β1^t), v̂ = v / (1 − β2^t), p ← p − rate m̂ / (√v̂ + ε), with
    β1 = 0.9, β2 = 0.999, ε = 1e−8; p params, g gradient; t counts from 1. Return (params, m, v), m and v without the correction.
    """,
    "step(params, m, v, t, gradient, rate)",
    inputs=batches(lambda r, n, f: (r.normal(size=(n, f)), r.normal(size=(n, f)), r.uniform(size=(n, f)), n, r.normal(size=(n, f)), 0.1),
                   (np.ones((1, 2)), np.zeros((1, 2)), np.zeros((1, 2)), 1, np.array([[2.0, 0.0]]), 0.1),
                   (np.ones((1, 2)), np.zeros((1, 2)), np.zeros((1, 2)), 1, np.array([[2e-8, 1e-8]]), 0.1),
                   (np.ones((1, 2)), np.full((1, 2), 0.3), np.full((1, 2), 0.2), 5000, np.array([[2.0, 0.0]]), 0.1)),
    hints=("Two averages, then two corrections.", "The corrections go into the step, not into what is returned.", "ε stands outside the root."),
    fact="The first step has the size of the rate whatever the gradient: m̂ is g and √v̂ is |g|.", outputs=("params", "m", "v"),
    example=(np.array([1.0]), np.array([0.0]), np.array([0.0]), 1, np.array([2.0]), 0.1),
)  # fmt: skip

TASKS = (
    SGD_STEP, MOMENTUM_STEP, NESTEROV_STEP, RMSPROP_STEP, ADAM_STEP,
    repair("repair-momentum-order", "The order of two updates", MOMENTUM_STEP, 1),
    repair("repair-momentum-average", "A velocity that averages", MOMENTUM_STEP, 0),
    repair("repair-rmsprop-root", "A root forgotten", RMSPROP_STEP, 0),
    repair("repair-adam-correction", "Adam without its correction", ADAM_STEP, 0),
    repair("repair-adam-epsilon", "Where ε belongs", ADAM_STEP, 4),
    repair("repair-adam-step-count", "A count that is off", ADAM_STEP, 8),
    predict("predict-adam-first-step", "Adam's first step", SECTION,
            "A parameter at 1.0, gradient 250, rate 0.1, Adam's first step from m = v = 0. Where is the parameter then?",
            fact="Adam bounds its first step by the rate.",
            hints=("Correct both averages.", "m̂ is the gradient, √v̂ its size.", "Their quotient is 1.")),
    predict("predict-momentum-limit", "Momentum in the long run", SECTION,
            "Gradient always 1, rate 0.1, decay 0.9. How long is a step after very many?",
            fact="Ten plain steps in one: a rate tuned for plain descent may be too large.",
            hints=("The velocity stops changing.", "Solve v = 0.9 v + 1.", "Multiply by the rate.")),
    predict("predict-divergence", "The largest rate that works", SECTION,
            "Gradient descent on L = 3 w². Above which learning rate does |w| grow?",
            fact="Twice the inverse of the curvature, in any dimension the largest one.",
            hints=("One step multiplies w by a number.", "It is 1 − 6 rate.", "When is its size 1?")),
)  # fmt: skip
