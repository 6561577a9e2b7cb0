"""The chapter's examples that need no training, and its XOR example's printed losses and initial parameters.

Each function computes one example and returns it as an ``Example``. The printed figures are strings, since their digits
are part of what the chapter claims. The true figures are computed.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

import funcnn as fnn
from experiments.harness.claims import format_number


class Comparison(NamedTuple):
    """A printed figure, the true one to as many digits, and whether they are the same number."""

    printed: str
    true: str
    right: bool


class Printed(NamedTuple):
    """Figures that the chapter prints for a quantity, with blanks between them, and the true values in full."""

    quantity: str
    printed: str
    true: ArrayLike

    def comparisons(self) -> list[Comparison]:
        pairs = zip(self.printed.split(), np.ravel(self.true), strict=True)
        return [compare(printed, float(true)) for printed, true in pairs]


class Example(NamedTuple):
    """An example: its steps, the figures that the chapter prints, a conclusion, and the true figures."""

    title: str
    board: str
    printed: tuple[Printed, ...]
    conclusion: str
    true: dict[str, Any]

    def count_wrong(self) -> int:
        """Return how many of the printed figures are wrong."""
        return sum(not one.right for printed in self.printed for one in printed.comparisons())


def compare(printed: str, true: float) -> Comparison:
    decimals = len(printed.partition(".")[2])
    rounded = f"{true:z.{decimals}f}"
    return Comparison(printed, rounded, float(printed) == float(rounded))


def to_python(tree: Any) -> Any:
    """Return a tree of arrays as one of Python numbers and lists."""
    return jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), tree)


def show(values: ArrayLike, digits: int = 4) -> str:
    """Format numbers: rows separated by slashes, entries by blanks."""
    rows = np.atleast_2d(np.asarray(values))
    return " / ".join("  ".join(f"{entry:z.{digits}f}" for entry in row) for row in rows).replace("-", "−")


XOR_LOSSES = {0: "0.277823", 2000: "0.125614", 4000: "0.015423", 6000: "0.004567", 8000: "0.002134"}


def xor_initial_params():
    """Return the chapter's initial parameters, drawn from NumPy's legacy generator seeded with 42."""
    draws = np.random.RandomState(42)
    hidden = fnn.LinearParams(jnp.array(draws.randn(2, 4) * 0.5), jnp.zeros(4))
    return hidden, (), fnn.LinearParams(jnp.array(draws.randn(4, 1) * 0.5), jnp.zeros(1)), ()


def single_neuron() -> Example:
    x, w, b = jnp.array([[1.0, 2.0, 3.0]]), jnp.array([[0.2], [0.8], [-0.5]]), jnp.array([2.0])
    z, _ = fnn.linear_forward(fnn.LinearParams(w, b), x)
    pairs = {"sigmoid": fnn.sigmoid_forward, "relu": fnn.relu_forward, "tanh": fnn.tanh_forward}
    here = {name: forward(z[0, 0])[0] for name, forward in pairs.items()}
    there = {name: forward(jnp.array(-2.0))[0] for name, forward in pairs.items()}
    board = f"""\
x = {show(x, 1)}    w = {show(w.T, 1)}    b = {show(b, 1)}
weigh and sum    z = 1·0.2 + 2·0.8 + 3·(−0.5) + 2 = {show(z, 1)}
then squash      σ(z) = {show(here["sigmoid"])}  max(0, z) = {show(here["relu"])}  tanh(z) = {show(here["tanh"])}
and for z = −2   σ(z) = {show(there["sigmoid"])}  max(0, z) = {show(there["relu"])}  tanh(z) = {show(there["tanh"])}"""
    printed = (
        Printed("z", "2.3", z),
        Printed("at z = 2.3", "0.9089 2.3000 0.9801", list(here.values())),
        Printed("at z = −2", "0.1192 0.0000 -0.9640", list(there.values())),
    )
    conclusion = "One weighted sum, and a different output for each activation."
    return Example("A single neuron", board, printed, conclusion,
                   to_python({"z": z[0, 0], **here, "at_minus_2": there}))  # fmt: skip


def activation_table() -> Example:
    z = jnp.array([-3.0, -1.0, 0.0, 1.0, 3.0])
    one = jnp.ones_like(z)
    sigmoid, sigmoid_kept = fnn.sigmoid_forward(z)
    relu, relu_kept = fnn.relu_forward(z)
    leaky, leaky_kept = fnn.leaky_relu_forward(z, alpha=0.01)
    softmax, _ = fnn.softmax_forward(jnp.array([2.0, 1.0, 0.1]))
    true = {
        "sigmoid": sigmoid,
        "sigmoid_derivative": fnn.sigmoid_backward(sigmoid_kept, one),
        "relu": relu,
        "relu_derivative": fnn.relu_backward(relu_kept, one),
        "leaky_relu": leaky,
        "leaky_relu_derivative": fnn.leaky_relu_backward(leaky_kept, one),
        "softmax": softmax,
    }
    board = f"""\
A backward pass multiplies what arrives by the slope: let a one arrive, and the slope comes out.
z        {"  ".join(f"{entry:7g}" for entry in z)}
σ′(z)    {"  ".join(f"{entry:7.4f}" for entry in true["sigmoid_derivative"])}    largest at 0, and only a quarter there
ReLU′(z) {"  ".join(f"{entry:7g}" for entry in true["relu_derivative"])}    all or nothing; at the kink 0, by convention
leaky′   {"  ".join(f"{entry:7g}" for entry in true["leaky_relu_derivative"])}    never nothing
softmax(2, 1, 0.1) = {show(softmax)}, and the sum is {float(softmax.sum()):.4f}"""
    printed = (
        Printed("σ", "0.0474 0.2689 0.5000 0.7311 0.9526", true["sigmoid"]),
        Printed("σ′", "0.0452 0.1966 0.2500 0.1966 0.0452", true["sigmoid_derivative"]),
        Printed("ReLU", "-0.0 -0.0 0.0 1.0 3.0", true["relu"]),
        Printed("ReLU′", "0.0 0.0 0.0 1.0 1.0", true["relu_derivative"]),
        Printed("leaky ReLU", "-0.0300 -0.0100 0.0000 1.0000 3.0000", true["leaky_relu"]),
        Printed("leaky ReLU′", "0.01 0.01 0.01 1.00 1.00", true["leaky_relu_derivative"]),
        Printed("softmax", "0.6590 0.2424 0.0986", softmax),
        Printed("its sum", "1.0000", softmax.sum()),
    )
    conclusion = "The zeros of ReLU are printed with a minus sign; as numbers they are right."
    return Example("Activations and their derivatives", board, printed, conclusion, to_python(true))


def forward_propagation() -> Example:
    x = jnp.array([[0.5, 0.8]])
    hidden = fnn.LinearParams(jnp.array([[0.1, 0.3, -0.2], [0.4, -0.5, 0.6]]), jnp.array([0.1, -0.1, 0.2]))
    output = fnn.LinearParams(jnp.array([[0.7], [-0.3], [0.5]]), jnp.array([0.1]))
    z1, _ = fnn.linear_forward(hidden, x)
    a1, _ = fnn.relu_forward(z1)
    z2, _ = fnn.linear_forward(output, a1)
    probability, _ = fnn.sigmoid_forward(z2)

    without_b1, _ = fnn.linear_forward(hidden._replace(bias=jnp.zeros(3)), x)
    without_b2, _ = fnn.linear_forward(output._replace(bias=jnp.zeros(1)), a1)
    board = f"""\
2 inputs → 3 hidden units (ReLU) → 1 output (σ),  x = {show(x, 1)}
z1 = x W1 + b1 = {show(z1)}      z1[1] = 0.5·0.3 + 0.8·(−0.5) − 0.1 = {show(z1[0, 1], 2)}
a1 = max(0, z1) = {show(a1)}      the negative one is cut off
z2 = a1 W2 + b2 = {show(z2)}      0.47·0.7 + 0·(−0.3) + 0.58·0.5 + 0.1
σ(z2)           = {show(probability)}"""
    printed = (
        Printed("z1", "0.4700 -0.2500 0.5800", z1),
        Printed("a1", "0.4700 0.0000 0.5800", a1),
        Printed("z2", "0.619", z2),
        Printed("σ(z2)", "0.6498", probability),
    )
    conclusion = (
        f"Leave the bias out, and z1[1] is {show(without_b1[0, 1])} and z2 is {show(without_b2, 3)}: what the "
        "chapter prints. ReLU hides the first slip, so the second is one of its own; and the last figure doesn't "
        f"follow even from it, for σ({show(without_b2, 3)}) = {show(fnn.sigmoid_forward(without_b2)[0])}."
    )
    return Example("Forward propagation", board, printed, conclusion,
                   to_python({"z1": z1, "a1": a1, "z2": z2, "output": probability}))  # fmt: skip


def backpropagate(params, x, y):
    """Return gradients and every intermediate value of x → linear → ReLU → linear → σ with binary cross-entropy."""
    hidden, output = params
    z1, kept_hidden = fnn.linear_forward(hidden, x)
    a1, kept_relu = fnn.relu_forward(z1)
    z2, kept_output = fnn.linear_forward(output, a1)
    loss, kept_loss = fnn.sigmoid_cross_entropy_forward(z2, y)

    dz2 = fnn.sigmoid_cross_entropy_backward(kept_loss, jnp.ones_like(loss))
    doutput, da1 = fnn.linear_backward(kept_output, dz2)
    dz1 = fnn.relu_backward(kept_relu, da1)
    dhidden, _ = fnn.linear_backward(kept_hidden, dz1)
    steps = {
        "z1": z1, "a1": a1, "z2": z2, "a2": fnn.sigmoid_forward(z2)[0], "loss": loss,
        "dz2": dz2, "dW2": doutput.kernel, "db2": doutput.bias, "da1": da1,
        "dz1": dz1, "dW1": dhidden.kernel, "db1": dhidden.bias,
    }  # fmt: skip
    return (dhidden, doutput), steps


def backpropagation_step() -> Example:
    x, y = jnp.array([[1.0, 0.5]]), jnp.array([[1.0]])
    hidden = fnn.LinearParams(jnp.array([[0.3, 0.7], [0.5, -0.2]]), jnp.array([0.1, -0.1]))
    output = fnn.LinearParams(jnp.array([[0.6], [-0.4]]), jnp.array([0.2]))
    params = (hidden, output)
    gradients, steps = backpropagate(params, x, y)
    optimizer = fnn.sgd(0.1)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    after_hidden, after_output = optax.apply_updates(params, updates)
    true = steps | {"W2_after": after_output.kernel, "W1_after": after_hidden.kernel}
    report = fnn.check_gradients(
        lambda *given: backpropagate(*given)[1]["loss"], lambda *given: backpropagate(*given)[0], params, x, y
    )
    board = f"""\
forward   z1 = {show(true["z1"])}   a1 = {show(true["a1"])}   z2 = {show(true["z2"])}   σ(z2) = {show(true["a2"])}
          target 1, so the loss is −log {show(true["a2"])} = {show(true["loss"])}
backward, from the last layer to the first; dv is the slope of the loss by v
  dz2 = σ(z2) − y   = {show(true["dz2"])}    cross-entropy and σ together: their awkward factors cancel
  dW2 = a1ᵀ dz2     = {show(true["dW2"])}    the weight's input, times the error at its output
  db2 = dz2         = {show(true["db2"])}
  da1 = dz2 W2ᵀ     = {show(true["da1"])}    the error goes back through the same weights
  dz1 = da1·ReLU′   = {show(true["dz1"])}    both units are active: everything passes
  dW1 = xᵀ dz1      = {show(true["dW1"])}
  db1 = dz1         = {show(true["db1"])}
update, with the learning rate 0.1
  W2 − 0.1 dW2      = {show(true["W2_after"])}
  W1 − 0.1 dW1      = {show(true["W1_after"])}
beside jax.grad: {report.diagnosis}"""
    printed = (
        Printed("z1", "0.65 0.5", true["z1"]),
        Printed("a1", "0.65 0.5", true["a1"]),
        Printed("z2", "0.39", true["z2"]),
        Printed("σ(z2)", "0.5963", true["a2"]),
        Printed("loss", "0.5173", true["loss"]),
        Printed("dz2", "-0.4037", true["dz2"]),
        Printed("dW2", "-0.2624 -0.2019", true["dW2"]),
        Printed("db2", "-0.4037", true["db2"]),
        Printed("da1", "-0.2422 0.1615", true["da1"]),
        Printed("dz1", "-0.2422 0.1615", true["dz1"]),
        Printed("dW1, first row", "-0.2422 0.1615", true["dW1"][0]),
        Printed("dW1, second row", "-0.1211 0.0807", true["dW1"][1]),
        Printed("db1", "-0.2422 0.1615", true["db1"]),
        Printed("W2 after", "0.6262 -0.3798", true["W2_after"]),
        Printed("W1 after, first row", "0.3242 0.6838", true["W1_after"][0]),
        Printed("W1 after, second row", "0.5121 -0.2081", true["W1_after"][1]),
    )
    conclusion = (
        f"The gradients are right. The loss isn't, and W1[0, 1] = {show(true['W1_after'][0, 1], 6)} was cut off after "
        "four digits instead of rounded."
    )
    return Example("One step of backpropagation", board, printed, conclusion, to_python(true))


def input_scaling() -> Example:
    x = jnp.array([[25000.0, 25.0, 0.5], [80000.0, 55.0, 0.9]])
    scaled = {
        "standardised": fnn.standard_scaler.apply(fnn.standard_scaler.fit(x), x),
        "min_max": fnn.min_max_scaler.apply(fnn.min_max_scaler.fit(x), x),
    }
    neuron = fnn.LinearParams(jnp.array([[0.01], [0.02], [0.03]]), jnp.zeros(1))
    slopes = []
    for features in (x, scaled["standardised"]):
        a, kept = fnn.sigmoid_forward(fnn.linear_forward(neuron, features)[0])
        slopes.append(fnn.sigmoid_backward(kept, jnp.ones_like(a)))
    board = f"""\
income, age, ratio        {show(x, 1)}
mean 0 and variance 1     {show(scaled["standardised"])}
between 0 and 1           {show(scaled["min_max"])}
A neuron with the weights 0.01, 0.02, 0.03 has, at these two samples, the slope
  σ′(z), raw              {show(slopes[0].T)}    the income alone makes z, and σ is flat there
  σ′(z), standardised     {show(slopes[1].T)}    near the best there is, 0.25"""
    conclusion = (
        "The chapter prints no figures here. Two samples, standardised, are always −1 and 1, whatever they were."
    )
    return Example("Input scaling", board, (), conclusion, to_python(scaled))


def softmax_reading() -> Example:
    scores = jnp.array([2.0, 1.0, 0.1])
    exclusive, independent = fnn.softmax_forward(scores)[0], fnn.sigmoid_forward(scores)[0]
    shifted = fnn.softmax_forward(scores + 100)[0]
    moved = format_number(float(abs(shifted - exclusive).max()), 1)
    board = f"""\
scores                    {show(scores, 1)}
softmax of all three      {show(exclusive)}    sum {float(exclusive.sum()):.4f}: shares of one whole
σ of each alone           {show(independent)}    sum {float(independent.sum()):.4f}: three answers, each yes or no
softmax of scores + 100   {show(shifted)}    moved by {moved}: differences count
σ of each score + 100     {show(fnn.sigmoid_forward(scores + 100)[0])}    here the level is the answer"""
    printed = (Printed("softmax", "0.659 0.242 0.099", exclusive),)
    conclusion = "Labels that can hold together need a sigmoid each; classes that exclude each other need one softmax."
    return Example("Softmax: one class, not three answers", board, printed, conclusion, {})


def mse_against_bce() -> Example:
    y, p = jnp.array([[1.0], [0.0], [1.0], [0.0]]), jnp.array([[0.9], [0.1], [0.8], [0.3]])
    true = {"mse": fnn.mean_squared_error_forward(p, y)[0], "bce": fnn.binary_cross_entropy_forward(p, y)[0]}

    guesses = jnp.array([[0.5], [0.1], [0.01], [0.0001]])
    logits, ones = jnp.log(guesses / (1 - guesses)), jnp.ones_like(guesses)
    a, kept = fnn.sigmoid_forward(logits)
    # The losses are means; the number of samples as cotangent gives the gradient of each sample's own loss.
    samples = jnp.array(float(len(guesses)))
    squared = fnn.sigmoid_backward(
        kept, fnn.mean_squared_error_backward(fnn.mean_squared_error_forward(a, ones)[1], samples)
    )
    entropy = fnn.sigmoid_cross_entropy_backward(fnn.sigmoid_cross_entropy_forward(logits, ones)[1], samples)
    columns = zip(a, squared, entropy, strict=True)
    rows = [f"  {show(guess):>9}   {show(slow):>15}   {show(fast):>16}" for guess, slow, fast in columns]
    board = "\n".join([
        f"targets 1  0  1  0, predictions {show(p.T, 1)}",
        f"  squared error {show(true['mse'])}, cross-entropy {show(true['bce'])}",
        "Now the target is 1, and the prediction wrong and surer and surer of it. What reaches the logit:",
        "  predicted   by square and σ   by cross-entropy",
        *rows,
    ])  # fmt: skip
    conclusion = (
        "The chapter prints no figures here, and its claim holds: the more certain the mistake, the less the squared "
        "error corrects it; cross-entropy pushes with the whole error. Its own XOR example trains on the squared error."
    )
    return Example("Squared error beside cross-entropy", board, (), conclusion, to_python(true))


def sigmoid_derivative_after_10_layers() -> Example:
    half, _ = fnn.sigmoid_forward(jnp.array(0.0))
    active, _ = fnn.relu_forward(jnp.array(1.0))
    through_sigmoid = through_relu = jnp.array(1.0)
    for _ in range(10):
        through_sigmoid = fnn.sigmoid_backward(half, through_sigmoid)
        through_relu = fnn.relu_backward(active, through_relu)
    board = f"""\
A one goes back through ten sigmoids, each at z = 0 where it is steepest, and leaves as {show(through_sigmoid, 10)}
Through ten active ReLUs, it leaves as                                                  {show(through_relu, 10)}"""
    printed = (Printed("0.25^10", "0.000001", through_sigmoid),)
    conclusion = (
        f"Right to the one digit that is printed; the bound is {show(through_sigmoid, 10)}. It holds for the sigmoids' "
        "share alone: the weights in between multiply too."
    )
    return Example("Ten sigmoids deep", board, printed, conclusion,
                   to_python({"bound": through_sigmoid}))  # fmt: skip
