"""Evaluation of both optimizers on every sequence: in float64, under a changing learning rate, in other dtypes."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from funcnn._numerics.precision import enable_x64
from funcnn._reports.properties import PropertyReport
from funcnn.optimizercheck.comparison import absolute_differences, compare, tolerances
from funcnn.optimizercheck.report import SequenceReport, format_updates
from funcnn.optimizercheck.sequences import STEPS, Problem, flatten, make_problem
from funcnn.optimizercheck.trajectories import (
    Phases,
    Trajectory,
    compute_trajectory,
    error_summary,
    incompatibility,
    single_phase,
)

OTHER_DTYPES = (jnp.float32, jnp.bfloat16)
"""The dtypes in which both optimizers are compared in addition to float64 and to the caller's."""

_RATE, _REDUCED_RATE = 0.05, 0.005
_CHANGING_RATE_SEQUENCES = ("random", "alternating")


class CheckedOptimizer(NamedTuple):
    """One of the two optimizers.

    Fields:
        role: ``"candidate"`` or ``"reference"``.
        make: the optimizer as a function of the learning rate.
        dtype: the dtype of the main comparison; ``None`` for the dtypes of the caller's parameters.
    """

    role: str
    make: Callable[[Any], Any]
    dtype: Any = jnp.float64

    @property
    def name(self) -> str:
        return f"check_optimizer({self.role})"

    def phases(self, *rates: Any) -> Phases:
        """Return the optimizer for each of the learning rates, each for an equal number of steps."""
        return tuple(phase for rate in rates for phase in single_phase(self.make(rate), STEPS // len(rates)))


class Evaluation(NamedTuple):
    """The updates of both optimizers on some sequences.

    Fields:
        problem: the sequences.
        candidate, reference: updates, ``(sequences, steps, entries)``.
        groups: for each sequence a number; sequences of one group have the same learning rates.
        trajectories: a pair (candidate's, reference's) for each group.
        error: the rounding error of the reference in the candidate's dtype; ``None`` if both have the same dtype.
        changes: the changes of dtype, shape and structure that the candidate makes and the reference does not.
        dtype_name: the candidate's dtype.
    """

    problem: Problem
    candidate: np.ndarray
    reference: np.ndarray
    groups: np.ndarray
    trajectories: tuple[tuple[Trajectory, Trajectory], ...]
    error: np.ndarray | None
    changes: tuple[str, ...]
    dtype_name: str

    @property
    def spacing(self) -> float:
        """ε of the coarsest floating dtype in either computation."""
        return max(one.spacing for pair in self.trajectories for one in pair)

    @property
    def is_pure(self) -> tuple[bool, bool]:
        """Whether each optimizer gives the same program at every trace."""
        candidate, reference = self.trajectories[0]
        return not candidate.python_reason, not reference.python_reason

    @property
    def tolerances(self) -> np.ndarray:
        """The largest difference that rounding explains, for every entry."""
        return tolerances(self.reference, self.problem, self.spacing, self.error)

    @property
    def is_close(self) -> bool:
        """Whether the candidate agrees with the reference on every sequence."""
        return bool((absolute_differences(self.candidate, self.reference) <= self.tolerances).all())

    def rows(self) -> tuple[SequenceReport, ...]:
        """Return a row for each sequence."""
        rows = compare(self.candidate, self.reference, self.tolerances, self.problem)
        suffix = "" if self.dtype_name == "float64" else f", in {self.dtype_name}"
        return tuple(row._replace(name=f"{row.name}{suffix}") for row in rows)

    def worst_row(self) -> SequenceReport:
        """Return the first row that differs, else the row nearest to its tolerance, named after all of them."""
        rows = self.rows()
        wrong = [row for row in rows if not row.ok]
        nearest = max(rows, key=lambda row: row.difference / row.tolerance if row.tolerance else 0.0)
        return wrong[0] if wrong else nearest._replace(name=f"all {len(rows)}, in {self.dtype_name}")


class Examination(NamedTuple):
    """The main comparison, with the rows and properties of all comparisons."""

    evaluation: Evaluation
    rows: tuple[SequenceReport, ...]
    properties: tuple[PropertyReport, ...]


def select_problem(
    optimizers: tuple[CheckedOptimizer, CheckedOptimizer], params: PyTree
) -> tuple[tuple[CheckedOptimizer, CheckedOptimizer], Problem, tuple[PropertyReport, ...]]:
    """Return the optimizers with the dtypes of the main comparison, the sequences, and what is not checked.

    Extra leaves are added where both optimizers accept another tree. An optimizer that raises in float64 is compared in
    the dtypes of the parameters.
    """
    extended, own = (make_problem(params, extra_leaves=extra) for extra in (True, False))
    selected, refusals, properties = [], [], []
    for optimizer in optimizers:
        refusal = _refusal(optimizer, extended)
        reason = refusal and _refusal(optimizer, own)
        if reason and own.dtype_name != "float64":
            optimizer = optimizer._replace(dtype=None)
            refusal = _refusal(optimizer, extended)
            properties.append(_not_checked("float64", f"the {optimizer.role} doesn't run in it ({reason})", own))
        selected.append(optimizer)
        refusals += [f"the {optimizer.role} accepts no tree but yours ({refusal})"] if refusal else []
    if selected[1].dtype is None:
        selected[0] = selected[0]._replace(dtype=None)
    if refusals:
        detail = f"not checked, because {refusals[0]}"
        properties.append(PropertyReport("a scalar in nested containers", None, detail))
    return (selected[0], selected[1]), own if refusals else extended, tuple(properties)


def examine(optimizers: tuple[CheckedOptimizer, CheckedOptimizer], problem: Problem, has_rate: bool) -> Examination:
    """Compare both optimizers in float64, in the dtypes of the parameters, and in other dtypes.

    Differences in float64 and in the dtypes of the parameters count. Those in other dtypes are reported alone.

    Args:
        optimizers, problem: what ``select_problem`` returns.
        has_rate: whether both optimizers are functions of the learning rate.
    """
    evaluation, properties = _evaluate(optimizers, problem, has_rate)
    rows = evaluation.rows()
    if evaluation.dtype_name != problem.dtype_name:
        given = _evaluate_part(optimizers, problem.round_to(), None, _RATE, is_pure=evaluation.is_pure)
        reason = "" if evaluation.is_close or not given.is_close else _unlike_float64(optimizers, evaluation, given)
        if reason:
            optimizers = optimizers[0]._replace(dtype=None), optimizers[1]
            evaluation, properties = _evaluate(optimizers, problem, has_rate)
            properties += (_not_checked("float64", reason, problem),)
            rows = evaluation.rows()
        elif evaluation.is_close:
            rows += (given.worst_row(),)
            properties += (_dtype_property(given),)
    elif evaluation.is_close and evaluation.dtype_name == "float64":
        rows += _lost_digits(evaluation)
    others = tuple(dtype for dtype in OTHER_DTYPES if jnp.dtype(dtype).name != problem.dtype_name)
    if not all(row.ok for row in rows):
        names = " and ".join(jnp.dtype(dtype).name for dtype in others)
        detail = f"not checked, because the updates differ in {evaluation.dtype_name}"
        return Examination(evaluation, rows, (*properties, PropertyReport(names, None, detail)))
    for dtype in others:
        found = _evaluate_in_another_dtype(optimizers, problem, dtype, evaluation.is_pure)
        rows += (found,) if isinstance(found, SequenceReport) else ()
        properties += (found,) if isinstance(found, PropertyReport) else ()
    return Examination(evaluation, rows, properties)


def _evaluate(optimizers, problem, has_rate) -> tuple[Evaluation, tuple[PropertyReport, ...]]:
    """Evaluate both on every sequence and, for functions of the learning rate, under changing rates."""
    dtype = optimizers[0].dtype
    problem = problem.round_to() if dtype is None else problem
    parts = [_evaluate_part(optimizers, problem, dtype, _RATE)]
    if has_rate:
        changing = problem.select(_CHANGING_RATE_SEQUENCES)
        reduced = _add_suffix(changing, "reduced rate")
        parts.append(_evaluate_part(optimizers, reduced, dtype, _RATE, _REDUCED_RATE))
        unsupported = [_unsupported_schedule(optimizer, changing) for optimizer in optimizers]
        properties = [item for item in unsupported if item]
        if not properties:
            parts.append(_evaluate_part(optimizers, _add_suffix(changing, "schedule"), dtype, _schedule))
            role = _keeps_rate_in_state(*parts)
            if role:
                del parts[1]
                detail = f"not checked, because the {role} keeps the rate in its state; a schedule was compared"
                properties = [PropertyReport("a reduced learning rate with the state kept", None, detail)]
    else:
        detail = "not checked, because both are built already; to check it pass optax.adam, not optax.adam(1e-3)"
        properties = [PropertyReport("a changing learning rate", None, detail)]
    evaluation = _concatenate(parts)
    properties.append(_dtype_property(evaluation))
    python_reason = parts[0].trajectories[0][0].python_reason
    if python_reason:
        detail = f"step by step in Python, because {python_reason}"
        properties.append(PropertyReport("execution of the candidate", True, detail))
    return evaluation, tuple(properties)


def _evaluate_part(optimizers, problem, dtype, *rates, is_pure=(False, False)) -> Evaluation:
    """Evaluate the candidate in a dtype, and the reference in the dtype of its main comparison and in this one.

    Args:
        optimizers, problem: what ``select_problem`` returns.
        dtype: the candidate's dtype; ``None`` for the caller's.
        rates: the learning rates, each for an equal number of steps.
        is_pure: whether each optimizer is known to give the same program at every trace.
    """

    def run(optimizer, dtype, is_pure, with_states=False):
        with _precision(dtype):
            return compute_trajectory(
                optimizer.name, optimizer.phases(*rates), *problem.trees(dtype),
                with_states=with_states, is_pure=is_pure,
            )  # fmt: skip

    candidate, reference = optimizers
    ours = run(candidate, dtype, is_pure[0])
    if dtype != jnp.float64:  # the digits of this dtype are expected, whatever the candidate computes in
        ours = ours._replace(spacing=problem.spacing if dtype is None else float(jnp.finfo(dtype).eps))
    exact = run(reference, reference.dtype, is_pure[1], with_states=True)
    theirs = exact if dtype == reference.dtype else run(reference, dtype, is_pure[1])
    updates, expected = flatten(ours.updates), flatten(exact.updates)
    error = None
    if theirs is not exact:
        with np.errstate(all="ignore"):
            error = absolute_differences(flatten(theirs.updates), expected)
            # Where the reference itself is not finite, any candidate is accepted.
            error = np.where(np.isfinite(flatten(theirs.updates)), error, np.inf)
    changes = tuple(change for change in ours.changes if change not in theirs.changes)
    name = problem.dtype_name if dtype is None else jnp.dtype(dtype).name
    return Evaluation(problem, updates, expected, np.zeros(len(updates), int), ((ours, exact),), error, changes, name)


def _evaluate_in_another_dtype(optimizers, problem, dtype, is_pure) -> SequenceReport | PropertyReport:
    """Return a row for a dtype that no parameter has, or the reason why it is not checked."""
    name = jnp.dtype(dtype).name
    try:
        part = _evaluate_part(optimizers, problem.round_to(dtype), dtype, _RATE, is_pure=is_pure)
    except ValueError as error:
        role = "candidate" if str(error).startswith(optimizers[0].name) else "reference"
        return _not_checked(name, f"the {role} doesn't run in it ({error_summary(error.__cause__ or error)})", problem)
    if part.changes:
        return _not_checked(name, f"the candidate doesn't keep it ({part.changes[0]})", problem)
    row = part.worst_row()
    if row.ok:
        return row
    candidate, reference = format_updates(row)
    differs = f"the candidate differs in it ({candidate}, where the reference has {reference})"
    return PropertyReport(name, None, f"not counted, because {differs}; your parameters are {problem.dtype_name}")


def _lost_digits(evaluation) -> tuple[SequenceReport, ...]:
    """Return the first row that differs for parameters in float64 if at least the digits of float32 are expected.

    The tolerances of the main comparison allow for a candidate that computes in bfloat16 inside.
    """
    spacing = min(float(jnp.finfo(jnp.float32).eps), evaluation.spacing)
    limited = tuple((ours._replace(spacing=spacing), exact) for ours, exact in evaluation.trajectories)
    rows = evaluation._replace(trajectories=limited).rows()
    return tuple(row._replace(name=f"{row.name}, in float64") for row in rows if not row.ok)[:1]


def _unlike_float64(optimizers, evaluation, given) -> str:
    """Return the reason why float64 shows nothing about the dtypes of the parameters; empty if it does.

    The candidate agrees in the dtypes of the parameters, and differs in float64. Either it computes in the same dtype
    whatever comes, or it computes something else in float64: its own updates in both differ by more than 3 tolerances,
    which is more than the rounding of both explains.
    """
    if evaluation.trajectories[0][0].spacing == given.problem.spacing:
        return f"the candidate computes in {given.dtype_name} there too"
    wide = _evaluate_part(optimizers, given.problem, jnp.float64, _RATE, is_pure=evaluation.is_pure)
    if (absolute_differences(wide.candidate, given.candidate) > 3 * given.tolerances).any():
        return f"the candidate computes something else in it than in {given.dtype_name}"
    return ""


def _dtype_property(evaluation) -> PropertyReport:
    """Report whether updates and state keep the dtype. This counts only in the dtypes of the parameters."""
    name = f"dtypes of updates and state, in {evaluation.dtype_name}"
    if evaluation.changes and evaluation.dtype_name != evaluation.problem.dtype_name:
        return _not_checked(name, f"the candidate doesn't keep it ({evaluation.changes[0]})", evaluation.problem)
    return PropertyReport(name, not evaluation.changes, "; ".join(evaluation.changes))


def _not_checked(name, reason, problem) -> PropertyReport:
    return PropertyReport(name, None, f"not checked, because {reason}; your parameters are {problem.dtype_name}")


def _precision(dtype):
    """Return a context with float64 enabled, or the caller's configuration for other dtypes."""
    return enable_x64(True) if dtype == jnp.float64 else contextlib.nullcontext()


def _refusal(optimizer, problem, make_rate=_RATE) -> str:
    """Return the reason why an optimizer doesn't accept the tree of a problem in its dtype; empty if it does."""
    with _precision(optimizer.dtype):
        tree = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), problem.trees(optimizer.dtype)[0])
        return incompatibility(optimizer.make(make_rate), tree)


def _schedule(count):
    return 0.1 / (1 + 0.25 * count)


def _keeps_rate_in_state(constant, reduced, schedule) -> str:
    """Return which optimizer does not react to a new rate while its state is kept; empty if both do.

    The state of ``optax.inject_hyperparams`` has the rate. Under a schedule such an optimizer has to agree.
    """
    if reduced.is_close or not schedule.is_close:
        return ""
    rows = [constant.problem.names.index(name) for name in _CHANGING_RATE_SEQUENCES]
    if np.array_equal(reduced.candidate, constant.candidate[rows]):
        return "candidate"
    return "reference" if np.array_equal(reduced.reference, constant.reference[rows]) else ""


def _add_suffix(problem, suffix) -> Problem:
    return problem._replace(names=tuple(f"{name}, {suffix}" for name in problem.names))


def _unsupported_schedule(optimizer, problem) -> PropertyReport | None:
    """Return the reason why an optimizer accepts no schedule, or ``None`` if it accepts one."""
    try:
        why = _refusal(optimizer, problem, _schedule)
    except ValueError as error:
        why = error_summary(error)
    detail = f"not checked, because the {optimizer.role} accepts none ({why}); the rate was reduced halfway"
    return PropertyReport("a schedule of the learning rate", None, detail) if why else None


def _concatenate(parts) -> Evaluation:
    problem = parts[0].problem._replace(
        names=tuple(name for part in parts for name in part.problem.names),
        params=np.concatenate([part.problem.params for part in parts]),
        gradients=np.concatenate([part.problem.gradients for part in parts]),
    )
    candidate = np.concatenate([part.candidate for part in parts])
    reference = np.concatenate([part.reference for part in parts])
    errors = [part.error for part in parts if part.error is not None]
    groups = np.concatenate([np.full(len(part.candidate), number) for number, part in enumerate(parts)])
    trajectories = tuple(pair for part in parts for pair in part.trajectories)
    changes = tuple(dict.fromkeys(change for part in parts for change in part.changes))
    error = np.concatenate(errors) if errors else None
    return Evaluation(problem, candidate, reference, groups, trajectories, error, changes, parts[0].dtype_name)
