"""Causes in penalties, sums, rotations and single gradients: each is named, and its right twin passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import funcnn as fnn
from funcnn.gradcheck.explanation.numbers import is_ratio_of_digits, simple_fraction

pytestmark = pytest.mark.usefixtures("defaults")
DRAW = np.random.default_rng(23)


def normal(*shape):
    return DRAW.normal(size=shape)


def name_causes(loss, gradient, params, *args):
    """Return the causes of the wrong leaves by their names."""
    report = fnn.check_gradients(loss, gradient, params, *args)
    return {leaf.path[2:-2]: leaf.cause for leaf in report.leaves if not leaf.ok}


def test_fraction_of_large_integers_is_no_simple_one():
    assert simple_fraction(658.148, 1e-9) is None
    assert simple_fraction(1 / 784, 1e-9) is not None
    assert is_ratio_of_digits(-7 / 12)
    assert not is_ratio_of_digits(0.5123)


# A line with a penalty on its slopes, and with a power of a single number before it.
def line_loss(p, x, y):
    return ((x @ p["w"] * p["s"] ** 4 + p["c"] - y) ** 2).sum() + 0.3 * jnp.abs(p["w"]).sum()


def line_gradient(penalty=lambda w: 0.3 * jnp.sign(w), penalty_c=lambda c: 0.0, power=lambda s: 4 * s**3):
    def gradient(p, x, y):
        d = 2 * (x @ p["w"] * p["s"] ** 4 + p["c"] - y)
        return {
            "w": x.T @ d * p["s"] ** 4 + penalty(p["w"]),
            "s": (d * (x @ p["w"])).sum() * power(p["s"]),
            "c": d.sum() + penalty_c(p["c"]),
        }

    return gradient


LINE = {"w": normal(5), "s": np.asarray(0.9), "c": np.asarray(-0.4)}, normal(7, 5), normal(7)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({}, {}),
        ({"penalty": lambda w: 0.3 * 2 * w}, {"w": "offset_by_parameter"}),
        ({"penalty_c": lambda c: 0.3 * jnp.sign(c)}, {"c": "offset_by_parameter"}),
    ],
)
def test_penalties(wrong, expected):
    assert name_causes(line_loss, line_gradient(**wrong), *LINE) == expected


# An image that is normalized over channels and height, a gain, and a normalized mean of its rows.
def image_norm(h):
    inverse = 1 / jnp.sqrt(h.var((1, 3), keepdims=True) + 1e-2)
    return inverse, (h - h.mean((1, 3), keepdims=True)) * inverse


def image_loss(p, x, y, given):
    return ((image_norm(x * p["k"])[1] - y) ** 3).sum()


def image_gradient(through=lambda d, u, inverse, given: image_formula(d, u, inverse, (1, 3))):
    def gradient(p, x, y, given):
        inverse, u = image_norm(x * p["k"])
        dh = through(3 * (u - y) ** 2, u, inverse, given)
        return {"k": (dh * x).sum((0, 1, 3))[:, None]}

    return gradient


def image_formula(d, u, inverse, axes):
    return inverse * (d - d.mean(axes, keepdims=True) - u * (d * u).mean(axes, keepdims=True))


IMAGE = {"k": normal(4, 1)}, normal(3, 2, 4, 3), normal(3, 2, 4, 3), 0.5 + normal(3, 1, 4, 1) ** 2


@pytest.mark.parametrize(
    ("through", "expected"),
    [
        (lambda d, u, inverse, given: image_formula(d, u, inverse, (1, 3)), {}),
        (lambda d, u, inverse, given: image_formula(d, u, inverse, (1,)), {"k": "normalization_term"}),
        (lambda d, u, inverse, given: d, {"k": "normalization_term"}),
    ],
)
def test_normalization_over_two_axes(through, expected):
    assert name_causes(image_loss, image_gradient(through), *IMAGE) == expected


# Rows weighted by a gate of which only some count, with positions that are added.
OPEN = np.array([[1.0, 0, 1], [1, 1, 0], [0, 1, 1]])


def rows_loss(p, x, y):
    e = x + p["e"]
    g = jnp.exp(e @ p["g"]) * OPEN
    pooled = (g[..., None] * jnp.tanh(e @ p["v"])).sum(1) / g.sum(1)[:, None]
    return ((pooled - y) ** 2).sum()


def rows_gradient(total=lambda d: d, over=lambda d: d.sum(0), weight=lambda g: g):
    def gradient(p, x, y):
        e = x + p["e"]
        g, t = jnp.exp(e @ p["g"]) * OPEN, jnp.tanh(e @ p["v"])
        s = g.sum(1)[:, None]
        pooled = (g[..., None] * t).sum(1) / s
        d = 2 * (pooled - y) / s
        dz = (d[:, None] * t).sum(-1) * g - g * total((d * pooled).sum(-1, keepdims=True))
        dv = weight(g)[..., None] * d[:, None] * (1 - t**2)
        de = g[..., None] * d[:, None] * (1 - t**2) @ p["v"].T + dz[..., None] * p["g"]
        return {
            "g": jnp.einsum("bt,bti->i", dz, e),
            "v": jnp.einsum("bti,bto->io", e, dv),
            "e": over(de),
        }

    return gradient


ROWS = {"g": normal(4), "v": normal(4, 2), "e": normal(3, 4)}, normal(3, 3, 4), normal(3, 2)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({}, {}),
        ({"total": lambda d: 0.0}, {"g": "lost_path", "e": "lost_path"}),
        ({"over": lambda d: d.sum(1)}, {"e": "wrong_axis"}),
        ({"weight": lambda g: OPEN}, {"v": "scaled_path"}),
    ],
)
def test_weighted_means(wrong, expected):
    assert name_causes(rows_loss, rows_gradient(**wrong), *ROWS) == expected


# Probabilities of the columns, the slope of a function of two pieces, and a bias behind a mask.
KEPT = np.array([[1.0], [0], [1], [1]])


def pieces_loss(p, x, y):
    z = x @ p["w"]
    h = jnp.where(z > 0, z, p["a"] * z) + p["b"]
    return (jax.nn.log_softmax(h * KEPT, axis=0) * y).sum()


def pieces_gradient(axis=0, negative=lambda z: z < 0, kept=lambda d: d * KEPT):
    def gradient(p, x, y):
        z = x @ p["w"]
        h = jnp.where(z > 0, z, p["a"] * z) + p["b"]
        raw = y - jax.nn.softmax(h * KEPT, axis=axis) * y.sum(0)
        d = raw * KEPT
        dz = jnp.where(z > 0, d, p["a"] * d)
        return {"w": x.T @ dz, "a": (d * z * negative(z)).sum(0), "b": kept(raw).sum(0)}

    return gradient


PIECES = {"w": normal(3, 5), "a": normal(5), "b": normal(5)}, normal(4, 3), normal(4, 5)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({}, {}),
        ({"negative": lambda z: 1.0}, {"a": "mask"}),
    ],
)
def test_pieces(wrong, expected):
    found = name_causes(pieces_loss, pieces_gradient(**wrong), *PIECES)
    assert found == expected


def test_product_of_sums():
    def loss(p, x):
        return (jnp.tanh(p["c"][:, None] * x) ** 2).sum()

    def gradient(p, x):
        t = jnp.tanh(p["c"][:, None] * x)
        return {"c": (2 * t * (1 - t**2)).sum(1) * x.sum(1)}

    assert name_causes(loss, gradient, {"c": normal(4)}, normal(4, 6)) == {"c": "wrong_operand"}


@pytest.mark.thorough
def test_state_of_next_iteration():
    def states(p):
        h = [p["h"]]
        for _ in range(3):
            h.append(h[-1] + 0.5 * jnp.tanh((h[-1] + 0.2) @ p["w"]))
        return h

    def loss(p):
        return (states(p)[-1] ** 3).sum()

    def gradient(p, at=1):
        h = states(p)
        d, dw = 3 * h[-1] ** 2, 0.0
        for j in (2, 1, 0):
            dz = 0.5 * d * (1 - jnp.tanh((h[j] + 0.2) @ p["w"]) ** 2)
            dw = dw + (h[j + at] + 0.2).T @ dz
            d = d + dz @ p["w"].T
        return {"h": d, "w": dw}

    params = {"h": normal(2, 3), "w": normal(3, 3)}
    assert name_causes(loss, lambda p: gradient(p, at=0), params) == {}
    assert name_causes(loss, gradient, params) in ({"w": "shifted"}, {"w": "wrong_operand"})


# Positions as angles.
ANGLES = np.arange(5.0)[:, None] * np.array([0.9, 0.2])


def turn(h, angles):
    a, b = h[:, :2], h[:, 2:]
    return jnp.concatenate([a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles)], 1)


@pytest.mark.parametrize(
    ("angles", "expected"),
    [(-ANGLES, {}), (-(ANGLES + ANGLES[1]), {"w": "shifted"}), (ANGLES, {"w": "transposed"})],
)
def test_rotations(angles, expected):
    def loss(p, x):
        return (turn(x @ p["w"], ANGLES) ** 3).sum()

    def gradient(p, x):
        return {"w": x.T @ turn(3 * turn(x @ p["w"], ANGLES) ** 2, angles)}

    assert name_causes(loss, gradient, {"w": normal(3, 4)}, normal(5, 3)) == expected


FACTORS = {
    "scaled_path": np.array([[0.5], [2.0], [3.0], [0.25], [1.5]]),
    "mask": np.array([[0.0], [1.0], [1], [0], [1]]),
}


@pytest.mark.parametrize("expected", FACTORS)
def test_a_product_with_given_factors_is_no_normalization(expected):
    factors = FACTORS[expected]

    def loss(p, x, y):
        return ((factors * jnp.tanh(x @ p["w"]) - y) ** 2).sum()

    def without_factors(p, x, y):
        a = jnp.tanh(x @ p["w"])
        return {"w": x.T @ (2 * (factors * a - y) * (1 - a**2))}

    assert name_causes(loss, without_factors, {"w": normal(3, 4)}, normal(5, 3), normal(5, 4)) == {"w": expected}


@pytest.mark.thorough
def test_a_mistake_inside_a_long_loss_is_found_up_to_it():
    """The scores of a chain of choices, whose sums over paths are read transposed on the way back."""

    def scores(p, x):
        return jnp.tanh(x @ p["w"])

    def total(jumps, scores, last):
        sums = [scores[0]]
        for score in scores[1:]:
            sums.append(score + jax.nn.logsumexp(sums[-1][:, None] + jumps, axis=0))
        return jax.nn.logsumexp(sums[-1] + last)

    jumps, last = normal(4, 4), normal(4)

    def loss(p, x):
        return total(jumps, scores(p, x), last)

    def gradient(p, x):
        a = scores(p, x)
        d = jax.grad(lambda a: total(jumps.T @ jumps, a, last))(a)
        return {"w": x.T @ (d * (1 - a**2))}

    report = fnn.check_gradients(loss, gradient, {"w": normal(3, 4)}, normal(6, 3))
    assert report.leaves[0].cause == "unknown"
    assert "from there to the parameters is right" in report.leaves[0].detail


# A loop over time in which rows that are padding keep their state.
PRESENT = np.array([[1.0, 1, 0], [1, 1, 1], [1, 0, 0]]).T[:, :, None]


def padded_states(p, x):
    h = [jnp.zeros((3, 2))]
    for row, kept in zip(x, PRESENT, strict=True):
        h.append(kept * jnp.tanh(row @ p["w"] + h[-1] @ p["u"]) + (1 - kept) * h[-1])
    return h


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("into_step", "expected"),
    [(lambda kept, dh: kept * dh, {}), (lambda kept, dh: dh, {"w": "mask", "u": "mask"})],
)
def test_a_mask_that_is_left_out_in_every_iteration(into_step, expected):
    def loss(p, x):
        return (padded_states(p, x)[-1] ** 3).sum()

    def gradient(p, x):
        h = padded_states(p, x)
        d, g = 3 * h[-1] ** 2, {"w": 0.0, "u": 0.0}
        for row, kept, old in list(zip(x, PRESENT, h[:-1], strict=True))[::-1]:
            dz = into_step(kept, d) * (1 - jnp.tanh(row @ p["w"] + old @ p["u"]) ** 2)
            g = {"w": g["w"] + row.T @ dz, "u": g["u"] + old.T @ dz}
            d = (1 - kept) * d + dz @ p["u"].T
        return g

    params = {"w": normal(2, 2), "u": normal(2, 2)}
    assert name_causes(loss, gradient, params, normal(3, 3, 2)) == expected


@pytest.mark.thorough
def test_a_lost_path_through_a_choice_is_no_inverted_mask():
    """Through minus infinity nothing comes back, under the inverted mask either."""
    chosen = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0.0]]) > 0

    def both(p, x):
        return jax.nn.softmax(jnp.where(chosen, x @ p["w"], -jnp.inf)), jax.nn.softmax(x @ p["w"])

    def loss(p, x, y):
        some, whole = both(p, x)
        return (some * y).sum() + (whole**2).sum()

    def through(s, d):
        return s * (d - (s * d).sum(axis=1, keepdims=True))

    def gradient(p, x, y, share=0.0):
        some, whole = both(p, x)
        return {"w": x.T @ (share * through(some, y) + through(whole, 2 * whole))}

    given = {"w": normal(4, 3)}, normal(3, 4), normal(3, 3)
    assert name_causes(loss, lambda *all_of: gradient(*all_of, share=1.0), *given) == {}
    assert name_causes(loss, gradient, *given) == {"w": "lost_path"}


@pytest.mark.parametrize(("beside", "expected"), [(1.0, {}), (0.0, {"w": "lost_path"})])
def test_a_lost_path_beside_an_exponential_is_no_slope_of_it(beside, expected):
    def loss(p, x):
        z = x @ p["w"]
        return -0.5 * (1 + z - jnp.exp(z)).sum()

    def gradient(p, x):
        return {"w": x.T @ (0.5 * (jnp.exp(x @ p["w"]) - beside))}

    assert name_causes(loss, gradient, {"w": normal(3, 2)}, normal(5, 3)) == expected


@pytest.mark.thorough
def test_a_positive_number_by_two_ways_is_no_relu():
    """A weight divided by the length of its product with a direction, which a second product gives again."""

    def divide(p):
        left = p["w"] @ np.ones(3)
        left = lax.stop_gradient(left / jnp.linalg.norm(left))
        across = p["w"].T @ left
        across = lax.stop_gradient(across / jnp.linalg.norm(across))
        return left, across, left @ p["w"] @ across

    def loss(p, x):
        return (jnp.tanh(x @ (p["w"] / divide(p)[2])) ** 2).sum()

    def gradient(p, x, power=2):
        left, across, size = divide(p)
        t = jnp.tanh(x @ p["w"] / size)
        d = x.T @ (2 * t * (1 - t**2))
        return {"w": d / size - (d * p["w"]).sum() / size**power * jnp.outer(left, across)}

    given = {"w": normal(4, 3)}, normal(6, 4)
    assert name_causes(loss, gradient, *given) == {}
    assert name_causes(loss, lambda *all_of: gradient(*all_of, power=1), *given) == {"w": "scaled_path"}
