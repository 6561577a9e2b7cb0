"""Solutions of the exercises on gradient descent, and what people get wrong in them."""

from funcnn.practice.task import Answers, Mistake

SOLUTIONS = {
    "sgd-step": Answers(
        """\
import numpy as np

def step(params, gradient, rate):
    return params - rate * gradient
""",
        (
            Mistake("sign", "params - rate", "params + rate", "The step goes uphill."),
            Mistake("scaled", "rate * gradient", "gradient", "The learning rate is left out."),
            Mistake(
                "lost_path",
                "params - rate * gradient",
                "-rate * gradient",
                "That is the change, not the new parameters.",
            ),
        ),
    ),
    "momentum-step": Answers(
        """\
import numpy as np

def step(params, velocity, gradient, rate, decay):
    velocity = decay * velocity + gradient
    return params - rate * velocity, velocity
""",
        (
            Mistake(
                "scaled_path",
                "decay * velocity + gradient",
                "decay * velocity + (1 - decay) * gradient",
                "The gradient is weighted by 1 − decay: the statement adds it whole.",
            ),
            Mistake(
                "updated_weights",
                "velocity = decay * velocity + gradient\n    return params - rate * velocity, velocity",
                "return params - rate * velocity, decay * velocity + gradient",
                "The step takes the velocity from before its update.",
            ),
            Mistake("sign", "params - rate", "params + rate", "The step goes uphill."),
            Mistake(
                "wrong_operand",
                "params - rate * velocity",
                "params - rate * gradient",
                "The step takes the gradient: what is the velocity for?",
            ),
            Mistake(
                "lost_path",
                "decay * velocity + gradient",
                "velocity + gradient",
                "The velocity never fades: one factor is missing.",
            ),
            Mistake(
                "scaled_path",
                "decay * velocity + gradient",
                "decay * velocity + rate * gradient",
                "The rate is in the velocity too: it would count twice.",
            ),
            Mistake(
                "scaled_path",
                "velocity = decay * velocity + gradient\n    return params - rate * velocity, velocity",
                "velocity = decay * velocity - rate * gradient\n    return params + velocity, velocity",
                "The rate and the sign are kept in the velocity: that is another convention than the statement's.",
            ),
            Mistake(
                "scaled_path",
                "velocity = decay * velocity + gradient\n    return params - rate * velocity, velocity",
                "velocity = decay * velocity + rate * gradient\n    return params - velocity, velocity",
                "The rate is kept in the velocity: the statement has it in the step.",
            ),
            Mistake(
                "sign",
                "decay * velocity + gradient",
                "decay * velocity - gradient",
                "The gradient enters the velocity with the wrong sign.",
            ),
            Mistake(
                "wrong_operand",
                "params - rate * velocity",
                "params - rate * (decay * velocity + gradient)",
                "The step looks ahead once more: that is Nesterov's.",
            ),
        ),
    ),
    "nesterov-step": Answers(
        """\
import numpy as np

def step(params, velocity, gradient, rate, decay):
    velocity = decay * velocity + gradient
    return params - rate * (decay * velocity + gradient), velocity
""",
        (
            Mistake(
                "lost_path",
                "rate * (decay * velocity + gradient)",
                "rate * velocity",
                "The look ahead is missing: that is plain momentum.",
            ),
            Mistake(
                "scaled_path",
                "rate * (decay * velocity + gradient)",
                "rate * (velocity + gradient)",
                "The look ahead has a factor too few.",
            ),
        ),
    ),
    "rmsprop-step": Answers(
        """\
import numpy as np

def step(params, s, gradient, rate):
    s = 0.9 * s + 0.1 * gradient**2
    return params - rate * gradient / (np.sqrt(s) + 1e-8), s
""",
        (
            Mistake("wrong_operand", "np.sqrt(s)", "s", "The root of the average is missing."),
            Mistake("wrong_operand", "gradient**2", "gradient", "The average is over squares."),
            Mistake(
                "wrong_operand",
                "rate * gradient /",
                "rate /",
                "The gradient itself is left out: which way does the step go?",
            ),
        ),
    ),
    "adam-step": Answers(
        """\
import numpy as np

def step(params, m, v, t, gradient, rate):
    m = 0.9 * m + 0.1 * gradient
    v = 0.999 * v + 0.001 * gradient**2
    m_hat = m / (1 - 0.9**t)
    v_hat = v / (1 - 0.999**t)
    return params - rate * m_hat / (np.sqrt(v_hat) + 1e-8), m, v
""",
        (
            Mistake(
                "lost_path",
                "m / (1 - 0.9**t)\n    v_hat = v / (1 - 0.999**t)",
                "m\n    v_hat = v",
                "The bias correction is left out: the averages start at 0.",
            ),
            Mistake("lost_path", "m / (1 - 0.9**t)", "m", "The correction of the first average is left out."),
            Mistake("lost_path", "v / (1 - 0.999**t)", "v", "The correction of the second average is left out."),
            Mistake(
                "wrong_operand", "np.sqrt(v_hat) + 1e-8", "v_hat + 1e-8", "The root of the second average is missing."
            ),
            Mistake(
                "wrong_operand",
                "np.sqrt(v_hat) + 1e-8",
                "np.sqrt(v_hat + 1e-8)",
                "ε stands inside the root: that differs where gradients are tiny.",
            ),
            Mistake("wrong_operand", "gradient**2", "gradient", "The second average is over squares."),
            Mistake("sign", "params - rate", "params + rate", "The step goes uphill."),
            Mistake(
                "wrong_operand",
                "rate * m_hat",
                "rate * gradient",
                "The step takes the gradient: what is the first average for?",
            ),
            Mistake(
                "wrong_operand", "0.9**t", "0.9**(t + 1)", "t counts from 1 and is one too large in the corrections."
            ),
            Mistake(
                "swapped",
                "0.9 * m + 0.1 * gradient",
                "0.1 * m + 0.9 * gradient",
                "The weights of the first average are exchanged: which one is close to 1?",
            ),
            Mistake(
                "accumulated",
                "1e-8), m, v",
                "1e-8), m_hat, v_hat",
                "The corrected averages are returned: the next step would correct them again.",
            ),
            Mistake(
                "wrong_operand",
                "1 - 0.9**t)\n    v_hat = v / (1 - 0.999**t",
                "1 - 0.9)\n    v_hat = v / (1 - 0.999",
                "The corrections don't depend on t.",
            ),
            Mistake("lost_path", " + 1e-8", " + 0", "ε is left out: a gradient of 0 divides 0 by 0."),
            Mistake("scaled_path", "0.1 * gradient", "gradient", "The gradient enters the first average whole."),
            Mistake(
                "swapped",
                "0.999 * v + 0.001 * gradient**2",
                "0.9 * v + 0.1 * gradient**2",
                "The second average has the first one's weights.",
            ),
        ),
    ),
    "predict-adam-first-step": Answers(
        """\
def answer():
    return 1.0 - 0.1 * 250.0 / (250.0 + 1e-8)
""",
    ),
    "predict-momentum-limit": Answers(
        """\
def answer():
    v = 0.0
    for _ in range(2000):
        v = 0.9 * v + 1.0
    return 0.1 * v
""",
    ),
    "predict-divergence": Answers(
        """\
def answer():
    return 2 / 6.0
""",
    ),
}
