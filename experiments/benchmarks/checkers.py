"""The checkers that are compared, each a function ``(case, params, args) -> (is_flagged, causes)``.

Each is called as its documentation shows, with its default tolerances. An exception counts as a flag: on a right
gradient it is a false alarm like any other.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np

import funcnn as fnn
from experiments.benchmarks.catalogue import Case

try:
    import torch
except ImportError:
    torch = None

FLAGGED, PASSED = (True, ()), (False, ())


def funcnn(case: Case, params, args):
    """``check_gradients``, the only checker that names causes: all those of the leaf where the bug is."""
    # A gradient that is right but for its digits is a planted bug of precision.
    report = fnn.check_gradients(case.loss_fn, case.grad_fn, params, *args, stability="fail")
    if report.ok:
        return PASSED
    wrong = [leaf for leaf in report.leaves if not leaf.ok and case.leaf in (None, leaf.path.lstrip("."))]
    return True, tuple(dict.fromkeys(leaf.cause for leaf in wrong if leaf.cause is not None))


def allclose(case: Case, params, args):
    """``np.allclose`` against ``jax.grad``, leaf by leaf, as in most tests."""
    by_hand = jax.tree.leaves(case.grad_fn(params, *args))
    by_autodiff = jax.tree.leaves(jax.grad(case.loss_fn)(params, *args))
    agree = all(np.allclose(*pair) for pair in zip(by_hand, by_autodiff, strict=True))
    return PASSED if agree else FLAGGED


def check_grads(case: Case, params, args):
    """``jax.test_util.check_grads`` of the loss with the gradient by hand as its ``custom_vjp``."""
    return _flagged_by(jax.test_util.check_grads, with_rule(case, args), (params,), order=1, modes=["rev"])


def check_vjp(case: Case, params, args):
    """``jax.test_util.check_vjp`` of the loss with the gradient by hand as its ``vjp``."""

    def loss(params):
        return case.loss_fn(params, *args)

    def vjp(params):
        grads = case.grad_fn(params, *args)
        return loss(params), lambda cotangent: (_scaled(grads, cotangent),)

    return _flagged_by(jax.test_util.check_vjp, loss, vjp, (params,))


def assert_numerical_grads(case: Case, params, args):
    """``chex.assert_numerical_grads`` of the loss with the gradient by hand as its ``custom_vjp``, of arrays."""
    leaves, structure = jax.tree.flatten(params)
    loss = with_rule(case, args)

    def of_leaves(*leaves):
        return loss(jax.tree.unflatten(structure, leaves))

    return _flagged_by(chex.assert_numerical_grads, of_leaves, leaves, order=1, modes=["rev"])


def gradcheck(case: Case, params, args, *, fast_mode=False):
    """``torch.autograd.gradcheck`` of a ``torch.autograd.Function`` that calls the loss and the gradient by hand."""
    leaves, structure = jax.tree.flatten(params)
    loss = jax.jit(lambda params: case.loss_fn(params, *args))

    def to_jax(tensors):
        return jax.tree.unflatten(structure, [jnp.asarray(tensor.detach().numpy()) for tensor in tensors])

    class HandWritten(torch.autograd.Function):
        @staticmethod
        def forward(context, *tensors):
            context.save_for_backward(*tensors)
            return torch.from_numpy(np.array(loss(to_jax(tensors))))

        @staticmethod
        def backward(context, cotangent):
            grads = jax.tree.leaves(case.grad_fn(to_jax(context.saved_tensors), *args))
            # PyTorch's complex gradient is the conjugate of JAX's.
            return tuple(cotangent * torch.from_numpy(np.array(np.conj(grad))) for grad in grads)

    tensors = [torch.tensor(np.asarray(leaf)).requires_grad_() for leaf in leaves]
    check = partial(torch.autograd.gradcheck, fast_mode=fast_mode)
    return _flagged_by(check, HandWritten.apply, tensors, errors=(AssertionError, RuntimeError))


CHECKERS = {
    "funcnn": funcnn,
    "np.allclose": allclose,
    "check_grads": check_grads,
    "check_vjp": check_vjp,
    "chex": assert_numerical_grads,
    "gradcheck": gradcheck,
    "gradcheck_fast": partial(gradcheck, fast_mode=True),
}
TITLES = {
    "funcnn": "`funcnn.check_gradients`",
    "np.allclose": "`np.allclose` against `jax.grad`",
    "check_grads": "`jax.test_util.check_grads`",
    "check_vjp": "`jax.test_util.check_vjp`",
    "chex": "`chex.assert_numerical_grads`",
    "gradcheck": "`torch.autograd.gradcheck`",
    "gradcheck_fast": "`torch.autograd.gradcheck`, fast mode",
}
ABSENT = {"gradcheck", "gradcheck_fast"} if torch is None else set()
"""Checkers whose package isn't installed."""


def with_rule(case: Case, args):
    """Return the loss as a function of the parameters whose ``custom_vjp`` is the gradient by hand."""

    @jax.custom_vjp
    def loss(params):
        return case.loss_fn(params, *args)

    def forward(params):
        return case.loss_fn(params, *args), params

    def backward(params, cotangent):
        return (_scaled(case.grad_fn(params, *args), cotangent),)

    loss.defvjp(forward, backward)
    return loss


def _scaled(grads, cotangent):
    """Return the gradient times a cotangent in the gradient's own dtype, so that a wrong dtype stays visible."""
    return jax.tree.map(lambda grad: (grad * cotangent).astype(grad.dtype), grads)


def _flagged_by(check, *arguments, errors=AssertionError, **options):
    try:
        check(*arguments, **options)
    except errors:
        return FLAGGED
    return PASSED
