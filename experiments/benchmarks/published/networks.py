"""Published mistakes in networks written by hand: whole losses, and the gradients of all their parameters."""

import jax.numpy as jnp
from jax.nn import sigmoid

from experiments.benchmarks.catalogue.case import Case
from experiments.benchmarks.published.report import Report, UsualTest, named

THEME = "networks by hand"


# Two layers with the logistic function after each, half the squared error.
def perceptron_layers(params, x):
    hidden = sigmoid(x @ params["hidden"])
    return hidden, sigmoid(hidden @ params["output"])


def perceptron_loss(params, x, y):
    return ((perceptron_layers(params, x)[1] - y) ** 2).sum() / 2


def derivative(activation):
    """σ' of the value that the activation has."""
    return activation * (1 - activation)


def perceptron_gradient(
    params, x, y, at_output=derivative, at_hidden=derivative, weights=lambda output, doutput: output
):
    hidden, out = perceptron_layers(params, x)
    dz = (out - y) * at_output(out)
    doutput = hidden.T @ dz
    dhidden = dz @ weights(params["output"], doutput).T
    return {"hidden": x.T @ (dhidden * at_hidden(hidden)), "output": doutput}


def activated_twice(activation):
    """σ' as a function of the layer's input, given the layer's output."""
    return sigmoid(activation) * (1 - sigmoid(activation))


def derivative_of_activation(params, x, y):
    return perceptron_gradient(params, x, y, at_output=activated_twice, at_hidden=activated_twice)


def output_derivative_forgotten(params, x, y):
    return perceptron_gradient(params, x, y, at_output=jnp.ones_like)


def weights_updated_first(params, x, y):
    """The output's weights take their step, of learning rate 1, before the hidden layer's errors are computed."""
    return perceptron_gradient(params, x, y, weights=lambda output, doutput: output - doutput)


def perceptron_make(seed, samples):
    def make(dtype):
        parts = named(dtype, seed, hidden=(3, 4), output=(4, 2), x=(samples, 3), y=(samples, 2))
        x, y = parts.pop("x"), sigmoid(parts.pop("y"))
        return parts, (x, y)

    return make


# A recurrent layer with input, forget, cell and output gates on (h, x), half the squared error of the last state.
GATES = ("input", "forget", "cell", "output")


def gates_of(params, h, x):
    both = jnp.concatenate([h, x], axis=1)
    scores = {gate: both @ params[gate] for gate in GATES}
    return both, {gate: jnp.tanh(z) if gate == "cell" else sigmoid(z) for gate, z in scores.items()}


def lstm_steps(params, x):
    """What every step keeps, and the last hidden state."""
    width = params["cell"].shape[1]
    h = c = jnp.zeros((len(x), width), x.dtype)
    kept = []
    for step in range(x.shape[1]):
        both, gates = gates_of(params, h, x[:, step])
        before, c = c, gates["forget"] * c + gates["input"] * gates["cell"]
        h = gates["output"] * jnp.tanh(c)
        kept.append((both, gates, before, c))
    return kept, h


def lstm_loss(params, x, y):
    return ((lstm_steps(params, x)[1] - y) ** 2).sum() / 2


def lstm_gradient(params, x, y, at_forget=derivative):
    kept, h = lstm_steps(params, x)
    grads = {gate: jnp.zeros_like(params[gate]) for gate in GATES}
    dh, dc = h - y, jnp.zeros_like(h)
    for both, gates, before, c in reversed(kept):
        dc = dc + dh * gates["output"] * (1 - jnp.tanh(c) ** 2)
        dz = {
            "input": dc * gates["cell"] * derivative(gates["input"]),
            "forget": dc * before * at_forget(gates["forget"]),
            "cell": dc * gates["input"] * (1 - gates["cell"] ** 2),
            "output": dh * jnp.tanh(c) * derivative(gates["output"]),
        }
        grads = {gate: grads[gate] + both.T @ dz[gate] for gate in GATES}
        dh = sum(dz[gate] @ params[gate].T for gate in GATES)[:, : h.shape[1]]
        dc = dc * gates["forget"]
    return grads


def value_for_derivative(params, x, y):
    """The forget gate's error is multiplied by the logistic function of the gate, not by a derivative."""
    return lstm_gradient(params, x, y, at_forget=sigmoid)


def lstm_make(dtype):
    shapes = dict.fromkeys(GATES, (5, 3))
    parts = named(dtype, 603, **shapes, x=(2, 4, 2), y=(2, 3))
    x, y = parts.pop("x"), parts.pop("y")
    return parts, (x, y)


# A matrix applied twice.
def tied_loss(params, x):
    return (x @ params["weight"].T @ params["weight"].T).sum()


def tied_gradient(params, x, is_added=True):
    weight = params["weight"]
    dy = jnp.ones_like(x)
    first, second = (dy @ weight).T @ x, dy.T @ (x @ weight.T)
    return {"weight": first + second if is_added else second}


def second_use_alone(params, x):
    """The delayed gradient of one use replaces that of the other."""
    return tied_gradient(params, x, is_added=False)


def tied_make(dtype):
    parts = named(dtype, 604, weight=(4, 4), x=(2, 4))
    return {"weight": parts["weight"]}, (parts["x"],)


def untied_loss(params, x):
    return (x @ params["weight"].T @ params["second"].T).sum()


def untied_gradient(params, x):
    dy = jnp.ones_like(x)
    return {"weight": (dy @ params["second"]).T @ x, "second": dy.T @ (x @ params["weight"].T)}


def untied_make(dtype):
    parts = named(dtype, 605, weight=(4, 4), second=(4, 4), x=(2, 4))
    x = parts.pop("x")
    return parts, (x,)


# silu(e) e of e = exp(x): an operation that keeps its output for its backward pass, and one that overwrites its input.
def gated_exponential_loss(params, target):
    e = jnp.exp(params["x"])
    return ((e * sigmoid(e) * e - target) ** 2).sum() / 2


def gated_exponential_gradient(params, target, is_overwritten=False):
    e = jnp.exp(params["x"])
    s = sigmoid(e)
    dy = e * s * e - target
    dgate, dvalue = dy * e * (s + e * s * (1 - s)), dy * e * s
    saved = dgate if is_overwritten else e
    return {"x": (dgate + dvalue) * saved}


def saved_output_overwritten(params, target):
    """Where the exponential has kept its output, the gate's gradient lies now."""
    return gated_exponential_gradient(params, target, is_overwritten=True)


def gated_exponential_make(dtype):
    parts = named(dtype, 606, x=(3, 4), target=(3, 4))
    return {"x": parts["x"] / 2}, (parts["target"],)


def gate_alone_loss(params, target):
    return ((params["x"] * sigmoid(params["x"]) * params["x"] - target) ** 2).sum() / 2


def gate_alone_gradient(params, target):
    e = params["x"]
    s = sigmoid(e)
    dy = e * s * e - target
    return {"x": dy * e * (s + e * s * (1 - s)) + dy * e * s}


# A linear layer whose input is dropped out, scaled afterwards.
def dropped_layer_loss(params, mask, target):
    return ((2 * (jnp.where(mask, params["x"], 0) @ params["kernel"]) - target) ** 2).sum() / 2


def dropped_layer_gradient(params, mask, target, is_masked=True):
    dropped = jnp.where(mask, params["x"], 0)
    dy = 2 * (2 * (dropped @ params["kernel"]) - target)
    dx = dy @ params["kernel"].T
    return {"x": jnp.where(mask | (not is_masked), dx, 0), "kernel": dropped.T @ dy}


def dropout_mask_forgotten(params, mask, target):
    return dropped_layer_gradient(params, mask, target, is_masked=False)


def dropped_layer_make(dtype):
    parts = named(dtype, 607, x=(4, 3), kernel=(3, 2), target=(4, 2), mask=(4, 3))
    return {"x": parts["x"], "kernel": parts["kernel"]}, (parts["mask"] > 0, parts["target"])


REPORTS = (
    Report(
        Case(
            "perceptron_derivative_of_activation",
            THEME,
            perceptron_loss,
            derivative_of_activation,
            perceptron_make(601, 5),
            frozenset({"activation_derivative"}),
            "['output']",
            right=perceptron_gradient,
        ),
        "dwhitena/gophernet#6",
        "Calculating slope using sigmoid prime in training",
    ),
    Report(
        Case(
            "perceptron_output_derivative_forgotten",
            THEME,
            perceptron_loss,
            output_derivative_forgotten,
            perceptron_make(602, 5),
            frozenset({"activation_derivative"}),
            "['output']",
            right=perceptron_gradient,
        ),
        "Bot-Academy/NeuralNetworkFromScratch#3",
        "Fixed formally wrong backpropagation/gradient descent",
    ),
    Report(
        Case(
            "perceptron_weights_updated_first",
            THEME,
            perceptron_loss,
            weights_updated_first,
            perceptron_make(608, 1),
            frozenset({"updated_weights"}),
            "['hidden']",
            right=perceptron_gradient,
        ),
        "joelgrus/data-science-from-scratch#31",
        "Update the weights in backpropagation after calculating the hidden_deltas? (neuronal_networks.py)",
    ),
    Report(
        Case(
            "lstm_forget_gate_without_derivative",
            THEME,
            lstm_loss,
            value_for_derivative,
            lstm_make,
            frozenset({"activation_derivative"}),
            "['forget']",
            right=lstm_gradient,
        ),
        "CaptainE/RNN-LSTM-in-numpy#1",
        "Questions on the LSTM backpropagation code",
    ),
    Report(
        Case(
            "tied_weight_second_use_alone",
            THEME,
            tied_loss,
            second_use_alone,
            tied_make,
            frozenset({"lost_use"}),
            "['weight']",
            right=tied_gradient,
        ),
        "NVIDIA/TransformerEngine#3437",
        "Tied weights do not accumulate with delayed wgrad",
        UsualTest(
            "two layers that are not tied, `.sum()`, equal",
            "thread",
            untied_make,
            rtol=0.0,
            atol=1e-6,
            function=untied_loss,
            gradient=untied_gradient,
        ),
    ),
    Report(
        Case(
            "saved_output_overwritten",
            THEME,
            gated_exponential_loss,
            saved_output_overwritten,
            gated_exponential_make,
            frozenset({"wrong_operand"}),
            "['x']",
            right=gated_exponential_gradient,
        ),
        "linkedin/Liger-Kernel#254",
        "Are you even allowed to do these ops inplace?",
        UsualTest(
            "the gated unit alone, after nothing that keeps its output",
            "assumed",
            gated_exponential_make,
            rtol=1e-4,
            atol=1e-5,
            function=gate_alone_loss,
            gradient=gate_alone_gradient,
        ),
    ),
    Report(
        Case(
            "dropout_mask_forgotten",
            THEME,
            dropped_layer_loss,
            dropout_mask_forgotten,
            dropped_layer_make,
            frozenset({"mask"}),
            "['x']",
            right=dropped_layer_gradient,
        ),
        "ddbourgin/numpy-ml#94",
        "Backpropagation of dropout wrapper does not apply the mask",
    ),
)
