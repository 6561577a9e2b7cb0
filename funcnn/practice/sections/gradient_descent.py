"""Exercises on optimizers."""

import numpy as np

from funcnn.practice.sections._builders import batches, predict, repair, write
from funcnn.practice.task import Mistake

SECTION = "Gradient descent variants"


def _three(r, n, f):
    return r.normal(size=(n, f)), r.normal(size=(n, f)), r.normal(size=(n, f))


SGD_STEP = write(
    "sgd-step", "A step of gradient descent", SECTION, "p ← p − rate g, arrays of one shape. Return the new params.",
    """
    import numpy as np

    def step(params, gradient, rate):
        return params - rate * gradient
    """,
    inputs=batches(lambda r, n, f: (*_three(r, n, f)[:2], 0.1)), hints=("Downhill.", "The gradient points uphill.", "Scale it by the rate."),
    fact="Adam and momentum only change what stands in the gradient's place.", outputs=("params",),
    example=(np.array([[1.0]]), np.array([[2.0]]), 0.1),
    mistakes=[
        Mistake("sign", "params - rate", "params + rate", "The step goes uphill."),
        Mistake("scaled", "rate * gradient", "gradient", "The learning rate is left out."),
        Mistake("lost_path", "params - rate * gradient", "-rate * gradient", "That is the change, not the new parameters."),
    ],
)  # fmt: skip

MOMENTUM_STEP = write(
    "momentum-step", "A step with momentum", SECTION,
    "v ← decay v + g, then p ← p − rate v with the new v. All arrays of one shape. Return (params, velocity).",
    """
    import numpy as np

    def step(params, velocity, gradient, rate, decay):
        velocity = decay * velocity + gradient
        return params - rate * velocity, velocity
    """,
    inputs=batches(lambda r, n, f: (*_three(r, n, f), 0.1, 0.9), (np.ones((1, 2)), np.zeros((1, 2)), np.ones((1, 2)), 0.5, 0.0)),
    hints=("Two lines.", "The velocity comes first.", "The step takes the velocity that was just computed."),
    fact="With a constant gradient the step grows to rate / (1 − decay): ten times at 0.9.", outputs=("params", "velocity"),
    example=(np.array([1.0]), np.array([0.5]), np.array([2.0]), 0.1, 0.9),
    mistakes=[
        Mistake("scaled_path", "decay * velocity + gradient", "decay * velocity + (1 - decay) * gradient", "The gradient is weighted by 1 − decay: the statement adds it whole."),
        Mistake("updated_weights", "velocity = decay * velocity + gradient\n    return params - rate * velocity, velocity",
                "return params - rate * velocity, decay * velocity + gradient", "The step takes the velocity from before its update."),
        Mistake("sign", "params - rate", "params + rate", "The step goes uphill."),
        Mistake("wrong_operand", "params - rate * velocity", "params - rate * gradient", "The step takes the gradient: what is the velocity for?"),
        Mistake("lost_path", "decay * velocity + gradient", "velocity + gradient", "The velocity never fades: one factor is missing."),
        Mistake("scaled_path", "decay * velocity + gradient", "decay * velocity + rate * gradient", "The rate is in the velocity too: it would count twice."),
        Mistake("scaled_path", "velocity = decay * velocity + gradient\n    return params - rate * velocity, velocity",
                "velocity = decay * velocity - rate * gradient\n    return params + velocity, velocity", "The rate and the sign are kept in the velocity: that is another convention than the statement's."),
        Mistake("scaled_path", "velocity = decay * velocity + gradient\n    return params - rate * velocity, velocity",
                "velocity = decay * velocity + rate * gradient\n    return params - velocity, velocity", "The rate is kept in the velocity: the statement has it in the step."),
        Mistake("sign", "decay * velocity + gradient", "decay * velocity - gradient", "The gradient enters the velocity with the wrong sign."),
        Mistake("wrong_operand", "params - rate * velocity", "params - rate * (decay * velocity + gradient)", "The step looks ahead once more: that is Nesterov's."),
    ],
)  # fmt: skip

NESTEROV_STEP = write(
    "nesterov-step", "A step of Nesterov's momentum", SECTION,
    "v ← decay v + g, then p ← p − rate (decay v + g) with the new v. Return (params, velocity).",
    """
    import numpy as np

    def step(params, velocity, gradient, rate, decay):
        velocity = decay * velocity + gradient
        return params - rate * (decay * velocity + gradient), velocity
    """,
    inputs=batches(lambda r, n, f: (*_three(r, n, f), 0.1, 0.9)), hints=("As momentum, and one look ahead.", "decay v + g is computed twice.", "The second time with the new v."),
    fact="optax.sgd(nesterov=True) and PyTorch write it this way.", outputs=("params", "velocity"),
    mistakes=[
        Mistake("lost_path", "rate * (decay * velocity + gradient)", "rate * velocity", "The look ahead is missing: that is plain momentum."),
        Mistake("scaled_path", "rate * (decay * velocity + gradient)", "rate * (velocity + gradient)", "The look ahead has a factor too few."),
    ],
)  # fmt: skip

RMSPROP_STEP = write(
    "rmsprop-step", "A step of RMSProp", SECTION,
    "s ← 0.9 s + 0.1 g², then p ← p − rate g / (√s + 1e−8) with the new s. Return (params, s).",
    """
    import numpy as np

    def step(params, s, gradient, rate):
        s = 0.9 * s + 0.1 * gradient**2
        return params - rate * gradient / (np.sqrt(s) + 1e-8), s
    """,
    inputs=batches(lambda r, n, f: (r.normal(size=(n, f)), r.uniform(size=(n, f)), r.normal(size=(n, f)), 0.1)),
    hints=("An average of squares.", "Its root divides the gradient.", "Take the average that was just updated."),
    fact="The step hardly depends on the gradient's size: multiply all gradients by 100 and nothing changes after a while.", outputs=("params", "s"),
    mistakes=[
        Mistake("wrong_operand", "np.sqrt(s)", "s", "The root of the average is missing."),
        Mistake("wrong_operand", "gradient**2", "gradient", "The average is over squares."),
        Mistake("wrong_operand", "rate * gradient /", "rate /", "The gradient itself is left out: which way does the step go?"),
    ],
)  # fmt: skip

ADAM_STEP = write(
    "adam-step", "A step of Adam", SECTION,
    """
    m ← β1 m + (1 − β1) g, v ← β2 v + (1 − β2) g², m̂ = m / (1 − β1^t), v̂ = v / (1 − β2^t), p ← p − rate m̂ / (√v̂ + ε), with
    β1 = 0.9, β2 = 0.999, ε = 1e−8; t counts from 1. Return (params, m, v), m and v without the correction.
    """,
    """
    import numpy as np

    def step(params, m, v, t, gradient, rate):
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        m_hat = m / (1 - 0.9**t)
        v_hat = v / (1 - 0.999**t)
        return params - rate * m_hat / (np.sqrt(v_hat) + 1e-8), m, v
    """,
    inputs=batches(lambda r, n, f: (r.normal(size=(n, f)), r.normal(size=(n, f)), r.uniform(size=(n, f)), n, r.normal(size=(n, f)), 0.1),
                   (np.ones((1, 2)), np.zeros((1, 2)), np.zeros((1, 2)), 1, np.array([[2.0, 0.0]]), 0.1),
                   (np.ones((1, 2)), np.zeros((1, 2)), np.zeros((1, 2)), 1, np.array([[2e-8, 1e-8]]), 0.1),
                   (np.ones((1, 2)), np.full((1, 2), 0.3), np.full((1, 2), 0.2), 5000, np.array([[2.0, 0.0]]), 0.1)),
    hints=("Two averages, then two corrections.", "The corrections go into the step, not into what is returned.", "ε stands outside the root."),
    fact="The first step has the size of the rate whatever the gradient: m̂ is g and √v̂ is |g|.", outputs=("params", "m", "v"),
    example=(np.array([1.0]), np.array([0.0]), np.array([0.0]), 1, np.array([2.0]), 0.1),
    mistakes=[
        Mistake("lost_path", "m / (1 - 0.9**t)\n    v_hat = v / (1 - 0.999**t)", "m\n    v_hat = v", "The bias correction is left out: the averages start at 0."),
        Mistake("lost_path", "m / (1 - 0.9**t)", "m", "The correction of the first average is left out."),
        Mistake("lost_path", "v / (1 - 0.999**t)", "v", "The correction of the second average is left out."),
        Mistake("wrong_operand", "np.sqrt(v_hat) + 1e-8", "v_hat + 1e-8", "The root of the second average is missing."),
        Mistake("wrong_operand", "np.sqrt(v_hat) + 1e-8", "np.sqrt(v_hat + 1e-8)", "ε stands inside the root: that differs where gradients are tiny."),
        Mistake("wrong_operand", "gradient**2", "gradient", "The second average is over squares."),
        Mistake("sign", "params - rate", "params + rate", "The step goes uphill."),
        Mistake("wrong_operand", "rate * m_hat", "rate * gradient", "The step takes the gradient: what is the first average for?"),
        Mistake("wrong_operand", "0.9**t", "0.9**(t + 1)", "t counts from 1 and is one too large in the corrections."),
        Mistake("swapped", "0.9 * m + 0.1 * gradient", "0.1 * m + 0.9 * gradient", "The weights of the first average are exchanged: which one is close to 1?"),
        Mistake("accumulated", "1e-8), m, v", "1e-8), m_hat, v_hat", "The corrected averages are returned: the next step would correct them again."),
        Mistake("wrong_operand", "1 - 0.9**t)\n    v_hat = v / (1 - 0.999**t", "1 - 0.9)\n    v_hat = v / (1 - 0.999", "The corrections don't depend on t."),
        Mistake("lost_path", " + 1e-8", " + 0", "ε is left out: a gradient of 0 divides 0 by 0."),
        Mistake("scaled_path", "0.1 * gradient", "gradient", "The gradient enters the first average whole."),
        Mistake("swapped", "0.999 * v + 0.001 * gradient**2", "0.9 * v + 0.1 * gradient**2", "The second average has the first one's weights."),
    ],
)  # fmt: skip

TASKS = (
    SGD_STEP, MOMENTUM_STEP, NESTEROV_STEP, RMSPROP_STEP, ADAM_STEP,
    repair("repair-momentum-order", "Yesterday's velocity", MOMENTUM_STEP, 1),
    repair("repair-momentum-average", "A velocity that averages", MOMENTUM_STEP, 0),
    repair("repair-rmsprop-root", "A root forgotten", RMSPROP_STEP, 0),
    repair("repair-adam-correction", "Adam without its correction", ADAM_STEP, 0),
    repair("repair-adam-epsilon", "Where ε belongs", ADAM_STEP, 4),
    repair("repair-adam-step-count", "A count that is off", ADAM_STEP, 8),
    predict("predict-adam-first-step", "Adam's first step", SECTION,
            "A parameter at 1.0, gradient 250, rate 0.1, Adam's first step from m = v = 0. Where is the parameter then?",
            "def answer():\n    return 1.0 - 0.1 * 250.0 / (250.0 + 1e-8)", fact="Adam bounds its first step by the rate.",
            hints=("Correct both averages.", "m̂ is the gradient, √v̂ its size.", "Their quotient is 1.")),
    predict("predict-momentum-limit", "Momentum in the long run", SECTION,
            "Gradient always 1, rate 0.1, decay 0.9. How long is a step after very many?",
            "def answer():\n    v = 0.0\n    for _ in range(2000):\n        v = 0.9 * v + 1.0\n    return 0.1 * v", fact="Ten plain steps in one: a rate tuned for plain descent may be too large.",
            hints=("The velocity stops changing.", "Solve v = 0.9 v + 1.", "Multiply by the rate.")),
    predict("predict-divergence", "The largest rate that works", SECTION,
            "Gradient descent on L = 3 w². Above which learning rate does |w| grow?",
            "def answer():\n    return 2 / 6.0", fact="Twice the inverse of the curvature, in any dimension the largest one.",
            hints=("One step multiplies w by a number.", "It is 1 − 6 rate.", "When is its size 1?")),
)  # fmt: skip
