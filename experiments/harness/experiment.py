"""Experiments: claims, and parts that measure and judge them. ``Experiment.run`` is pure."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax

import funcnn as fnn
from experiments.harness.claims import Claim, ClaimResult
from experiments.harness.figures import Figure

GRADIENTS = {"manual": fnn.manual_value_and_grad, "autodiff": fnn.autodiff_value_and_grad}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of every experiment. The quick and the full run differ only in seeds and steps."""

    full: bool = False
    """Run the full measurement; without it a quick one with fewer seeds and steps."""
    seeds: int | None = None
    """Number of seeds of every claim; by default each claim's own."""
    seed: int = 0
    """The seed of all random keys."""
    grad: Literal["manual", "autodiff"] = "manual"
    """Gradients for training: the hand-written backward passes, or jax.grad."""

    def __post_init__(self):
        if self.seeds is not None and self.seeds < 2:
            raise ValueError(f"--seeds: expected 2 or more (an interval needs two values), got {self.seeds}.")

    def seeds_of(self, claim: Claim) -> int:
        """Return the number of seeds of a claim."""
        return self.seeds or (claim.seeds if self.full else claim.quick_seeds)

    def keys_of(self, claim: Claim) -> jax.Array:
        """Return a random key for each of the claim's seeds."""
        return jax.random.split(jax.random.key(self.seed), self.seeds_of(claim))

    def steps(self, *, quick: int, full: int) -> int:
        """Return the number of steps, epochs or points for the quick or the full run."""
        return full if self.full else quick

    @property
    def value_and_grad(self) -> Callable[[fnn.Layer, fnn.Loss], fnn.GradFn]:
        return GRADIENTS[self.grad]


class Table(NamedTuple):
    """A table of the report. Numbers are aligned right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    caption: str = ""


class Outcome(NamedTuple):
    """The outcome of a part of an experiment.

    Fields:
        results: the results of the part's claims.
        text: a description in paragraphs, separated by empty lines.
        board: a worked calculation, shown as preformatted text.
    """

    results: tuple[ClaimResult, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    text: str = ""
    board: str = ""


class Part(NamedTuple):
    """A part of an experiment, measured, stored and shown as a unit."""

    title: str
    claims: tuple[Claim, ...]
    measure: Callable[[Settings], Outcome]


def experiment_part(title: str, *claims: Claim) -> Callable[[Callable[[Settings], Outcome]], Part]:
    """Return a decorator that makes a part of a function, with a title and the claims that it judges."""

    def as_part(measure: Callable[[Settings], Outcome]) -> Part:
        return Part(title, claims, measure)

    return as_part


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A topic: an introduction and the parts that measure its claims.

    Fields:
        name: the name of its script.
        order: its place in the report, the chapter's section before the point (9: the mistakes, 10: why networks
            matter). Without it the topic comes last.
        introduction: the question and the method, in paragraphs separated by empty lines.
        precision: the floating dtype of all computations.
    """

    name: str
    title: str
    introduction: str
    parts: tuple[Part, ...]
    order: float = math.inf
    precision: Literal["float32", "float64"] = "float32"

    @property
    def claims(self) -> tuple[Claim, ...]:
        return tuple(claim for part in self.parts for claim in part.claims)

    def run(self, settings: Settings) -> "ExperimentResult":
        return ExperimentResult(self, settings, tuple(run_part(self, part, settings) for part in self.parts))


class ExperimentResult(NamedTuple):
    """The outcomes of an experiment's parts."""

    experiment: Experiment
    settings: Settings
    outcomes: tuple[Outcome, ...]

    @property
    def results(self) -> tuple[ClaimResult, ...]:
        return tuple(result for outcome in self.outcomes for result in outcome.results)


def run_part(experiment: Experiment, part: Part, settings: Settings) -> Outcome:
    """Run a part in the experiment's precision, and check that it judged exactly its own claims."""
    with jax_option("jax_enable_x64", experiment.precision == "float64"):
        outcome = part.measure(settings)
    judged = [result.claim.name for result in outcome.results]
    if sorted(judged) != sorted(claim.name for claim in part.claims):
        raise ValueError(f"{experiment.name}, {part.title!r}: expected verdicts on its own claims, got {judged}.")
    return outcome


@contextmanager
def jax_option(option: str, value: bool) -> Iterator[None]:
    """Set one of JAX's options within the block."""
    before = jax.config.read(option)
    jax.config.update(option, value)
    try:
        yield
    finally:
        jax.config.update(option, before)


class WrongGradientError(AssertionError):
    """A model's backward pass isn't the derivative of its forward."""


# Parts of an experiment train equal models: one check per process is enough.
_CHECKED_MODELS: set[tuple] = set()


def checked_value_and_grad(
    settings: Settings,
    model: fnn.Layer,
    loss: fnn.Loss,
    batch: tuple[jax.Array, jax.Array],
    *,
    key: jax.Array | None = None,
    **given,
) -> Callable[[fnn.Layer, fnn.Loss], fnn.GradFn]:
    """Return the settings' gradients, for ``fnn.train(grad=…)``, after checking the model's own.

    Every experiment gets its gradients here before it trains. Hand-written ones are checked by ``fnn.check_model`` on
    the batch; a few samples are enough.

    Args:
        settings: the settings of the run.
        model, loss, batch, key: as for ``fnn.check_model``.
        given: ``params`` and ``state`` where they aren't the model's initial ones.

    Raises:
        WrongGradientError: the backward pass is wrong. The message holds the report.
    """
    x, y = batch
    checked = (model, loss, x.shape, x.dtype, y.shape)
    if settings.grad == "manual" and (given or checked not in _CHECKED_MODELS):
        # A check compiles two hundred small programs and runs each once: optimizing them would take longer.
        with jax_option("jax_disable_most_optimizations", True):
            report = fnn.check_model(model, loss, (x, y), key=key, **given)
        if not report.ok:
            raise WrongGradientError(f"The hand-written gradients are wrong; nothing was trained.\n\n{report}")
        _CHECKED_MODELS.add(checked)
    return settings.value_and_grad
