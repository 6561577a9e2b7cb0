"""``check_gradients`` on losses and gradients of PyTorch's tensors."""

import jax
import numpy as np
import pytest
import torch
from torch import nn

import funcnn as fnn

RNG = np.random.default_rng(2)
X, Y = torch.from_numpy(RNG.normal(size=(6, 3))), torch.from_numpy(RNG.normal(size=(6, 2)))
DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def params(dtype=torch.float64, *, requires_grad=False):
    made = {"w": torch.from_numpy(RNG.normal(size=(3, 2))), "b": torch.from_numpy(RNG.normal(size=2))}
    return {name: tensor.to(dtype).requires_grad_(requires_grad) for name, tensor in made.items()}


def data(dtype=torch.float64):
    return X.to(dtype), Y.to(dtype)


def loss(p, x, y):
    return ((torch.tanh(x @ p["w"] + p["b"]) - y) ** 2).mean()


def by_hand(p, x, y):
    a = torch.tanh(x @ p["w"] + p["b"])
    dz = 2 * (a - y) / y.numel() * (1 - a * a)
    return {"w": x.T @ dz, "b": dz.sum(0)}


def by_autograd(function):
    """Return the gradient of a loss by ``torch.autograd.grad``."""

    def gradient(p, *args):
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in p.items()}
        return dict(zip(leaves, torch.autograd.grad(function(leaves, *args), list(leaves.values())), strict=True))

    return gradient


def by_backward(p, x, y):
    for tensor in p.values():
        tensor.grad = None
    loss(p, x, y).backward()
    return {name: tensor.grad for name, tensor in p.items()}


def half(p, x, y):
    gradients = by_hand(p, x, y)
    return gradients | {"w": gradients["w"] / 2}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("gradient", [by_hand, by_autograd(loss)], ids=["by hand", "by autograd"])
def test_right_gradients(gradient, dtype):
    report = fnn.check_gradients(loss, gradient, params(dtype), *data(dtype))
    assert report.verdict == "agrees", report
    assert report.precision == "float64"
    assert {row.dtype for row in report.leaves} == {str(dtype).removeprefix("torch.")}
    assert "PyTorch's functions take tensors" in report.no_autodiff


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_wrong_gradient_is_found_and_explained(dtype):
    report = fnn.check_gradients(loss, half, params(dtype), *data(dtype))
    assert report.verdict == "hand-written wrong"
    assert {row.path: row.ok for row in report.leaves} == {"['b']": True, "['w']": False}
    if dtype != torch.bfloat16:  # In bfloat16 the cause depends on the numbers: data rounded again move the slopes far.
        assert report.leaves[1].cause == "scaled"
        assert "1/2 of the measured gradient" in report.diagnosis


class WrongTanh(torch.autograd.Function):
    """A tanh with a backward pass that forgets a square."""

    @staticmethod
    def forward(ctx, z):
        a = torch.tanh(z)
        ctx.save_for_backward(a)
        return a

    @staticmethod
    def backward(ctx, da):
        return da * (1 - ctx.saved_tensors[0])


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_an_autograd_function_with_a_wrong_backward(dtype):
    def wrong_loss(p, x, y):
        return ((WrongTanh.apply(x @ p["w"] + p["b"]) - y) ** 2).mean()

    report = fnn.check_gradients(wrong_loss, by_autograd(wrong_loss), params(dtype), *data(dtype))
    assert report.verdict == "hand-written wrong"
    assert not any(row.ok for row in report.leaves)
    assert "fnn.tap" not in report.diagnosis  # a loss that JAX can't trace has no taps


def test_leaves_that_require_gradients_do_so_in_the_functions():
    given = params(requires_grad=True)
    assert fnn.check_gradients(loss, by_backward, given, *data()).ok
    assert all(tensor.grad is None and tensor.requires_grad for tensor in given.values())


def test_tensors_that_are_no_leaves():
    given = {name: 2 * tensor for name, tensor in params(requires_grad=True).items()}
    assert fnn.check_gradients(loss, by_backward, given, *data()).ok


def test_parameters_of_a_module():
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

    def module_loss(p, x, y):
        return ((torch.func.functional_call(module, p, (x,)) - y) ** 2).mean()

    given = dict(module.named_parameters())
    report = fnn.check_gradients(module_loss, torch.func.grad(module_loss), given, *data(torch.float32))
    assert report.ok, report
    assert report.precision == "float64"
    with pytest.raises(TypeError, match=r"Pass dict\(module\.named_parameters\(\)\)"):
        fnn.check_gradients(lambda m, x, y: module_loss({}, x, y), lambda *args: None, module, *data(torch.float32))


def test_data_in_a_closure_keep_the_check_in_float32():
    x, y = data(torch.float32)
    report = fnn.check_gradients(lambda p: loss(p, x, y), lambda p: by_hand(p, x, y), params(torch.float32))
    assert report.ok, report
    assert report.precision.startswith("float32: the functions don't take float64")
    assert not fnn.check_gradients(lambda p: loss(p, x, y), lambda p: half(p, x, y), params(torch.float32)).ok


def test_other_leaves_pass_untouched():
    given = params() | {"steps": torch.tensor(3), "device": "cpu"}

    def scaled_loss(p, x, y):
        assert p["steps"].dtype == torch.int64
        return p["steps"] * loss(p, x.to(p["device"]), y)

    def gradient(p, x, y):
        gradients = {name: p["steps"] * value for name, value in by_hand(p, x, y).items()}
        return gradients | {"steps": None, "device": None}

    assert fnn.check_gradients(scaled_loss, gradient, given, *data()).ok


def test_none_is_the_gradient_of_what_the_loss_does_not_use():
    given = {"w": torch.ones(2, dtype=torch.float64), "unused": torch.ones(3, dtype=torch.float64)}
    assert fnn.check_gradients(lambda p: (p["w"] ** 2).sum(), lambda p: {"w": 2 * p["w"], "unused": None}, given).ok
    report = fnn.check_gradients(lambda p: (p["w"] ** 2).sum(), lambda p: {"w": None, "unused": None}, given)
    assert {row.path: row.ok for row in report.leaves} == {"['unused']": True, "['w']": False}


def test_complex_gradients_follow_the_convention_of_pytorch():
    z = {"z": torch.tensor([1 + 2j, -3j], dtype=torch.complex128)}

    def square(p):
        return (p["z"].abs() ** 2).sum()

    assert fnn.check_gradients(square, by_autograd(square), z).ok
    assert fnn.check_gradients(square, lambda p: {"z": 2 * p["z"]}, z).ok
    assert not fnn.check_gradients(square, lambda p: {"z": 2 * p["z"].conj()}, z).ok


def test_a_kink_of_relu_between_its_sides():
    w = torch.tensor([0.0, 2.0], dtype=torch.float64)
    report = fnn.check_gradients(lambda w: torch.relu(w).sum(), lambda w: (w > 0).to(w.dtype), w)
    assert report.ok
    assert report.leaves[0].cause == "kink"


@pytest.mark.parametrize(
    ("gradient", "cause"), [(lambda w: (2 * w)[:1], "shape"), (lambda w: (2 * w).float(), "dtype")]
)
def test_another_shape_or_dtype_is_named(gradient, cause):
    report = fnn.check_gradients(lambda w: (w**2).sum(), gradient, torch.ones(2, dtype=torch.float64))
    assert not report.ok
    assert report.leaves[0].cause == cause


def test_a_loss_in_place_does_not_change_the_callers_tensors():
    w = torch.ones(2, dtype=torch.float64)
    assert fnn.check_gradients(lambda w: (w.mul_(3) ** 2).sum() / 9, lambda w: w.mul_(2), w).ok
    assert torch.equal(w, torch.ones(2, dtype=torch.float64))


def test_a_loss_that_draws_is_no_function():
    w = torch.randn(10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    report = fnn.check_gradients(lambda w: torch.dropout(w, 0.5, train=True).sum(), torch.ones_like, w)
    assert report.verdict == "undecided"
    assert "the loss isn't a function of its arguments" in report.reason


def test_containers_are_those_of_the_parameters():
    w = [torch.ones(2, dtype=torch.float64)]
    with pytest.raises(ValueError, match=r"got a tuple in the place of a list"):
        fnn.check_gradients(lambda p: (p[0] ** 2).sum(), lambda p: (2 * p[0],), w)
    with pytest.raises(ValueError, match=r"were loss_fn and grad_fn exchanged"):
        fnn.check_gradients(lambda p: [2 * p[0]], lambda p: (p[0] ** 2).sum(), w)


def test_the_precision_of_jax_stays_as_it_was():
    before = jax.config.read("jax_enable_x64")
    fnn.assert_gradients(loss, by_hand, params(torch.float32), *data(torch.float32))
    assert jax.config.read("jax_enable_x64") == before
