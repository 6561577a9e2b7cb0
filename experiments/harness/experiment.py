"""What an experiment is: claims, and parts that measure and judge them. ``run(settings) -> Result`` is pure."""

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
    """What every experiment can be told. The quick and the full run differ in seeds and steps, in nothing else."""

    full: bool = False
    """The whole measurement; without it a quick one, of fewer seeds and steps."""
    seeds: int | None = None
    """Seeds of every claim; none given, each claim takes its own number."""
    seed: int = 0
    """Where every random key begins."""
    grad: Literal["manual", "autodiff"] = "manual"
    """Whose gradients train: the backward passes written by hand, or jax.grad."""

    def __post_init__(self):
        if self.seeds is not None and self.seeds < 2:
            raise ValueError(f"--seeds: expected 2 or more (an interval needs two values), got {self.seeds}.")

    def seeds_of(self, claim: Claim) -> int:
        return self.seeds or (claim.seeds if self.full else claim.quick_seeds)

    def keys_of(self, claim: Claim) -> jax.Array:
        """A random key for each of the claim's seeds."""
        return jax.random.split(jax.random.key(self.seed), self.seeds_of(claim))

    def steps(self, *, quick: int, full: int) -> int:
        """Steps, epochs, points on an axis: whatever the quick run has fewer of."""
        return full if self.full else quick

    @property
    def value_and_grad(self) -> Callable[[fnn.Layer, fnn.Loss], fnn.GradFn]:
        return GRADIENTS[self.grad]


class Table(NamedTuple):
    """Figures in rows; numbers are set flush right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    caption: str = ""


class Outcome(NamedTuple):
    """What a part of an experiment found.

    Fields:
        results: the verdicts on the claims that the part settles.
        text: what was seen, in a paragraph or a few (an empty line between them).
        board: steps worked through, number by number, set as they are typed.
    """

    results: tuple[ClaimResult, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    text: str = ""
    board: str = ""


class Part(NamedTuple):
    """A piece of an experiment that is measured, kept and shown as one."""

    title: str
    claims: tuple[Claim, ...]
    measure: Callable[[Settings], Outcome]


def experiment_part(title: str, *claims: Claim) -> Callable[[Callable[[Settings], Outcome]], Part]:
    """Make a part of a function: its title, and the claims that it judges."""

    def as_part(measure: Callable[[Settings], Outcome]) -> Part:
        return Part(title, claims, measure)

    return as_part


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A topic: its question, its claims, its parts.

    Fields:
        name: the name of its script.
        order: its place in the report, the chapter's section before the point (9: the mistakes, 10: why networks
            matter). Without one it comes last, by its name.
        introduction: what is asked, and how the answer is sought, in a paragraph or a few.
        precision: the floating dtype of everything.
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
    """An experiment's outcomes, part by part."""

    experiment: Experiment
    settings: Settings
    outcomes: tuple[Outcome, ...]

    @property
    def results(self) -> tuple[ClaimResult, ...]:
        return tuple(result for outcome in self.outcomes for result in outcome.results)


def run_part(experiment: Experiment, part: Part, settings: Settings) -> Outcome:
    """Run one part in the experiment's precision, and see that it judged just the claims it says."""
    with jax_option("jax_enable_x64", experiment.precision == "float64"):
        outcome = part.measure(settings)
    judged = [result.claim.name for result in outcome.results]
    if sorted(judged) != sorted(claim.name for claim in part.claims):
        raise ValueError(f"{experiment.name}, {part.title!r}: expected verdicts on its own claims, got {judged}.")
    return outcome


@contextmanager
def jax_option(option: str, value: bool) -> Iterator[None]:
    """One of JAX's options, for as long as the block lasts."""
    before = jax.config.read(option)
    jax.config.update(option, value)
    try:
        yield
    finally:
        jax.config.update(option, before)


class WrongGradientError(AssertionError):
    """A model's backward pass isn't the derivative of its forward: what it would learn proves nothing."""


# The parts of an experiment train equal models: one check a process is enough.
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
    """The settings' gradients, for ``fnn.train(grad=…)``, once the model's own are seen to be right.

    Every experiment asks for its gradients here, before it trains: with those by hand, ``fnn.check_model`` has to find
    nothing on the batch (a few samples are enough); a wrong backward pass stops the experiment with the report.
    ``given`` are ``params`` and ``state`` where they aren't the model's initial ones.
    """
    x, y = batch
    asked = (model, loss, x.shape, x.dtype, y.shape)
    if settings.grad == "manual" and (given or asked not in _CHECKED_MODELS):
        # A check compiles two hundred small programs and runs each once: making them fast would take longer.
        with jax_option("jax_disable_most_optimizations", True):
            report = fnn.check_model(model, loss, (x, y), key=key, **given)
        if not report.ok:
            raise WrongGradientError(f"The gradients written by hand are wrong; nothing was trained.\n\n{report}")
        _CHECKED_MODELS.add(asked)
    return settings.value_and_grad
