"""The check of a gradient written by hand, for any loss."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from funcnn._checks import check_callable
from funcnn._numerics.precision import copy_arrays
from funcnn._tree_checks import describe_tree, same_structure
from funcnn.gradcheck.engine.examination import examine
from funcnn.gradcheck.engine.functions import check_arguments
from funcnn.gradcheck.engine.properties import Property, check_also
from funcnn.gradcheck.engine.stability import Stability, check_stability_word
from funcnn.gradcheck.report import GradientReport

_EXCHANGED = "That is a tree like the parameters: were loss_fn and grad_fn exchanged? The loss comes first."
_NO_SCALAR = (
    "It has to be real and floating: take the mean or the sum over the samples. "
    "For functions of another output there is check_vjp."
)


def check_gradients(
    loss_fn: Callable[..., Any],
    grad_fn: Callable[..., PyTree],
    params: PyTree,
    *args: Any,
    also: Sequence[Property] = (),
    stability: Stability = "report",
) -> GradientReport:
    """Compare a gradient written by hand with ``jax.grad`` and with measured slopes of the loss.

    The gradient by hand, autodiff, and slopes measured by moving the parameters are compared; the slopes share no rule
    with the other two. Where the first two differ, the slopes say which of them is wrong.

    The values are compared in float64 whatever the parameters' dtype: both functions get float64 copies of their
    floating arguments (other arguments pass untouched), and the caller's configuration is the same afterwards. A leaf
    may differ by ε^(3/4) of its largest entry, and by what the arithmetic of both gradients is measured to round. At a
    point without a derivative (a ReLU at 0, a tie for the maximum) every gradient between the sides is right. Then the
    gradient in the caller's own dtype is compared with the one in float64. Call it outside ``jit`` and ``vmap``.

    Args:
        loss_fn: ``(params, *args) -> scalar``. Values that it marks with ``tap`` are compared too, where ``grad_fn``
            returns their gradients.
        grad_fn: ``(params, *args) -> gradients``, a tree like ``params``; or ``(gradients, {name: gradient of a tapped
            value})``.
        params: any pytree with floating arrays, JAX's, NumPy's or PyTorch's. Integers, strings and other leaves are
            passed untouched; the report names them. PyTorch's tensors, here and in ``args``, are tensors for both
            functions too, in float64; autodiff isn't evaluated for them, and a gradient of ``None`` is 0.
        args: passed on to both.
        also: what else to check of the gradient: ``"jit"`` and ``"vmap"`` (the same under them, the latter over a batch
            of parameters), ``"second_order"`` (its derivative along a random vector, by ``jax.jvp``, against
            autodiff's).
        stability: ``"fail"`` if a gradient is wrong that is right in float64, but loses more than half of the digits of
            the caller's dtype, where autodiff keeps them; ``"report"`` if it gets the verdict ``unstable``.

    Returns:
        A report with a verdict, a row for each parameter, and the cause where it is wrong. Complex parameters follow
        JAX's convention, in which the gradient of |z|² is twice the conjugate of z; gradients that are tensors of
        PyTorch follow its convention, in which it is twice z.

    Raises:
        TypeError: no parameter is floating; loss_fn or grad_fn isn't a function, or not one of these arguments.
        ValueError: the loss isn't a scalar, the gradient has another tree structure than the parameters, or a gradient
            is given for a value that the loss doesn't tap.

    Example:
        >>> import jax.numpy as jnp
        >>> def loss(w, x, y):
        ...     return ((x @ w - y) ** 2).mean()
        >>> def gradient(w, x, y):
        ...     return x.T @ (x @ w - y) / len(y)
        >>> report = check_gradients(loss, gradient, jnp.ones(2), jnp.array([[1.0, 2.0], [3.0, 5.0]]), jnp.ones(2))
        >>> report.ok, report.verdict, report.leaves[0].cause
        (False, 'hand-written wrong', 'scaled')
        >>> print(report.diagnosis)
        The gradient by hand is wrong in the one leaf.
        the root: scaled: 1/2 of autodiff's gradient; the derivative of a square brings a 2: was it left out?

    Source:
        Richardson 1927 for the slopes, Parker 1997 for the rounding.
    """
    check_callable("check_gradients(loss_fn)", loss_fn, "Pass (params, *args) -> scalar.")
    check_callable("check_gradients(grad_fn)", grad_fn, "Pass (params, *args) -> gradients.")
    check_also("check_gradients", also)
    check_stability_word("check_gradients", stability)

    has_returned = False

    def checked_loss(*arguments):
        nonlocal has_returned
        value = loss_fn(*arguments)
        has_returned = True
        check_scalar("check_gradients(loss_fn)", value, params)
        return value

    try:
        return examine("check_gradients", checked_loss, grad_fn, (params, *args), also, stability=stability)
    except (TypeError, ValueError, LookupError, AttributeError) as error:  # whatever the caller's functions raise
        for name, function in (("loss_fn", loss_fn), ("grad_fn", grad_fn)) if isinstance(error, TypeError) else ():
            check_arguments(
                f"check_gradients({name})", function, (params, *args), error,
                "(params, *args)", "Pass check_gradients(loss_fn, grad_fn, params, *args): were params forgotten, or "
                "an argument?",
            )  # fmt: skip
        if not has_returned:
            _note_order(loss_fn, params, args, error)
        raise


def _note_order(loss_fn: Callable, params: PyTree, args: tuple, error: Exception) -> None:
    """Add a question to an error where the loss takes another of the arguments as its first one."""
    for number, argument in enumerate(args):
        if describe_tree(argument) == describe_tree(params):
            continue
        others = (params, *args[:number], *args[number + 1 :])
        try:
            value = loss_fn(*copy_arrays((argument, *others)))
        except Exception:  # it takes neither
            continue
        if np.shape(value) == () and _is_real(value):
            error.add_note(
                f"check_gradients: were the parameters passed behind args[{number}]? With {describe_tree(argument)} in "
                f"the place of {describe_tree(params)} loss_fn returns a number. Pass check_gradients(loss_fn, "
                "grad_fn, params, *args)."
            )
            return


def check_scalar(name: str, value: Any, params: PyTree) -> None:
    """Raise where a loss isn't a real floating scalar."""
    is_array = isinstance(value, jax.Array | np.ndarray | np.generic | float) or hasattr(value, "detach")
    if is_array and np.shape(value) == () and _is_real(value):
        return
    if isinstance(value, tuple) and len(value) == 2 and _is_real(value[0]) and np.shape(value[0]) == ():
        raise ValueError(
            f"{name}: expected a function that returns a scalar, got a pair that looks like (loss, auxiliary). "
            "Pass lambda *args: loss_fn(*args)[0]."
        )
    is_gradient = np.shape(value) != () if is_array else same_structure(value, params)
    is_gradient = is_gradient and jax.tree.map(np.shape, value) == jax.tree.map(np.shape, params)
    raise ValueError(
        f"{name}: expected a function that returns a scalar, got {describe_tree(value)}. "
        + (_EXCHANGED if is_gradient else _NO_SCALAR)
    )


def _is_real(value) -> bool:
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        return isinstance(value, float)
    return "float" in str(dtype)  # PyTorch's dtypes aren't NumPy's


class WrongGradientError(AssertionError):
    """A wrong gradient; ``report`` is the ``GradientReport``."""

    def __init__(self, report: GradientReport):
        super().__init__(f"wrong gradient\n{report.to_text()}")
        self.report = report


def assert_gradients(
    loss_fn: Callable[..., Any],
    grad_fn: Callable[..., PyTree],
    params: PyTree,
    *args: Any,
    also: Sequence[Property] = (),
    stability: Stability = "report",
) -> None:
    """Run ``check_gradients`` in a test, and raise where the gradient is wrong.

    Args:
        loss_fn, grad_fn, params, args, also, stability: as for ``check_gradients``.

    Raises:
        AssertionError: the gradient is wrong; the message is the report as text, and ``error.report`` the report.
        TypeError, ValueError: as ``check_gradients``.

    Warns:
        UserWarning: the gradient is right, but loses digits in the caller's own dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> assert_gradients(lambda w: (w**2).sum(), lambda w: 2 * w, jnp.array([1.0, -3.0]))
    """
    report = check_gradients(loss_fn, grad_fn, params, *args, also=also, stability=stability)
    if not report.ok:
        raise WrongGradientError(report)
    if report.verdict == "unstable":
        warnings.warn(report.diagnosis, UserWarning, stacklevel=2)
