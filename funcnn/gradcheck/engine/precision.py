"""The precision of a comparison: float64 if the functions allow it, without the casts to narrower types inside them."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from funcnn._checks import is_concrete
from funcnn._numerics.arrays import as_float64, distances, max_abs
from funcnn._numerics.precision import allow_promotion, copy_arrays, enable_x64, widen
from funcnn._numerics.program import RANDOM, Program, evaluate_programs, primitive_names, trace
from funcnn._numerics.rounding import coarser_dtypes, rounding_dtypes
from funcnn._numerics.widening import OPAQUE, widen_program
from funcnn._untraceable import place_of
from funcnn.gradcheck.engine.functions import describe_error


class Gradients(NamedTuple):
    """A loss and its hand-written gradient at one point.

    Fields:
        loss_fn, grad_fn: functions of ``arguments``. The gradient comes with a dictionary of taps' gradients.
        arguments: the parameters, all of them floating, and the further arguments.
        calls: the number of evaluations of either function, ``"gradient"`` and ``"loss"``.
        value, by_hand: the loss and its hand-written gradient there.
        taps: the hand-written gradients of tapped values.
        is_x64: whether the caller enabled 64-bit types.
    """

    loss_fn: Callable[..., Any]
    grad_fn: Callable[..., tuple[PyTree, dict[str, Any]]]
    arguments: tuple
    calls: Counter
    value: Any = None
    by_hand: PyTree = None
    taps: dict[str, Any] = {}  # noqa: RUF012 - never changed
    is_x64: bool = False

    @property
    def params(self) -> PyTree:
        return self.arguments[0]

    def loss(self, params: PyTree) -> Any:
        """Return the loss at other parameters. The caller's function gets copies, because it may change them."""
        self.calls["loss"] += is_concrete(*jax.tree.leaves(params))
        return self.loss_fn(*copy_arrays((params, *self.arguments[1:])))

    def gradient_and_taps(self, params: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """Return the hand-written gradient at other parameters, and the taps' gradients."""
        self.calls["gradient"] += is_concrete(*jax.tree.leaves(params))
        return self.grad_fn(*copy_arrays((params, *self.arguments[1:])))

    def gradient(self, params: PyTree) -> PyTree:
        """Return the hand-written gradient at other parameters."""
        return self.gradient_and_taps(params)[0]

    def evaluated(self) -> "Gradients":
        """Return the same with the values at ``arguments``, by the caller's functions as they are."""
        value = self.loss(self.params)
        by_hand, taps = self.gradient_and_taps(self.params)
        return self._replace(value=value, by_hand=by_hand, taps=taps, is_x64=bool(jax.config.read("jax_enable_x64")))

    def autodiff(self) -> PyTree:
        """Return ``jax.grad``'s gradient at ``arguments``; compiled if possible."""
        self.calls["gradient"] += 1
        program = trace(jax.grad(self.loss), self.params)
        if program is None:
            return jax.grad(self.loss)(self.params)
        return jax.tree.unflatten(program.structure, evaluate_programs([program], _leaves(self.params))[0])


class Programs(NamedTuple):
    """The programs of a loss, of its derivative by autodiff (value and gradient) and of the hand-written gradient.

    One is ``None`` if it can't be traced, such as a function with ``if x > 0``, or one in NumPy.
    """

    loss: Program | None
    autodiff: Program | None
    by_hand: Program | None

    def known(self) -> list[Program]:
        return [program for program in self if program is not None]


class Comparison(NamedTuple):
    """What the values are judged by: both gradients in the widest precision, their programs, and ε.

    Fields:
        gradients: the loss and its hand-written gradient.
        by_autodiff: autodiff's gradient; ``None`` if it wasn't evaluated.
        no_autodiff: why autodiff wasn't evaluated; empty if it was.
        programs: in the precision of the comparison.
        traced: the hand-written gradient by its program, beside ``gradients.by_hand`` by the caller's function;
            ``None`` if there is one of the two only.
        spacing: ε of the coarsest numbers to which either rounds.
        precision: the dtype's name.
        reason: why the precision isn't float64; empty if it is.
        narrow: the name of the coarsest dtype to which the caller's own code casts, where the casts were taken out.
        loss_narrow: the same of the loss alone.
        coarse: the same as ``narrow``, where they could not be.
        variation: by how much each leaf of the hand-written gradient changed at a second call.
        own_arguments: the arguments of a call of the caller's functions, where these don't take float64.
        resolution: the size of the jumps by which the loss changes where its program doesn't show its digits.
    """

    gradients: Gradients
    by_autodiff: PyTree | None
    no_autodiff: str
    programs: Programs
    traced: PyTree | None
    spacing: float
    precision: str
    reason: str
    narrow: str = ""
    loss_narrow: str = ""
    coarse: str = ""
    variation: tuple[float, ...] = ()
    resolution: float = 0.0
    own_arguments: tuple | None = None

    @property
    def call_arguments(self) -> tuple:
        """Return arguments that the caller's functions take, within ``calls``."""
        return self.gradients.arguments if self.own_arguments is None else self.own_arguments

    def calls(self) -> contextlib.AbstractContextManager:
        """Return the context in which the caller's functions are called: in JAX's setting where they need it."""
        return contextlib.nullcontext() if self.own_arguments is None else enable_x64(self.gradients.is_x64)

    @property
    def program(self) -> Program | None:
        return self.programs.loss

    @property
    def call_spacing(self) -> float:
        """Return ε of a call of the caller's functions, which cast to narrower types."""
        return max(self.spacing, _epsilon(jnp.dtype(self.narrow)) if self.narrow else 0.0)

    @property
    def gradient_program(self) -> Program | None:
        return self.programs.by_hand


@contextlib.contextmanager
def double_precision(own: Gradients, *, is_pure: bool = True, no_autodiff: str = "") -> Iterator[Comparison]:
    """Enable float64 and yield the gradients evaluated in it.

    If the functions reject float64 or draw other random numbers in it, their programs in the caller's own precision are
    rewritten; if that is impossible, the caller's own precision is used.

    Args:
        own: the loss and the hand-written gradient in the caller's own precision.
        is_pure: whether the gradient may be traced. One that stores values between its calls would store tracers.
        no_autodiff: why autodiff must not be evaluated; empty if it may be.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(allow_promotion())
        stack.enter_context(enable_x64(True))
        arguments = widen(own.arguments)
        is_wide = jax.tree.map(_dtype, arguments) == jax.tree.map(_dtype, own.arguments)
        wide = own if is_wide else own._replace(arguments=arguments, value=None, by_hand=None)
        try:
            comparison = _compare(own, wide, "float64", is_pure, no_autodiff)
            reason = "" if is_wide else _reject_other_numbers(own, comparison)
        except Exception as error:  # whatever the caller's functions raise
            if is_wide:
                raise
            reason = f"the functions don't take float64 ({describe_error(error, 110)})"
        if reason and (rewritten := _compare_rewritten(own, arguments, is_pure, no_autodiff)) is not None:
            comparison, reason = rewritten, ""
        if not reason:
            yield comparison
            return
    with allow_promotion():
        dtypes = {str(leaf.dtype) for leaf in _leaves(own.params)}
        comparison = _compare(own, own, " and ".join(sorted(dtypes)), is_pure, no_autodiff)
        yield comparison._replace(reason=reason)


def _dtype(leaf):
    return getattr(leaf, "dtype", None)


def _leaves(params):
    return jax.tree.leaves(params)


def _compare(own, gradients, precision, is_pure, no_autodiff) -> Comparison:
    """Return the comparison in one precision. The programs run as one compiled program, each evaluation counted."""
    programs = _trace_all(gradients, is_pure, no_autodiff)
    narrow = loss_narrow = ""
    if precision == "float64":
        programs, narrow, loss_narrow = _take_out_casts(programs, gradients.params)
    ours, theirs = _evaluate(programs, gradients.params)
    gradients.calls["gradient"] += len(programs.known()) - (programs.loss is not None)
    value = theirs[0] if theirs else gradients.value
    by_autodiff = theirs[1] if theirs else None
    if by_autodiff is None and not no_autodiff:
        value, by_autodiff, no_autodiff = _evaluate_untraced(gradients, value, programs.loss is not None)
    by_hand, traced = gradients.by_hand, ours
    if by_hand is None:
        doubtful = ours is None or (not narrow and _is_doubtful(own, ours))
        by_hand, traced = (gradients.gradient(gradients.params), ours) if doubtful else (ours, None)
    elif narrow and ours is not None:
        by_hand, traced = ours, None
    value = gradients.loss(gradients.params) if value is None else value
    gradients = gradients._replace(value=value, by_hand=by_hand)
    spacing = _spacing_of(own, gradients, programs, precision)
    return Comparison(
        gradients, by_autodiff, no_autodiff, programs, traced, spacing, precision, "", narrow, loss_narrow,
        _coarsest(programs.known(), _epsilon(jnp.float32)),
    )  # fmt: skip


def _trace_all(gradients, is_pure, no_autodiff) -> Programs:
    loss = trace(gradients.loss, gradients.params)
    return Programs(
        loss,
        trace(jax.value_and_grad(gradients.loss), gradients.params) if loss and not no_autodiff else None,
        trace(gradients.gradient, gradients.params) if is_pure else None,
    )


def _compare_rewritten(own, arguments, is_pure, no_autodiff) -> Comparison | None:
    """Return the comparison in float64 of the programs traced in the caller's own dtypes, ``None`` if there is none.

    For functions that write out their dtypes, such as that of a loop's carry, and for random numbers, which JAX draws
    otherwise in float64.
    """
    with enable_x64(own.is_x64):
        programs = _trace_all(own, is_pure, no_autodiff)
    if len(programs.known()) < 3 or any(primitive_names(each.jaxpr) & OPAQUE for each in programs.known()):
        return None
    programs, narrow, loss_narrow = _take_out_casts(programs, arguments[0])
    ours, theirs = _evaluate(programs, arguments[0]) if narrow else (None, None)
    if ours is None or theirs is None:
        return None

    def in_own_dtypes(function):
        def call(*wide):
            with enable_x64(own.is_x64):
                return function(*jax.tree.map(_cast_like, wide, own.arguments))

        return call

    own.calls["gradient"] += 2
    gradients = own._replace(
        loss_fn=in_own_dtypes(own.loss_fn), grad_fn=in_own_dtypes(own.grad_fn), arguments=arguments,
        value=theirs[0], by_hand=ours,
    )  # fmt: skip
    spacing = _spacing_of(own, gradients, programs, "float64")
    return Comparison(
        gradients, theirs[1], "", programs, None, spacing, "float64", "", narrow, loss_narrow,
        own_arguments=own.arguments,
    )  # fmt: skip


def _cast_like(leaf, own):
    dtype = getattr(own, "dtype", None)
    is_other = dtype is not None and jnp.issubdtype(dtype, jnp.inexact) and leaf.dtype != dtype
    return leaf.astype(dtype) if is_other else leaf


def _evaluate(programs, params) -> tuple[PyTree | None, PyTree | None]:
    """Return the hand-written gradient, and value and gradient by autodiff, where they have programs."""
    known = [program for program in (programs.by_hand, programs.autodiff) if program is not None]
    try:
        values = evaluate_programs(known, _leaves(params))
    except Exception:  # a callback's own error
        return None, None
    trees = [jax.tree.unflatten(program.structure, value) for program, value in zip(known, values, strict=True)]
    ours = trees[0] if programs.by_hand is not None else None
    return ours, trees[-1] if programs.autodiff is not None else None


def _evaluate_untraced(gradients, value, is_traceable):
    """Return the loss and autodiff's gradient without a program, or why there is none."""
    try:
        if is_traceable:  # then a gradient that can't be traced fails on values too, after they are computed
            jax.eval_shape(jax.value_and_grad(gradients.loss), gradients.params)
    except jax.errors.JAXTypeError:  # a rule that needs the values of its arguments
        pass
    except Exception as error:  # whatever JAX raises where it has no derivative
        return value, None, _describe_failure(error)

    def traced_loss(params):
        loss = gradients.loss(params)
        if is_concrete(loss) and not is_concrete(*_leaves(params)):
            raise TypeError("it returns a number that isn't traced, as float() and .item() do")
        return loss

    try:
        return (*jax.value_and_grad(traced_loss)(gradients.params), "")
    except Exception as error:  # whatever NumPy, PyTorch or float() raise for a traced array
        return value, None, _describe_failure(error)


def _describe_failure(error) -> str:
    if isinstance(error, jax.errors.TracerArrayConversionError):
        return f"the loss calls NumPy{place_of(error)}, and JAX differentiates jax.numpy alone"
    if isinstance(error, jax.errors.JAXTypeError):
        return f"the loss needs the values of its arguments, which autodiff doesn't give it ({type(error).__name__})"
    return f"JAX can't differentiate the loss ({describe_error(error, 110)})"


def _is_doubtful(own, ours) -> bool:
    """Whether the traced gradient differs from the caller's own call by more than half of the caller's digits."""
    spacing = max(_epsilon(leaf.dtype) for leaf in _leaves(own.params))
    for mine, leaf in zip(_leaves(own.by_hand), _leaves(ours), strict=True):
        mine, leaf = as_float64(mine), as_float64(leaf)
        if mine.shape != leaf.shape:
            return True
        gap = float(np.max(distances(mine, leaf), initial=0.0))
        if not gap <= spacing**0.5 * max_abs(leaf):
            return True
    return False


def _take_out_casts(programs: Programs, params) -> tuple[Programs, str, str]:
    """Return the programs without casts to narrower floating types, and the coarsest of these, of all and the loss."""
    narrow = _coarsest(programs.known(), _epsilon(jnp.float64))
    if not narrow or programs.loss is None or programs.by_hand is None:
        return programs, "", ""
    wide = Programs(*(program and widen_program(program, params) for program in programs))
    if wide.loss is None or wide.by_hand is None or (programs.autodiff is not None and wide.autodiff is None):
        return programs, "", ""
    return wide, narrow, _coarsest([programs.loss], _epsilon(jnp.float64))


def _coarsest(programs, spacing) -> str:
    dtypes = [dtype for program in programs for dtype in coarser_dtypes(program, spacing)]
    return str(max(dtypes, key=_epsilon)) if dtypes else ""


def _reject_other_numbers(own, comparison) -> str:
    """Return why the loss in float64 is another one: it draws other random numbers; empty if it isn't."""
    ours, theirs = np.complex128(comparison.gradients.value), np.complex128(own.value)
    with np.errstate(all="ignore"):
        gap, size = np.abs(ours - theirs), np.maximum(np.abs(ours), np.abs(theirs))
    is_near = gap <= _epsilon(jnp.result_type(own.value)) ** 0.5 * size
    if is_near or comparison.program is None or not primitive_names(comparison.program.jaxpr) & RANDOM:
        return ""
    losses = f"where the loss is {ours.real:.6g} and not {theirs.real:.6g}"
    return f"the random numbers are others in float64, {losses}"


def _spacing_of(own, gradients, programs, precision) -> float:
    dtypes = {leaf.dtype for leaf in _leaves(gradients.params)}
    own_spacing = max((_epsilon(leaf.dtype) for leaf in _leaves(own.params)), default=0.0)
    if programs.loss is not None:
        dtypes |= rounding_dtypes(programs.loss.jaxpr)
    if programs.by_hand is not None:
        # A gradient that rounds to fewer digits than both the loss and the caller's dtype doesn't set the precision.
        least = max([own_spacing, *map(_epsilon, dtypes)])
        dtypes |= {dtype for dtype in rounding_dtypes(programs.by_hand.jaxpr) if _epsilon(dtype) <= least}
    elif own_spacing >= _epsilon(jnp.float32) and precision == "float64" and not _keeps_digits(gradients):
        dtypes.add(jnp.dtype(jnp.float32))
    return max(map(_epsilon, dtypes), default=0.0)


def _epsilon(dtype) -> float:
    return float(jnp.finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.inexact) else 0.0


def _keeps_digits(gradients) -> bool:
    """Whether a gradient that can't be traced has float64's digits: it follows changes far below those of float32."""

    def at(distance):
        moved = jax.tree.map(lambda leaf: leaf * (1 - distance), gradients.params)
        return np.concatenate([np.ravel(leaf) for leaf in _leaves(gradients.gradient(moved))])

    try:
        start, once, twice = at(0.0), at(1e-10), at(2e-10)
        return bool(np.linalg.norm(twice - 2 * once + start) <= 0.1 * np.linalg.norm(once - start) > 0)
    except Exception:  # whatever the caller's function raises elsewhere
        return False
