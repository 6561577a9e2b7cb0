"""Causes that are confirmed by a wrong backward pass of the loss: each mistake is named, and its right twin passes."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn

pytestmark = pytest.mark.usefixtures("defaults")
DRAW = np.random.default_rng(5)


def normal(*shape):
    return DRAW.normal(size=shape)


NET = {"w1": normal(3, 4), "b1": normal(4), "w2": normal(4, 4)}
X, Y = normal(6, 3), normal(6, 4)


def causes(report):
    return {leaf.path: leaf.cause for leaf in report.leaves if not leaf.ok}


def detail(report, path):
    return next(leaf.detail for leaf in report.leaves if leaf.path == path)


def logistic(z):
    return 1 / (1 + jnp.exp(-z))


def rectified(z):
    return jnp.where(z > 0, z, 0)


def net(act):
    return lambda p, x, y: jnp.mean((act(x @ p["w1"] + p["b1"]) @ p["w2"] - y) ** 2)


def net_gradient(act, slope, weights=lambda w2, dw2: w2, inputs=lambda x: x):
    def gradient(p, x, y):
        z = x @ p["w1"] + p["b1"]
        h = act(z)
        d = 2 * (h @ p["w2"] - y) / y.size
        dw2 = h.T @ d
        dz = slope(d @ weights(p["w2"], dw2).T, z, h)
        return {"w1": inputs(x).T @ dz, "b1": dz.sum(0), "w2": dw2}

    return gradient


SLOPES = {
    "tanh": (jnp.tanh, lambda d, z, h: d * (1 - h**2)),
    "sigmoid": (logistic, lambda d, z, h: d * h * (1 - h)),
    "ReLU": (rectified, lambda d, z, h: d * (z > 0)),
    "softmax": (jax.nn.softmax, lambda d, z, h: h * (d - (d * h).sum(1, keepdims=True))),
}


@pytest.mark.parametrize("name", SLOPES)
def test_right_derivatives_of_activations_pass(name):
    act, slope = SLOPES[name]
    assert fnn.check_gradients(net(act), net_gradient(act, slope), NET, X, Y).ok


@pytest.mark.parametrize(
    ("name", "slope", "sentence"),
    [
        ("tanh", lambda d, z, h: d * (1 - h), "tanh .* is 1 − h²; by hand it is 1 − h$"),
        ("tanh", lambda d, z, h: d * (1 - z * z), "is 1 − h²; by hand it is 1 − z²$"),
        ("tanh", lambda d, z, h: d * h * (1 - h), "by hand it is h \\(1 − h\\), as for a sigmoid$"),
        ("tanh", lambda d, z, h: d, "by hand it is left out$"),
        ("sigmoid", lambda d, z, h: d * (1 - h), "sigmoid .* is h \\(1 − h\\); by hand it is 1 − h$"),
        ("sigmoid", lambda d, z, h: d * logistic(h) * (1 - logistic(h)), "taken at the activation"),
        ("sigmoid", lambda d, z, h: d * (h * (1 - h)) ** 2, "taken twice$"),
        ("sigmoid", lambda d, z, h: d * (0.25 - 3 * z), "by hand it is 1/4 − 3 z$"),
        ("ReLU", lambda d, z, h: d * h, "ReLU .* by hand it is the activation h itself$"),
        ("ReLU", lambda d, z, h: jnp.where(d > 0, d, 0), "only what is positive of the incoming gradient"),
        ("softmax", lambda d, z, h: d * h * (1 - h), "the diagonal of the Jacobian alone$"),
        ("softmax", lambda d, z, h: h * d, "without the sum$"),
    ],
)
def test_wrong_derivatives_of_activations_are_named(name, slope, sentence):
    act = SLOPES[name][0]
    report = fnn.check_gradients(net(act), net_gradient(act, slope), NET, X, Y)
    assert causes(report) == {"['b1']": "activation_derivative", "['w1']": "activation_derivative"}
    assert re.search(sentence, detail(report, "['w1']"))


def test_weights_read_after_their_update_are_named_with_the_step():
    gradient = net_gradient(*SLOPES["tanh"], weights=lambda w2, dw2: w2 - 0.1 * dw2)
    report = fnn.check_gradients(net(jnp.tanh), gradient, NET, X, Y)
    assert set(causes(report).values()) == {"updated_weights"}
    assert "['w2']" in detail(report, "['w1']")
    assert "step of 1/10" in detail(report, "['w1']")


def test_samples_out_of_step_are_named():
    gradient = net_gradient(*SLOPES["tanh"], inputs=lambda x: jnp.roll(x, 1, axis=0))
    report = fnn.check_gradients(net(jnp.tanh), gradient, NET, X, Y)
    assert causes(report) == {"['w1']": "shifted"}
    assert "moved by 1 along axis 0" in detail(report, "['w1']")


def test_a_weight_that_is_not_transposed_is_named():
    gradient = net_gradient(*SLOPES["tanh"], weights=lambda w2, dw2: w2.T)
    report = fnn.check_gradients(net(jnp.tanh), gradient, NET, X, Y)
    assert set(causes(report).values()) == {"transposed"}


# A layer with a skip, and a matrix that is used twice, the second time transposed.
def skip_loss(w, x):
    h = jnp.tanh(x @ w)
    return ((h + jnp.tanh(h @ w.T) - x) ** 2).sum()


def skip_gradient(total=lambda first, second: first + second, around=lambda d, through: d + through):
    def gradient(w, x):
        h = jnp.tanh(x @ w)
        b = jnp.tanh(h @ w.T)
        d = 2 * (h + b - x)
        dz = d * (1 - b**2)
        dh = around(d, dz @ w)
        return total(x.T @ (dh * (1 - h**2)), dz.T @ h)

    return gradient


# Batch normalization, then a mask and a target that the gradient doesn't reach.
def normalized(h):
    return (h - h.mean(axis=0)) / jnp.sqrt(h.var(axis=0) + 0.1)


def masked_loss(p, x, mask, y):
    n = normalized(x @ p["w"]) * p["scale"]
    kept = jnp.where(mask, jnp.tanh(n), 0)
    target = jax.lax.stop_gradient(kept[::-1])
    return ((kept - y) ** 2).sum() + (kept * target).sum()


def masked_gradient(
    mean=lambda d: d.mean(axis=0),
    spread=lambda d, n: n * (d * n).mean(axis=0),
    pass_mask=lambda d, mask: jnp.where(mask, d, 0),
    target=lambda kept: kept[::-1],
    scale=lambda d, n: (d * n).sum(axis=0),
    factor=lambda d, scale: d * scale,
):
    def gradient(p, x, mask, y):
        h = x @ p["w"]
        inverse = 1 / jnp.sqrt(h.var(axis=0) + 0.1)
        n = (h - h.mean(axis=0)) * inverse
        t = jnp.tanh(n * p["scale"])
        kept = jnp.where(mask, t, 0)
        d = pass_mask(2 * (kept - y) + target(kept), mask) * (1 - t**2)
        dn = factor(d, p["scale"])
        dh = inverse * (dn - mean(dn) - spread(dn, n))
        return {"w": x.T @ dh, "scale": scale(d, n)}

    return gradient


# A recurrent network, unrolled in Python; the loss sees every state.
def recurrent_loss(p, x):
    h = jnp.zeros((2, 4))
    total = 0.0
    for step in range(4):
        h = jnp.tanh(x[step] @ p["u"] + h @ p["w"])
        total = total + (h**3).sum()
    return total


def recurrent_gradient(carry=lambda dz, w: dz @ w.T, first=0):
    def gradient(p, x):
        states = [jnp.zeros((2, 4))]
        for step in range(4):
            states.append(jnp.tanh(x[step] @ p["u"] + states[-1] @ p["w"]))
        du, dw, dh = 0 * p["u"], 0 * p["w"], 0 * states[0]
        for step in reversed(range(first, 4)):
            dz = (dh + 3 * states[step + 1] ** 2) * (1 - states[step + 1] ** 2)
            du, dw, dh = du + x[step].T @ dz, dw + states[step].T @ dz, carry(dz, p["w"])
        return {"u": du, "w": dw}

    return gradient


# A convolution over time, and a complex layer.
def convolution_loss(w, x):
    z = sum(x[:, k : k + 4] @ w[k] for k in range(3))
    return (jnp.tanh(z) ** 2).sum()


def convolution_gradient(kernel=lambda dw: dw):
    def gradient(w, x):
        z = jnp.tanh(sum(x[:, k : k + 4] @ w[k] for k in range(3)))
        dz = 2 * z * (1 - z**2)
        return kernel(jnp.stack([jnp.einsum("nti,nto->io", x[:, k : k + 4], dz) for k in range(3)]))

    return gradient


def complex_loss(w, x):
    return (jnp.abs(x @ w) ** 2).sum()


def complex_gradient(last=jnp.conj):
    return lambda w, x: 2 * x.T @ last(x @ w)


# A sum of squares, for what is done with a gradient afterwards.
def plain_loss(p, x, old):
    return ((x @ p["a"] + p["b"]) ** 2).sum()


def plain_gradient(then=lambda g, old: g):
    def gradient(p, x, old):
        d = 2 * (x @ p["a"] + p["b"])
        return then({"a": x.T @ d, "b": d.sum(axis=0)}, old)

    return gradient


def to_unit_length(g, old):
    size = jnp.sqrt(sum((leaf**2).sum() for leaf in g.values()))
    return {name: leaf / size for name, leaf in g.items()}


def clipped(g, old):
    return {name: jnp.clip(leaf, -5, 5) for name, leaf in g.items()}


def with_momentum(g, old):
    return {name: leaf + 0.9 * old[name] for name, leaf in g.items()}


W, SQUARE = normal(4, 4), (normal(6, 4),)
NORMALIZED = {"w": normal(3, 4), "scale": 1 + normal(4) / 4}
MASKED = normal(6, 3), normal(6, 4) > 0, normal(6, 4)
RECURRENT, SEQUENCE = {"u": normal(3, 4), "w": normal(4, 4)}, (normal(4, 2, 3),)
KERNEL, SERIES = normal(3, 2, 2), (normal(5, 6, 2),)
COMPLEX = normal(3, 2) + 1j * normal(3, 2), (normal(4, 3) + 1j * normal(4, 3),)
PLAIN = {"a": normal(3, 4), "b": normal(4)}, (normal(4, 3), {"a": normal(3, 4), "b": normal(4)})

LINES = {
    "skip": (skip_loss, skip_gradient, W, SQUARE),
    "norm": (masked_loss, masked_gradient, NORMALIZED, MASKED),
    "recurrent": (recurrent_loss, recurrent_gradient, RECURRENT, SEQUENCE),
    "convolution": (convolution_loss, convolution_gradient, KERNEL, SERIES),
    "complex": (complex_loss, complex_gradient, *COMPLEX),
    "plain": (plain_loss, plain_gradient, *PLAIN),
}


@pytest.mark.parametrize("name", LINES)
def test_right_twins_pass(name):
    loss, gradient, params, args = LINES[name]
    assert fnn.check_gradients(loss, gradient(), params, *args).ok


@pytest.mark.parametrize(
    ("name", "wrong", "cause", "words"),
    [
        ("skip", {"total": lambda first, second: first}, "lost_use", "used 2 times; by hand only the use in"),
        ("skip", {"total": lambda first, second: second}, "lost_use", "used 2 times"),
        ("skip", {"around": lambda d, through: through}, "lost_path", "is left out by hand"),
        ("skip", {"around": lambda d, through: 2 * d + through}, "scaled_path", "is 2 of what it is by autodiff"),
        ("norm", {"mean": lambda d: 0}, "normalization_term", "without the term of the mean"),
        ("norm", {"spread": lambda d, n: 0}, "normalization_term", "without the term of the variance"),
        ("norm", {"mean": lambda d: 0, "spread": lambda d, n: 0}, "normalization_term", "that of constants"),
        ("norm", {"pass_mask": lambda d, mask: d}, "mask", "is ignored by hand"),
        ("norm", {"pass_mask": lambda d, mask: jnp.where(mask, 0, d)}, "mask", "is inverted by hand"),
        ("norm", {"pass_mask": lambda d, m: jnp.where(jnp.roll(m, 1, 0), d, 0)}, "mask", "shifted by 1 along axis 0"),
        ("norm", {"target": lambda kept: 2 * kept[::-1]}, "stop_gradient", "by hand it goes through"),
        ("norm", {"factor": lambda d, scale: d}, "scaled_path", "factor|without γ"),
        ("norm", {"scale": lambda d, n: jnp.full(4, (d * n).sum())}, "wrong_axis", "the sum of everything"),
        ("recurrent", {"carry": lambda dz, w: dz @ w}, "transposed", "its transpose, in every iteration"),
        ("recurrent", {"carry": lambda dz, w: 0 * dz}, "lost_path", "in every iteration"),
        ("convolution", {"kernel": lambda dw: dw[::-1]}, "kernel_flipped", "reversed along axis 0"),
        ("complex", {"last": lambda z: z}, "conjugate", "conjugate"),
        ("plain", {"then": to_unit_length}, "normalized", "has the length 1 by hand"),
        (
            "plain",
            {"then": lambda g, old: jax.tree.map(lambda leaf: jnp.clip(leaf, -5, 5), g)},
            "clipped",
            "clipped to ±5",
        ),
        (
            "plain",
            {"then": lambda g, old: jax.tree.map(lambda leaf, more: leaf + 0.9 * more, g, old)},
            "accumulated",
            "9/10 times",
        ),
    ],
)
def test_mistakes_are_named(name, wrong, cause, words):
    loss, gradient, params, args = LINES[name]
    report = fnn.check_gradients(loss, gradient(**wrong), params, *args)
    assert not report.ok
    assert set(causes(report).values()) == {cause}
    first = next(leaf for leaf in report.leaves if not leaf.ok)
    assert words in first.detail or re.search(words, first.detail)


def test_lines_of_code_are_named_without_folders():
    loss, gradient, params, args = LINES["skip"]
    report = fnn.check_gradients(loss, gradient(around=lambda d, through: through), params, *args)
    assert re.search(
        r"`return \(\(h \+ jnp.tanh\(h @ w.T\) - x\).*` \(test_mutations.py line \d+\)", report.leaves[0].detail
    )
    assert "/" not in report.leaves[0].detail.replace("1/", "")


def test_what_no_cause_explains_leads_to_taps():
    noise = normal(4, 4)
    report = fnn.check_gradients(skip_loss, lambda w, x: skip_gradient()(w, x) + noise, W, *SQUARE)
    assert causes(report) == {"": "unknown"}
    assert 'z = fnn.tap("z", z)' in report.diagnosis


def test_a_gradient_in_numpy_is_explained_by_the_loss_alone():
    act = SLOPES["tanh"][0]

    def in_numpy(p, x, y):
        gradients = net_gradient(act, lambda d, z, h: d)(*jax.tree.map(np.asarray, (p, x, y)))
        return {name: np.array(leaf) for name, leaf in gradients.items()}

    report = fnn.check_gradients(net(act), in_numpy, NET, X, Y)
    assert set(causes(report).values()) == {"activation_derivative"}


def test_a_wrong_derivative_of_a_distance_to_the_target_is_the_loss_s():
    def loss(p, x, y):
        return jnp.abs(jnp.tanh(x @ p["w"] + p["b"]) - y).mean()

    def gradient(p, x, y, of_distance, of_tanh):
        h = jnp.tanh(x @ p["w"] + p["b"])
        dz = of_distance(h - y) / y.size * of_tanh(h)
        return {"w": x.T @ dz, "b": dz.sum(axis=0)}

    params = {"w": NET["w1"], "b": NET["b1"]}
    y = jnp.asarray(np.random.default_rng(3).normal(size=(X.shape[0], params["b"].shape[0])))

    def causes_of(**lines):
        report = fnn.check_gradients(loss, partial(gradient, **lines), params, X, y)
        return set(causes(report).values())

    assert not causes_of(of_distance=jnp.sign, of_tanh=lambda h: 1 - h**2)
    assert causes_of(of_distance=jnp.ones_like, of_tanh=lambda h: 1 - h**2) == {"loss_derivative"}
    assert causes_of(of_distance=jnp.sign, of_tanh=lambda h: 1 - h) == {"activation_derivative"}
