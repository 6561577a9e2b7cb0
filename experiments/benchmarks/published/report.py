"""What a published report is: a source, the mistake rebuilt, its right twin, and the usual test of its project."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.catalogue.case import BOTH, CAUSES as CAUSES, Case

PLACES = frozenset({"element", "unit"})
"""Those that say where a gradient is wrong, not why."""


class Rule(NamedTuple):
    """A function of any output, a backward rule written by hand, and the point where the two are checked.

    Fields:
        name: in snake_case, unique in the set.
        theme: the heading under which it is counted.
        function: ``(params, *args) -> array``.
        vjp: ``(params, cotangent, *args) -> gradients``, a tree like ``params``, with the published mistake.
        right: the rule without the mistake.
        make: ``(dtype) -> (params, args)``, the same numbers in every dtype; no argument in args is floating.
        causes: what a diagnosis may call the mistake: what it is, and by the facts where it is (some entries, or whole
            rows or columns).
        leaf: the path of the parameter at which the cause is judged; ``None`` for any leaf that fails.
        dtypes: the dtypes in which the mistake exists.
        autodiff_differs: the point has no derivative, and autodiff follows a convention there.
        is_registered: the rule is checked as a ``jax.custom_vjp``, as it was published.
    """

    name: str
    theme: str
    function: Callable[..., Any]
    vjp: Callable[..., Any]
    right: Callable[..., Any]
    make: Callable[[str], tuple[Any, tuple]]
    causes: frozenset[str]
    leaf: str | None = None
    dtypes: tuple[str, ...] = BOTH
    autodiff_differs: bool = False
    is_registered: bool = False


class UsualTest(NamedTuple):
    """The test by which the project itself judged the gradient, rebuilt at small sizes.

    Fields:
        description: the inputs, the cotangent and the tolerances of the test, in a few words.
        evidence: where the description comes from: the report's own thread, the project's test file, or an
            assumption from what the report says that the tests missed.
        make: ``(dtype) -> (params, args)``, the values of the test; ``None`` for the report's.
        dtype: the dtype of the test.
        cotangent: from the output to the cotangent of a rule.
        rtol: relative tolerance.
        atol: absolute tolerance.
        leaves: the parameters whose gradients are compared; ``None`` for all.
        function: the function or loss of the test, where it is another than the report's.
        gradient: its rule or gradient, with the mistake.
        expected: ``(params, cotangent, *args) -> gradients`` that the test has stored; ``None`` for autodiff's.
    """

    description: str
    evidence: Literal["thread", "test file", "assumed"]
    make: Callable[[str], tuple[Any, tuple]] | None = None
    dtype: str = "float32"
    cotangent: Callable[[Any], Any] = jnp.ones_like
    rtol: float = 1e-5
    atol: float = 1e-8
    leaves: tuple[str, ...] | None = None
    function: Callable[..., Any] | None = None
    gradient: Callable[..., Any] | None = None
    expected: Callable[..., Any] | None = None


class Report(NamedTuple):
    """A wrong gradient that was reported in public.

    Fields:
        case: the mistake, as a loss with its gradient or as a rule.
        source: ``owner/repository#number``.
        title: the report's own title.
        usual: the test of the project; ``None`` where no test of this gradient is known.
    """

    case: Case | Rule
    source: str
    title: str
    usual: UsualTest | None = None

    @property
    def url(self) -> str:
        """The address of the report; GitHub redirects it where the number is a pull request's."""
        repository, number = self.source.split("#")
        return f"https://github.com/{repository}/issues/{number}"


def passes_usual_test(report: Report) -> bool | None:
    """Return whether the mistake passes its project's own test, or ``None`` where no such test is known."""
    usual, case = report.usual, report.case
    if usual is None:
        return None
    params, args = (usual.make or case.make)(usual.dtype)
    if isinstance(case, Rule):
        function, rule = usual.function or case.function, usual.gradient or case.vjp
        output, pullback = jax.vjp(lambda params: function(params, *args), params)
        cotangent = usual.cotangent(output)
        found = rule(params, cotangent, *args)
        wanted = usual.expected(params, cotangent, *args) if usual.expected else pullback(cotangent)[0]
    else:
        found = (usual.gradient or case.grad_fn)(params, *args)
        wanted = jax.grad(usual.function or case.loss_fn)(params, *args)
    names = usual.leaves or tuple(wanted)
    return all(np.allclose(found[name], wanted[name], rtol=usual.rtol, atol=usual.atol) for name in names)


def pullback_of(rule: Rule, vjp: Callable) -> Callable:
    """Return the rule as ``check_vjp`` takes it: ``(params, *args) -> (output, pullback)``."""

    def with_pullback(params, *args):
        def pullback(cotangent):
            return (vjp(params, cotangent, *args), *(None for _ in args))

        return rule.function(params, *args), pullback

    return with_pullback


def registered(rule: Rule, vjp: Callable) -> Callable:
    """Return the function with the rule registered by ``jax.custom_vjp``."""
    function = jax.custom_vjp(rule.function)

    def forward(params, *args):
        return rule.function(params, *args), (params, args)

    def backward(residuals, cotangent):
        params, args = residuals
        return (vjp(params, cotangent, *args), *(None for _ in args))

    function.defvjp(forward, backward)
    return function


def random_like(output):
    """Standard normal numbers of the output's shape and dtype."""
    return jnp.asarray(np.random.default_rng(7).normal(size=output.shape), output.dtype)


def named(dtype: str, seed: int, **shapes: tuple[int, ...]) -> dict[str, Any]:
    """Standard normal arrays by name, the same numbers in every dtype."""
    generator = np.random.default_rng(seed)
    return {name: jnp.asarray(generator.normal(size=shape), dtype) for name, shape in shapes.items()}
