"""Causes in images and windows: pooling, flattening, partitions, padding and convolutions by slices."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.gradcheck.explanation.naming import assert_named

pytestmark = pytest.mark.usefixtures("defaults")
DRAW = np.random.default_rng(73)


def normal(*shape):
    return DRAW.normal(size=shape)


@pytest.mark.thorough
def test_an_average_whose_gradient_goes_to_the_first_entry():
    def loss(p, x, t):
        return ((jnp.tanh(x * p["s"]).reshape(2, 2, 2, 3, 2).mean(axis=(2, 4)) - t) ** 2).sum()

    def gradient(p, x, t, is_wrong):
        h = jnp.tanh(x * p["s"])
        d = 2 * (h.reshape(2, 2, 2, 3, 2).mean(axis=(2, 4)) - t)
        dh = jnp.repeat(jnp.repeat(d / 4, 2, axis=1), 2, axis=2)
        dh = jnp.zeros_like(h).at[:, ::2, ::2].set(d) if is_wrong else dh
        return {"s": (dh * (1 - h**2) * x).sum(axis=0)}

    given = {"s": normal(4, 6)}, normal(2, 4, 6), normal(2, 2, 3)
    assert_named(loss, gradient, given, "lost_path", "to entry 0 of each 4 alone, times 4")


@pytest.mark.thorough
def test_a_flattened_image_split_with_its_channels_first():
    def padded(h):
        return jnp.pad(h, ((0, 0), (0, 0), (1, 0), (0, 0)))

    def loss(p, x):
        return (padded(jnp.tanh(x * p["s"])).reshape(2, -1) @ p["w"]).sum() ** 2

    def gradient(p, x, is_wrong):
        h = jnp.tanh(x * p["s"])
        flat = padded(h).reshape(2, -1)
        d = jnp.full((2, 1), 2 * (flat @ p["w"]).sum())
        dflat = d @ p["w"].T
        dh = jnp.moveaxis(dflat.reshape(2, 4, 2, 3), 1, 3) if is_wrong else dflat.reshape(2, 2, 3, 4)
        return {"s": (dh[:, :, 1:] * (1 - h**2) * x).sum(axis=(0, 1, 2)), "w": flat.T @ d}

    given = {"s": normal(4), "w": normal(24, 1)}, normal(2, 2, 2, 4)
    assert_named(loss, gradient, given, "transposed", "split as if its axes had been merged in the order")


@pytest.mark.thorough
def test_windows_that_are_put_back_with_two_axes_exchanged():
    """An image of two by two windows of two by two pixels, as of attention within windows."""

    def windows(h):
        return h.reshape(2, 2, 2, 2, 2, 3).transpose(0, 1, 3, 2, 4, 5)

    def loss(p, x, t):
        return ((windows(jnp.tanh(x * p["s"])) - t) ** 4).sum()

    def gradient(p, x, t, is_wrong):
        h = jnp.tanh(x * p["s"])
        d = 4 * (windows(h) - t) ** 3
        dh = d.transpose(0, 1, 3, 4, 2, 5) if is_wrong else d.transpose(0, 1, 3, 2, 4, 5)
        return {"s": (dh.reshape(h.shape) * (1 - h**2) * x).sum(axis=(0, 1, 2))}

    given = {"s": normal(3)}, normal(2, 4, 4, 3), normal(2, 2, 2, 2, 2, 3)
    assert_named(loss, gradient, given, "transposed", "by hand transposed with the axes")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda k: slice(k, k + 3), "put back without the stride along axis 1"),
        (lambda k: slice(2 * k, 2 * k + 3), "put back with the stride as a dilation along axis 1"),
    ],
)
def test_slices_that_are_put_back_without_their_stride(wrong, words):
    """A convolution of three entries with a stride of two, as a sum of slices."""

    def cut(h, k):
        return h[:, k : k + 5 : 2]

    def loss(p, x):
        h = jnp.tanh(x * p["s"])
        return (sum(cut(h, k) * p["k"][k] for k in range(3)) ** 3).sum()

    def gradient(p, x, places):
        h = jnp.tanh(x * p["s"])
        d = 3 * sum(cut(h, k) * p["k"][k] for k in range(3)) ** 2
        dh, dk = jnp.zeros_like(h), []
        for k in range(3):
            dh = dh.at[:, places(k) if places else slice(k, k + 5, 2)].add(d * p["k"][k])
            dk.append((d * cut(h, k)).sum())
        return {"s": (dh * (1 - h**2) * x).sum(axis=0), "k": jnp.stack(dk)}

    given = {"s": normal(8), "k": normal(3)}, normal(2, 8)
    assert_named(loss, gradient, given, "wrong_operand", words, wrong=wrong)


@pytest.mark.thorough
def test_slices_that_are_put_back_without_any_stride():
    taps = [(i, j) for i in range(2) for j in range(2)]

    def places(i, j, stride):
        return slice(None), slice(i, i + 2 * stride + 1, stride), slice(j, j + 2 * stride + 1, stride)

    def pooled(h, k):
        return sum(h[places(i, j, 2)] * k[i, j] for i, j in taps)

    def loss(p, x):
        return (pooled(jnp.tanh(x * p["s"]), p["k"]) ** 3).sum()

    def gradient(p, x, is_wrong):
        h = jnp.tanh(x * p["s"])
        d = 3 * pooled(h, p["k"]) ** 2
        dh, dk = jnp.zeros_like(h), jnp.zeros_like(p["k"])
        for i, j in taps:
            dh = dh.at[places(i, j, 1 if is_wrong else 2)].add(d * p["k"][i, j])
            dk = dk.at[i, j].set((d * h[places(i, j, 2)]).sum())
        return {"s": (dh * (1 - h**2) * x).sum(axis=0), "k": dk}

    given = {"s": normal(6, 6), "k": normal(2, 2)}, normal(2, 6, 6)
    assert_named(loss, gradient, given, "wrong_operand", "put back without any stride")


@pytest.mark.thorough
def test_windows_that_tie_assigned_to_the_first_winners():
    """Two of the entries are one, and NumPy's argmax takes the first of them where they tie."""
    order, starts = np.array([0, 1, 1, 2, 3]), range(4)

    def largest(h):
        return jnp.stack([h[:, start : start + 2].max(axis=1) for start in starts], axis=1)

    def loss(p, x):
        return (largest((x * p["s"])[:, order]) ** 3).sum()

    def gradient(p, x, is_wrong):
        h = (x * p["s"])[:, order]
        dh = jnp.zeros_like(h)
        for start in starts:
            window = h[:, start : start + 2]
            part = 3 * window.max(axis=1, keepdims=True) ** 2 * jnp.eye(2)[window.argmax(axis=1)]
            place = dh.at[:, start : start + 2]
            dh = place.set(part) if is_wrong else place.add(part)
        return {"s": (jnp.stack([dh[:, 0], dh[:, 1] + dh[:, 2], dh[:, 3], dh[:, 4]], axis=1) * x).sum(axis=0)}

    given = {"s": normal(4)}, normal(6, 4)
    assert_named(loss, gradient, given, "lost_path", "are assigned and not added")


@pytest.mark.thorough
def test_a_mean_over_padded_windows_by_the_count_inside():
    """The windows are a layer's, with others before and after it."""

    def pooled(h):
        wide = jnp.pad(h, ((0, 0), (1, 1), (0, 0)))
        return jnp.stack([wide[:, k : k + 3] for k in range(4)], axis=1).mean(axis=2)

    def loss(p, x):
        return (jnp.tanh(pooled(x @ p["w"])) ** 2 @ p["v"]).sum()

    def gradient(p, x, by_count):
        a = pooled(x @ p["w"])
        t = jnp.tanh(a)
        d = 2 * t * (1 - t**2) * p["v"]
        d = d / (np.array([2, 3, 3, 2]) if by_count else np.full(4, 3))[:, None]
        wide = sum(jnp.pad(d, ((0, 0), (k, 2 - k), (0, 0))) for k in range(3))
        return {"w": jnp.einsum("bti,bto->io", x, wide[:, 1:5]), "v": (t**2).sum(axis=(0, 1))}

    given = {"w": normal(2, 3), "v": normal(3)}, normal(2, 4, 2)
    assert_named(loss, gradient, given, "scaled_path", "is divided by hand by the count of entries outside")
