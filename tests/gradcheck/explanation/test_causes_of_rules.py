"""Causes that published rules had: each is named, and the right twin passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.gradcheck.explanation.naming import assert_named

pytestmark = pytest.mark.usefixtures("defaults")
DRAW = np.random.default_rng(31)


def normal(*shape):
    return DRAW.normal(size=shape)


def test_a_sum_that_leaves_its_last_block_out():
    def loss(p, c):
        return (c * jnp.sin(p["x"] + p["b"])).sum()

    def gradient(p, c, is_wrong):
        d = c * jnp.cos(p["x"] + p["b"])
        return {"x": d, "b": d[: 8 if is_wrong else None].sum(axis=0)}

    given = {"x": normal(11, 3), "b": normal(3)}, normal(11, 3)
    assert_named(loss, gradient, given, "subset_of_batch", "that of the first 8 of 11 entries of axis 0 alone")


@pytest.mark.parametrize(
    ("activation", "right", "wrong"),
    [
        (jnp.tanh, lambda d, h: d * (1 - h * h), lambda d, h: d * 1 - h * h),
        (jax.nn.sigmoid, lambda d, h: d * h * (1 - h), lambda d, h: d * h * 1 - h),
    ],
)
def test_a_derivative_without_its_parentheses(activation, right, wrong):
    def loss(p, x):
        return (x * activation(p["z"])).sum() / 3

    def gradient(p, x, is_wrong):
        return {"z": (wrong if is_wrong else right)(x / 3, activation(p["z"]))}

    assert_named(loss, gradient, ({"z": normal(4, 3)}, normal(4, 3)), "activation_derivative", "no parentheses")


@pytest.mark.thorough
@pytest.mark.parametrize("wrong", ["both", "factor"])
def test_a_softmax_before_dropout(wrong):
    kept = normal(4, 5) > -0.7

    def loss(p, v):
        return (jnp.where(kept, jax.nn.softmax(p["z"]) / 0.75, 0) @ v).sum()

    def gradient(p, v, how):
        h = jax.nn.softmax(p["z"])
        later = jnp.broadcast_to(v.sum(axis=1), h.shape)
        h, d = {
            False: (h, jnp.where(kept, later / 0.75, 0)),
            "both": (jnp.where(kept, h / 0.75, 0), later),
            "factor": (h, later),
        }[how]
        return {"z": h * (d - (h * d).sum(axis=1, keepdims=True))}

    given = {"z": normal(4, 5)}, normal(5, 3)
    if wrong == "both":
        assert_named(loss, gradient, given, "wrong_operand", "with the gradient that comes to it", wrong=wrong)
    else:
        assert_named(loss, gradient, given, "mask", "mask", wrong=wrong)


def test_a_product_that_is_put_back_in_the_wrong_order():
    def turn(x):
        return jnp.concatenate([-x[:, 2:], x[:, :2]], axis=1)

    def turn_back(x):
        return jnp.concatenate([x[:, 2:], -x[:, :2]], axis=1)

    def loss(p, c, s):
        return ((p["x"] * c + turn(p["x"]) * s) ** 3).sum()

    def gradient(p, c, s, is_wrong):
        d = 3 * (p["x"] * c + turn(p["x"]) * s) ** 2
        return {"x": d * c + (s * turn_back(d) if is_wrong else turn_back(s * d))}

    given = {"x": normal(3, 4)}, normal(3, 4), normal(3, 4)
    assert_named(loss, gradient, given, "wrong_operand", "after its entries are put back, not before")


def test_a_constant_matrix_with_entries_left_out():
    weights = normal(6, 4)
    weights_by_hand = np.where(np.abs(np.arange(6)[:, None] - np.arange(4)) < 3, weights, 0)

    def loss(p, y):
        return ((p["x"] @ weights.T - y) ** 2).sum()

    def gradient(p, y, is_wrong):
        return {"x": 2 * (p["x"] @ weights.T - y) @ jnp.asarray(weights_by_hand if is_wrong else weights)}

    given = {"x": normal(3, 4)}, normal(3, 6)
    lost = np.sum(weights_by_hand == 0)
    assert_named(loss, gradient, given, "lost_path", f"takes it with {lost} of its entries left out")


@pytest.mark.thorough
def test_entries_written_every_second_place_and_read_side_by_side():
    def loss(p, y):
        return ((jnp.zeros((2, 7)).at[:, ::2].set(jnp.sin(p["x"])) - y) ** 3).sum()

    def gradient(p, y, is_wrong):
        d = 3 * (jnp.zeros((2, 7)).at[:, ::2].set(jnp.sin(p["x"])) - y) ** 2
        return {"x": jnp.cos(p["x"]) * (d[:, :4] if is_wrong else d[:, ::2])}

    assert_named(loss, gradient, ({"x": normal(2, 4)}, normal(2, 7)), "wrong_operand", "read from entries 0 to 3")


@pytest.mark.parametrize("triangle", [jnp.tril, jnp.triu])
def test_a_triangle_spread_over_both(triangle):
    def loss(p, x):
        return (jnp.tanh(triangle(p["a"]) @ x) ** 2).sum()

    def gradient(p, x, is_wrong):
        t = jnp.tanh(triangle(p["a"]) @ x)
        d = triangle(2 * t * (1 - t**2) @ x.T)
        return {"a": (d + d.T) / 2 if is_wrong else d}

    assert_named(loss, gradient, ({"a": normal(4, 4)}, normal(4, 3)), "mask", "halved in both triangles")


@pytest.mark.thorough
def test_one_gate_of_a_line_that_computes_several():
    """The second of three gates that a line computes in every iteration has the sigmoid of its value for its slope."""

    def forward(p, x):
        c, kept = jnp.zeros(x.shape[::2]), []
        for iteration in range(x.shape[1]):
            gates = [jax.nn.sigmoid((x[:, iteration] + c) @ p[name]) for name in ("a", "b", "d")]
            kept.append((c, gates))
            c = gates[0] * jnp.sin(gates[1]) + gates[2] * c
        return c, kept

    def loss(p, x):
        return (forward(p, x)[0] ** 3).sum()

    def gradient(p, x, is_wrong):
        c, kept = forward(p, x)
        dc, grads = 3 * c**2, dict.fromkeys("abd", 0.0)
        for iteration in range(x.shape[1] - 1, -1, -1):
            before, (a, b, d) = kept[iteration]
            slope = jax.nn.sigmoid(b) if is_wrong else b * (1 - b)
            dz = {
                "a": dc * jnp.sin(b) * a * (1 - a),
                "b": dc * a * jnp.cos(b) * slope,
                "d": dc * before * d * (1 - d),
            }
            grads = {name: grads[name] + (x[:, iteration] + before).T @ dz[name] for name in dz}
            dc = dc * d + sum(dz[name] @ p[name].T for name in dz)
        return grads

    given = {name: normal(3, 3) for name in "abd"}, normal(2, 4, 3)
    words = "by hand it is σ(h), at one of 3 places, from number 2 on"
    assert_named(loss, gradient, given, "activation_derivative", words)


def test_a_kept_value_that_is_overwritten():
    def loss(p, y):
        e = jnp.exp(p["x"])
        return ((e * jnp.sin(e) - y) ** 2).sum()

    def gradient(p, y, is_wrong):
        e = jnp.exp(p["x"])
        d = 2 * (e * jnp.sin(e) - y)
        first, second = d * jnp.sin(e), d * e * jnp.cos(e)
        return {"x": (first + second) * (second if is_wrong else e)}

    assert_named(loss, gradient, ({"x": normal(3, 4)}, normal(3, 4)), "wrong_operand", "the gradient by hand computes")


def test_the_first_weight_for_all():
    def loss(p, x, weights):
        return (weights * jnp.sin(x @ p["w"])).sum()

    def gradient(p, x, weights, is_wrong):
        return {"w": x.T @ ((weights[0] if is_wrong else weights) * jnp.cos(x @ p["w"]))}

    given = {"w": normal(3)}, normal(6, 3), normal(6)
    assert_named(loss, gradient, given, "wrong_operand", "its first entry")


@pytest.mark.thorough
def test_one_wrong_sample_of_a_long_loss_is_a_unit():
    def loss(p, is_valid):
        z = p["z"]
        for _ in range(8):
            z = jnp.sin(z) + jnp.roll(z, 1, axis=1) * jnp.cos(z)
        return jnp.where(is_valid, (z**2).sum(axis=1), 0).mean()

    def gradient(p, is_valid, is_wrong):
        grads = jax.grad(loss)(p, is_valid)
        return {"z": grads["z"] + (~is_valid[:, None] * jax.nn.softmax(p["z"]) if is_wrong else 0)}

    given = {"z": normal(4, 3)}, np.array([True, True, False, True])
    assert_named(loss, gradient, given, "unit", "row 2 is wrong, the rest right")


def test_the_formula_of_training_where_a_flag_chooses_given_statistics():
    def normalized(x, is_training):
        mean = jnp.where(is_training, x.mean(axis=0), 0.3)
        r = jax.lax.rsqrt(jnp.where(is_training, x.var(axis=0), 1.7) + 1e-5)
        return (x - mean) * r, r

    def loss(p, is_training):
        return (normalized(p["x"], is_training)[0] ** 3).sum()

    def gradient(p, is_training, is_wrong):
        n, r = normalized(p["x"], is_training)
        d = 3 * n**2
        return {"x": r * (d - (d.mean(axis=0) + n * (d * n).mean(axis=0) if is_wrong else 0))}

    given = {"x": normal(6, 3)}, np.array(False)
    assert_named(loss, gradient, given, "normalization_term", "the formula for training of the given statistics")


def test_a_slope_that_is_computed_for_something_else():
    def loss(p, x):
        return (jnp.tanh(x @ p["w"]) ** 3).sum()

    def gradient(p, x, is_wrong):
        h = jnp.tanh(x @ p["w"])
        other = jnp.sin(5 * h) + jnp.cumsum(h, axis=0)
        return {"w": x.T @ (3 * h**2 * (other if is_wrong else 1 - h**2))}

    given = {"w": normal(4, 3)}, normal(5, 4)
    assert_named(loss, gradient, given, "activation_derivative", "what the gradient by hand computes as the sum")


def test_another_constant_matrix():
    weights, others = normal(6, 4), normal(6, 4)

    def loss(p, y):
        return ((p["x"] @ weights.T - y) ** 2).sum()

    def gradient(p, y, is_wrong):
        return {"x": 2 * (p["x"] @ weights.T - y) @ jnp.asarray(others if is_wrong else weights)}

    given = {"x": normal(3, 4)}, normal(3, 6)
    assert_named(loss, gradient, given, "wrong_operand", "takes another constant of that shape")
