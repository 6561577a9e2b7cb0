"""The fixture ``gradcheck``: checks that fail a test with their report, over a sweep of the arguments."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from funcnn.gradcheck.check import WrongGradientError, check_gradients
from funcnn.gradcheck.engine.properties import Property
from funcnn.gradcheck.engine.pullbacks import Arguments, Question, select_arguments
from funcnn.gradcheck.layers import check_layer
from funcnn.gradcheck.report import Cause, GradientReport
from funcnn.gradcheck.vjp import check_custom_vjp, check_vjp
from funcnn.pytest_plugin.cases import Case, Sweep, axis_sizes, cases_of, option_values, resized
from funcnn.pytest_plugin.comparison import (
    CannotTrace,
    Outcome,
    Rule,
    divides_by_zero,
    judge,
    outcome_of_error,
    pull_of_function,
)
from funcnn.pytest_plugin.outcome import cause_of, failed_report, record_of, swept_report
from funcnn.types import Layer

_GIVEN = "as given"


class _Check(NamedTuple):
    """One call of the fixture.

    Fields:
        kind: the method of the fixture.
        name: of what is checked.
        full: the whole check of one case, ``(case) -> report``.
        forward: the function in question, ``(case) -> function``.
        rule: what ``judge`` compares; ``None`` where there is no plain function, so that each case is a whole check.
    """

    kind: str
    name: str
    full: Callable[[Case], GradientReport]
    forward: Callable[[Case], Callable[..., PyTree]]
    rule: Callable[[Case], Rule] | None


class Gradcheck:
    """The value of the fixture ``gradcheck``.

    Each method checks a gradient for the given arguments as the function of the same name in funcnn does, and then for
    the cases of a sweep in their own dtypes: sizes one off, 1 and prime, one more leading axis, an odd batch, equal
    rows, broadcast arrays, bfloat16, a cotangent of another dtype, and every value of an option. A case that the
    function or the reference rejects counts neither for nor against. ``@pytest.mark.gradcheck_sweep(shapes=…, dtypes=…,
    options=…)`` gives the cases in their place.

    A wrong gradient fails the test with the report of the smallest case in which it is wrong.
    """

    def __init__(self, sweep: Sweep | None = None):
        self.records: list[dict[str, Any]] = []
        self._sweep = sweep or Sweep()

    def rule(
        self,
        function: Callable[..., PyTree],
        *args: Any,
        reference: Callable[..., PyTree] | None = None,
        key: PRNGKeyArray | None = None,
        **options: Any,
    ) -> GradientReport:
        """Check the rule of a function with ``jax.custom_vjp`` or ``jax.custom_jvp``, as ``check_custom_vjp`` does.

        Args:
            function: ``(*args, **options) -> output``.
            args: trees of arrays.
            reference: a plain function of the same arguments and options. Without one every case is a whole check.
            key: random key for the cotangents of the check of the given arguments.
            options: keyword arguments of both; both values of a bool and all of a ``Literal`` are tried.

        Returns:
            The report.

        Raises:
            AssertionError: the rule is wrong in some case.

        Example:
            >>> import jax, jax.numpy as jnp
            >>> @jax.custom_vjp
            ... def cube(x):
            ...     return x**3
            >>> cube.defvjp(lambda x: (x**3, x), lambda x, dy: (3 * x**2 * dy,))
            >>> sweep = Sweep(shapes=[(2,), (3,)])
            >>> Gradcheck(sweep).rule(cube, jnp.array([1.0, 2.0]), reference=lambda x: x * x * x).verdict
            'agrees'
        """
        __tracebackhide__ = True

        def full(case):
            plain = None if reference is None else partial(reference, **case.options)
            return check_custom_vjp(partial(function, **case.options), *case.args, reference=plain, key=key)

        def forward(case):
            return partial(function, **case.options)

        def rule(case):
            assert reference is not None
            return Rule(partial(reference, **case.options), forward(case), pull_of_function(forward(case)),
                        select_arguments)  # fmt: skip

        check = _Check("rule", _name_of(function), full, forward, None if reference is None else rule)
        return self._run(check, args, options, option_values(function, options))

    def vjp(
        self,
        function: Callable[..., PyTree],
        vjp: Callable[..., tuple],
        *args: Any,
        key: PRNGKeyArray | None = None,
    ) -> GradientReport:
        """Check a vjp written by hand, as ``check_vjp`` does; the arguments are those of ``check_vjp``.

        Raises:
            AssertionError: the vjp is wrong in some case.
        """
        __tracebackhide__ = True

        def pull(arguments, cotangent):
            question = Question("check_vjp", function, vjp, arguments, key)
            gradients = question.pulled(arguments.floating, arguments.whole, cotangent)
            return vjp(*arguments.filled(arguments.floating))[0], gradients

        def forward(case):
            return lambda *args: vjp(*args)[0]

        check = _Check(
            "vjp", _name_of(vjp), lambda case: check_vjp(function, vjp, *case.args, key=key), forward,
            lambda case: Rule(function, forward(case), pull, select_arguments),
        )  # fmt: skip
        return self._run(check, args, {}, {})

    def gradients(
        self,
        loss_fn: Callable[..., Any],
        grad_fn: Callable[..., PyTree],
        params: PyTree,
        *args: Any,
        also: Sequence[Property] = (),
    ) -> GradientReport:
        """Check the gradient of a loss, as ``check_gradients`` does; the arguments are those of ``check_gradients``.

        Raises:
            AssertionError: the gradient is wrong in some case.
        """
        __tracebackhide__ = True

        def pull(arguments, cotangent):
            filled = arguments.filled(arguments.floating)
            gradients = grad_fn(*filled)
            structures: Any = [jax.tree.structure(tree) for tree in (gradients, filled[0])]
            if isinstance(gradients, tuple) and structures[0] != structures[1]:
                gradients = gradients[0]  # beside those of tapped values
            part = arguments.floating[0]
            scaled = jax.tree.map(
                lambda p, g: None if p is None else g * jnp.asarray(cotangent, jnp.result_type(g)), part, gradients,
                is_leaf=lambda leaf: leaf is None,
            )  # fmt: skip
            return loss_fn(*filled), (scaled, *arguments.floating[1:])

        def split(args):
            whole = select_arguments(args)
            rest = (jax.tree.map(lambda leaf: None, part) for part in whole.whole[1:])
            return Arguments((whole.floating[0], *rest), whole.whole)

        check = _Check(
            "gradients", _name_of(grad_fn), lambda case: check_gradients(loss_fn, grad_fn, *case.args, also=also),
            lambda case: grad_fn, lambda case: Rule(loss_fn, grad_fn, pull, split),
        )  # fmt: skip
        return self._run(check, (params, *args), {}, {})

    def layer(self, layer: Layer, x: Any, *, train: bool = True, key: PRNGKeyArray | None = None) -> GradientReport:
        """Check a layer's backward pass, as ``check_layer`` does; the sweep is that of the input.

        Raises:
            AssertionError: the backward pass is wrong in some case.
        """
        __tracebackhide__ = True
        check = _Check(
            "layer", layer.spec.name or "layer", lambda case: check_layer(layer, *case.args, train=train, key=key),
            lambda case: partial(_forward, layer, train, key), None,
        )  # fmt: skip
        return self._run(check, (x,), {}, {})

    def _run(self, check: _Check, args: tuple, options: dict[str, Any], values: dict[str, list[Any]]) -> GradientReport:
        __tracebackhide__ = True
        given = Case(_GIVEN, args, options)
        report, results = check.full(given), []
        if report.ok:
            cases = [given, *cases_of(self._sweep, args, options, values)]
            results = [(case, outcome) for case in cases if (outcome := _outcome(check, case)) is not None]
            report = self._judge_failures(check, args, report, results)
        unjudged: list[tuple[Case, Outcome | None]] = [(given, None)]
        self.records.append(record_of(check.kind, check.name, report, results or unjudged))
        if not report.ok:
            raise WrongGradientError(report)
        return report

    def _judge_failures(self, check: _Check, args: tuple, report: GradientReport, results: list) -> GradientReport:
        """Return the report of the sweep: that of the smallest case which a whole check confirms as wrong.

        Cases with an axis of 1 come last, because most mistakes look alike there.
        """
        wrong = sorted((place for place, (_, found) in enumerate(results) if found.state == "wrong"),
                       key=lambda place: (results[place][0].has_axis_of_one, results[place][0].size))  # fmt: skip
        for place in wrong:
            case, outcome = results[place]
            failed = failed_report(check.full, case, outcome)
            if failed is None:
                results[place] = (case, outcome._replace(state="right"))
                continue
            smaller = _smaller(check, args, case)
            again = None if smaller is None else failed_report(check.full, *smaller)
            if smaller is not None and again is not None and cause_of(again) == cause_of(failed):
                results.append(smaller)
                failed, case = again, smaller[0]
            return swept_report(failed, results, case)
        return swept_report(report, results, None)


def _outcome(check: _Check, case: Case) -> Outcome | None:
    """Return what is found in a case; ``None`` where the case isn't one for a whole check."""
    plain = check.forward(case) if check.rule is None else check.rule(case).plain
    if case.name != _GIVEN and divides_by_zero(plain, select_arguments(case.args)):
        return Outcome("rejected", "the function divides integers by 0")
    if check.rule is not None and not case.is_strided:
        try:
            found = judge(check.rule(case), case.args, case.cotangent)
            return _refused(case, found)
        except CannotTrace:
            pass
    if case.cotangent or case.name == _GIVEN:
        return None
    try:
        report = check.full(case)
    except Exception as error:  # whatever the caller's functions raise
        return _refused(case, outcome_of_error(check.forward(case), select_arguments(case.args), error))
    wrong = next((leaf for leaf in (*report.leaves, *report.steps) if not leaf.ok), None)
    state: Literal["right", "wrong"] = "right" if report.ok else "wrong"
    return Outcome(state, "" if report.ok else report.reason, report.leaves, cause=wrong.cause if wrong else None)


def _refused(case: Case, found: Outcome) -> Outcome:
    """Return a rejection where the function or its backward pass isn't made for the axes, and ``found`` otherwise.

    JAX's own error about the shape of a rule's gradient is a fault: the function takes the axes.
    """
    is_other_output = any(leaf.path.startswith("output") and not leaf.ok for leaf in found.leaves)
    raises = found.state == "wrong" and not found.leaves and "bwd rule must" not in found.detail
    if (case.is_broadcast and is_other_output) or (case.is_optional and raises):
        return Outcome("rejected", f"not made for these axes: {found.detail}")
    return found


def _smaller(check: _Check, args: tuple, case: Case) -> tuple[Case, Outcome] | None:
    """Return a smaller case that fails too: with one changed axis, and 2 in the places of the others."""
    best: tuple[Case, Outcome] | None = None
    changed = case.sizes
    if not changed:
        return None

    def attempt(sizes):
        nonlocal best, changed
        words = ", ".join(f"an axis of {new} in the place of {old}" for old, new in sizes)
        tried = Case(words, resized(args, dict(sizes)), case.options, sizes=tuple(sizes))
        outcome = _outcome(check, tried)
        if outcome is not None and outcome.state == "wrong":
            best, changed = (tried, outcome), tuple(sizes)
            return True
        return False

    if len(changed) > 1:
        any(attempt((pair,)) for pair in case.sizes)
    for size in axis_sizes(args):
        if size > 2 and size not in dict(changed):
            attempt((*changed, (size, 2)))
    return best


def _forward(layer: Layer, train: bool, key: Any, x: Any) -> PyTree:
    params, state = layer.init(jax.random.key(0))
    return layer.forward(params, state, x, train=train, key=key)[0]


def _name_of(function: Callable[..., Any]) -> str:
    inner = function.func if isinstance(function, partial) else function
    return getattr(inner, "__name__", type(inner).__name__)


def sweep_of_marker(marker: Any) -> Sweep:
    """Return the sweep of ``@pytest.mark.gradcheck_sweep``, the default one without a marker.

    Raises:
        TypeError: the marker has other arguments than shapes, dtypes and options, by their names.
    """
    if marker is None:
        return Sweep()
    unknown = sorted(set(marker.kwargs) - set(Sweep._fields))
    if marker.args or unknown:
        raise TypeError(
            f"gradcheck_sweep: expected the keywords shapes, dtypes and options, got {[*marker.args, *unknown]!r}. "
            "Write @pytest.mark.gradcheck_sweep(shapes=[(4, 8), (5, 8)], dtypes=['float32', 'bfloat16'])."
        )
    return Sweep(**marker.kwargs)


def is_cause(word: str) -> bool:
    """Whether a word names a cause of a report, such as ``"scaled"``."""
    return word in get_args(Cause)
