"""Every loss beside PyTorch's in float64: the value, and the gradient by the prediction."""

import jax
import jax.numpy as jnp
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name in PyTorch's documentation

import funcnn as fnn
from tests.cases import LOSSES, LossCase, named
from tests.torch_parity.tensors import arrays, first, gradients, tensor

RANDOM = jax.random.split(jax.random.key(3), 4)


def cross_entropy(**settings):
    """Return PyTorch's cross-entropy, with the classes as the second axis, over all leading axes."""

    def twin(p, t):
        is_labels = t.ndim < p.ndim
        rows = t if is_labels else t.flatten(0, -2)
        return F.cross_entropy(*((first(p), rows) if is_labels else (p.flatten(0, -2), rows)), **settings)

    return twin


def categorical(p, t):
    if t.ndim < p.ndim:
        return F.nll_loss(first(p).log(), t)
    return -(t * p.log()).sum(-1).mean()


def kl(p, t):
    return F.kl_div(p.flatten(0, -2), t.flatten(0, -2), reduction="batchmean")


TWINS = {
    "mean_squared_error": F.mse_loss,
    "absolute_error": F.l1_loss,
    "huber": lambda p, t: F.huber_loss(p, t, delta=0.7),
    "hinge": lambda p, t: F.margin_ranking_loss(p, torch.zeros_like(p), t, margin=1.0),
    "kl_divergence": kl,
    "softmax_cross_entropy_with_smoothing": cross_entropy(label_smoothing=0.2),
    "softmax_cross_entropy_with_ignored": cross_entropy(ignore_index=-1, label_smoothing=0.2),
    "binary_cross_entropy": F.binary_cross_entropy,
    "categorical_cross_entropy": categorical,
    "sigmoid_cross_entropy": F.binary_cross_entropy_with_logits,
    "softmax_cross_entropy": cross_entropy(),
}
"""By the beginning of the rows' names in ``tests.cases.LOSSES``; the longest one that fits."""


def _labels(shape, classes=4):
    return jax.random.randint(RANDOM[0], shape, 0, classes)


LOGITS = jax.random.normal(RANDOM[1], (3, 2, 5, 4), jnp.float64)
IGNORED = _labels((3, 2, 5)).at[0].set(-100)
MORE = [
    (LossCase("labels over three axes", fnn.softmax_cross_entropy, LOGITS, _labels((3, 2, 5))), cross_entropy()),
    (LossCase("one-hot rows over three axes", fnn.softmax_cross_entropy, LOGITS,
              jax.nn.one_hot(_labels((3, 2, 5)), 4, dtype=jnp.float64)), cross_entropy()),
    (LossCase("ignored labels", fnn.softmax_cross_entropy_with(ignore_label=-100), LOGITS, IGNORED),
     cross_entropy()),
    (LossCase("a class as the ignored label", fnn.softmax_cross_entropy_with(ignore_label=2), LOGITS,
              _labels((3, 2, 5))), cross_entropy(ignore_index=2)),
    (LossCase("smoothed labels", fnn.softmax_cross_entropy_with(label_smoothing=0.1), LOGITS, _labels((3, 2, 5))),
     cross_entropy(label_smoothing=0.1)),
    (LossCase("smoothed rows over three axes", fnn.softmax_cross_entropy_with(label_smoothing=0.1), LOGITS,
              jax.nn.softmax(LOGITS[::-1])), cross_entropy(label_smoothing=0.1)),
    (LossCase("large logits", fnn.softmax_cross_entropy, 300 * LOGITS, _labels((3, 2, 5))), cross_entropy()),
    (LossCase("large logits of bits", fnn.sigmoid_cross_entropy, 300 * LOGITS,
              (LOGITS[::-1] > 0).astype(jnp.float64)), F.binary_cross_entropy_with_logits),
    (LossCase("divergence over three axes", fnn.kl_divergence, jax.nn.log_softmax(LOGITS),
              jax.nn.softmax(LOGITS[::-1])), kl),
    (LossCase("huber over three axes", fnn.huber(1.5), LOGITS, LOGITS[::-1]),
     lambda p, t: F.huber_loss(p, t, delta=1.5)),
]  # fmt: skip
"""Settings that ``tests.cases`` has no row of."""


def twin_of(case):
    """Return the twin of a row of ``tests.cases.LOSSES``; a row without one is an error."""
    return TWINS[max((name for name in TWINS if case.name.startswith(name)), key=len)]


def check(case, twin, parity):
    loss, residuals = jax.jit(lambda p, t: case.loss.forward(p, t))(case.prediction, case.target)
    dprediction = case.loss.backward(residuals, jnp.ones_like(loss))
    given, target = tensor(case.prediction, is_leaf=True), tensor(case.target)
    value = twin(given, target.long() if not target.is_floating_point() else target)
    ours = {"loss": loss, "dx": dprediction}
    parity(f"loss: {case.name}", ours, {"loss": arrays(value), "dx": gradients(value, given)})


@pytest.mark.parametrize(**named(LOSSES))
def test_loss(case, parity):
    check(case, twin_of(case), parity)


@pytest.mark.parametrize(("case", "twin"), MORE, ids=[case.name for case, _ in MORE])
def test_loss_over_leading_axes(case, twin, parity):
    check(case, twin, parity)


def test_where_every_label_is_ignored():
    """funcnn's loss and gradient are 0; PyTorch's loss is 0/0."""
    loss = fnn.softmax_cross_entropy_with(ignore_label=-100)
    value, residuals = loss.forward(LOGITS, jnp.full((3, 2, 5), -100))
    assert value == 0
    assert not loss.backward(residuals, jnp.ones(())).any()
    assert torch.isnan(F.cross_entropy(first(tensor(LOGITS)), torch.full((3, 2, 5), -100)))


def test_the_derivative_of_an_absolute_error_at_0_is_0_in_both():
    p = jnp.zeros((1, 1))
    _, residuals = fnn.absolute_error.forward(p, p)
    given = tensor(p, is_leaf=True)
    assert fnn.absolute_error.backward(residuals, jnp.ones(())) == 0 == gradients(F.l1_loss(given, tensor(p)), given)
