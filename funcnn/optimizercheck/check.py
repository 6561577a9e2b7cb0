"""The public check of one optimizer against another."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from funcnn._checks import describe
from funcnn._numerics.precision import allow_promotion
from funcnn._numerics.trees import floating_tree
from funcnn.optimizercheck.comparison import relative_tolerance
from funcnn.optimizercheck.diagnosis import Diagnosis, diagnose
from funcnn.optimizercheck.evaluation import (
    CheckedOptimizer,
    Evaluation,
    examine,
    select_problem,
)
from funcnn.optimizercheck.identification import Observations, identify, moments
from funcnn.optimizercheck.report import OptimizerReport, format_updates
from funcnn.optimizercheck.trajectories import error_summary
from funcnn.optimizercheck.update_rules import UpdateRule, describe_rule


def check_optimizer(candidate: Any, reference: Any, params: PyTree) -> OptimizerReport:
    """Compare an optimizer with a trusted one, step by step, and name the difference.

    Both optimizers get the same gradient sequences: constant, alternating, random, sparse, zero, tiny, huge, growing
    and shrinking. The parameters are the caller's, with random numbers in place of zeros so that weight decay has an
    effect. A scalar in nested containers is added where both optimizers accept any tree. Leaves of large trees are
    replaced by their first rows and columns. Updates are compared in float64 whatever JAX's configuration is. Where
    they agree, they are also compared in the dtypes of the parameters, where updates and state have to keep their
    dtypes, and in float32 and bfloat16. A dtype that no parameter has decides nothing: where the candidate raises in
    it, returns another dtype or loses digits, the report lists it as not checked, with the reason. The caller's
    configuration is restored afterwards.

    Where the updates differ, the reference is identified: its state and its updates on simple gradients determine a
    textbook update rule. The rule is used only if its simulation reproduces every update of the reference. The cause is
    the one-line change of that rule whose simulation reproduces every update of the candidate. A change that does not
    is never reported.

    Args:
        candidate: the optimizer to check: an object with ``init(params)`` and ``update(gradients, state, params)``, as
            in optax, or a function of the learning rate that returns one. It runs in Python where JAX can't trace it.
        reference: the trusted optimizer, in the same form: ``optax.adam(1e-3)``, or ``optax.adam`` itself. Functions of
            the learning rate are also compared under a changing rate: reduced halfway with the state kept, and under a
            schedule.
        params: any pytree of real floating arrays.

    Returns:
        A report with one row for each sequence, the first step and leaf that differ, and the cause.

    Raises:
        TypeError: an optimizer has no init or update, only one is a function of the learning rate, or a parameter isn't
            floating.
        ValueError: an optimizer raises, returns another tree than the parameters', or there are no parameters.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> def momentum(learning_rate):
        ...     def update(gradients, velocity, params=None):
        ...         velocity = jax.tree.map(lambda v, g: 0.9 * v + 0.1 * g, velocity, gradients)
        ...         return jax.tree.map(lambda v: -learning_rate * v, velocity), velocity
        ...     return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)
        >>> report = check_optimizer(momentum(0.1), optax.sgd(0.1, momentum=0.9), {"w": jnp.ones(3)})
        >>> report.ok, report.cause
        (False, 'dampening')
        >>> print(report.detail)  # doctest: +NORMALIZE_WHITESPACE
        v ← μ v + (1−μ) g, where the reference has v ← μ v + g;
        or, equivalently here, every update is 0.1 times the reference's

    Source:
        The update rules: Polyak 1964; Nesterov 1983; Duchi et al. 2011 (Adagrad); Hinton 2012 (RMSprop); Kingma and Ba
        2015 (Adam, Adamax); Dozat 2016 (NAdam); Loshchilov and Hutter 2019 (AdamW); Chen et al. 2023 (Lion).
    """
    start = time.perf_counter()
    params = floating_tree("check_optimizer(params)", params)
    _check_params(params)
    has_rate = _is_function_of_rate(candidate, reference)
    first, second = (
        CheckedOptimizer(role, _constructor(one, f"check_optimizer({role})", has_rate))
        for role, one in {"candidate": candidate, "reference": reference}.items()
    )
    with allow_promotion():
        optimizers, problem, properties = select_problem((first, second), params)
        evaluation, rows, found = examine(optimizers, problem, has_rate)
    return _build_report(evaluation, rows, (*properties, *found), start)


def _check_params(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for path, leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"check_optimizer(params): expected real floating parameters, got {describe(leaf)} at "
                f"{jax.tree_util.keystr(path) or 'the root'}. Check the optimizer on real ones."
            )
    if not sum(leaf.size for _, leaf in leaves):
        raise ValueError(
            "check_optimizer(params): expected at least one number, got a tree without any. "
            "Pass parameters such as those that the optimizer will train."
        )


def _is_function_of_rate(candidate, reference) -> bool:
    """Return whether both arguments are functions of the learning rate. Raise if only one is, or one is neither."""
    kinds = []
    for role, one in {"candidate": candidate, "reference": reference}.items():
        name = f"check_optimizer({role})"
        is_built = not isinstance(one, type) and all(callable(getattr(one, part, None)) for part in ("init", "update"))
        if not is_built and not callable(one):
            raise TypeError(
                f"{name}: expected an optimizer with init and update, or a function of the learning rate, got {one!r}. "
                "Pack the two functions in optax.GradientTransformation(init, update)."
            )
        kinds.append(not is_built)
    if kinds[0] != kinds[1]:
        forms = ["a function of the learning rate" if kind else "a built optimizer" for kind in kinds]
        raise TypeError(
            f"check_optimizer: expected two of a kind, got {forms[0]} as candidate and {forms[1]} as reference. "
            "Build both, as in optax.adam(1e-3), or neither, as in optax.adam."
        )
    return kinds[0]


def _constructor(one, name, has_rate) -> Callable[[Any], Any]:
    """Return a memoised function of the learning rate. It ignores the rate if the optimizer is already built."""
    if not has_rate:
        return lambda learning_rate: one

    cache: dict = {}

    def construct(learning_rate):
        key = id(learning_rate) if callable(learning_rate) else learning_rate
        if key not in cache:
            try:
                optimizer = one(learning_rate)
            except Exception as error:  # whatever the caller's function raises
                raise ValueError(
                    f"{name}: expected an optimizer of the learning rate, but it raised {error_summary(error)}. "
                    "Pass a function of the learning rate alone: lambda learning_rate: optax.sgd(learning_rate)."
                ) from error
            if not all(callable(getattr(optimizer, part, None)) for part in ("init", "update")):
                raise TypeError(
                    f"{name}: expected a function of the learning rate that returns an optimizer with init and update, "
                    f"got {optimizer!r}. Pack the two functions in optax.GradientTransformation(init, update)."
                )
            cache[key] = optimizer
        return cache[key]

    return construct


def _build_report(evaluation: Evaluation, rows, properties, start) -> OptimizerReport:
    wrong = [row for row in rows if not row.ok]
    ok = not wrong and all(item.ok is not False for item in properties)
    diagnosis: Diagnosis | None = None
    rule: UpdateRule | None = None
    if not all(row.ok for row in rows[: len(evaluation.problem.names)]):
        rule = _identify_reference(evaluation)
        diagnosis = diagnose(rule, evaluation.problem, evaluation.candidate, evaluation.reference, evaluation.spacing)
    elif not ok:
        broken = [item for item in properties if item.ok is False]
        detail = (
            broken[0].detail
            if broken
            else f"the update rule is right, but digits are lost in {wrong[0].name.rsplit(' ', 1)[-1]}"
        )
        diagnosis = Diagnosis("dtype" if broken else "unstable", detail)
    formula = relative_tolerance(evaluation.spacing)[1]
    tolerance = (
        f"{formula} of the entry's largest update so far, 16 ε of the leaf's and 2 ε of its largest parameter; "
        "in other dtypes √ε, and 16 × the rounding error of the reference there"
    )
    return OptimizerReport(
        ok, rows, diagnosis.cause if diagnosis else None, diagnosis.detail if diagnosis else "",
        _summary(rows, properties, diagnosis, rule), properties, tolerance, time.perf_counter() - start,
    )  # fmt: skip


def _identify_reference(evaluation: Evaluation) -> UpdateRule | None:
    trajectory = evaluation.trajectories[0][1]
    entries = evaluation.reference.shape[-1]
    states = (trajectory.initial, 1), (trajectory.states, 2)
    before, after = (moments(tree, entries, axes) for tree, axes in states)
    return identify(
        Observations(evaluation.problem, evaluation.reference, evaluation.groups, before, after, trajectory.spacing)
    )


def _summary(rows, properties, diagnosis, rule) -> str:
    if diagnosis is None:
        omitted = [item.name for item in properties if item.ok is None]
        suffix = f" Not checked: {'; '.join(omitted)}." if omitted else ""
        return f"The candidate's updates are the reference's: all {len(rows)} rows agree.{suffix}"
    wrong = [row for row in rows if not row.ok]
    lines = []
    if wrong:
        first, (candidate, reference) = wrong[0], format_updates(wrong[0])
        where = f"{first.path or 'the root'}{list(first.entry) if first.entry else ''}"
        lines.append(
            f"The candidate differs in {len(wrong)} of {len(rows)} rows, first in {first.name!r} at step {first.step}: "
            f"the update of {where} is {candidate}, the reference's is {reference}."
        )
    lines.append(f"{diagnosis.cause}: {diagnosis.detail}.")
    if rule is not None:
        lines.append(f"The reference is {describe_rule(rule)}: its simulation reproduces every update.")
    return "\n".join(lines)
