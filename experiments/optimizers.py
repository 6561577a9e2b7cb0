"""Plain descent, momentum and Adam on the chapter's bowl and on harder surfaces, each at the best of many rates."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import funcnn as fnn
from experiments.harness.claims import Claim, Section, judge
from experiments.harness.experiment import Experiment, ExperimentResult, Outcome, Settings, Table, experiment_part
from experiments.harness.figures import Curve, Figure, lines, plane
from experiments.harness.runner import run_command_line
from experiments.shared.optimizer_choice import select_optimizer

BOWL_RANKING = Claim(
    name="optimizers-bowl-ranking",
    sentence="On x² + 3y² after 20 steps at rate 0.1, Adam is lowest, momentum second, plain descent last.",
    section=Section.EXAMPLES, statistic="exact", at_least=2,
    quantity="neighbours in that ranking, of 2, whose losses are so ordered",
)  # fmt: skip
MOMENTUM_OSCILLATES = Claim(
    name="optimizers-momentum-oscillations",
    sentence="On the chapter's own bowl momentum dampens oscillations.",
    section=Section.EXAMPLES, statistic="exact", at_most=0,
    quantity="sign changes of x and y in 20 steps at rate 0.1, momentum's minus plain descent's",
)  # fmt: skip
MOMENTUM_RAVINE = Claim(
    name="optimizers-momentum-ravine",
    sentence="In a narrow ravine momentum is faster than plain descent, each at its best rate.",
    section=Section.EXAMPLES, at_most=1, seeds=500, quick_seeds=100,
    quantity="steps to the goal, momentum's over plain descent's from the same start",
)  # fmt: skip
ADAM_FASTEST = Claim(
    name="optimizers-adam-fastest",
    sentence="With the best rate for each, Adam is the fastest of the three on most of five surfaces.",
    section=Section.EXAMPLES, at_least=0.5, seeds=500, quick_seeds=100,
    quantity="share of the surfaces on which no other needs fewer steps from a start",
)  # fmt: skip
ADAM_ROBUST = Claim(
    name="optimizers-adam-robust",
    sentence="Adam reaches the goals on these surfaces at a wider range of rates than plain descent does.",
    section=Section.EXAMPLES, at_least=0, seeds=500, quick_seeds=100,
    quantity="decades of rates that reach the goal, Adam's minus plain descent's, mean over the surfaces",
)  # fmt: skip
PLATEAU_SAME = Claim(
    name="optimizers-momentum-plateau",
    sentence="At the same rate, momentum leaves a flat region in at most half of plain descent's steps.",
    section=Section.DESCENT, at_most=0.5, seeds=500, quick_seeds=100,
    quantity="steps to the goal at rate 0.1, momentum's over plain descent's from the same start",
)  # fmt: skip
PLATEAU_BEST = Claim(
    name="optimizers-momentum-plateau-best",
    sentence="Momentum leaves a flat region sooner even where plain descent has its own best rate.",
    section=Section.DESCENT, at_most=1, seeds=500, quick_seeds=100,
    quantity="steps to the goal, each at its best rate, momentum's over plain descent's from the same start",
)  # fmt: skip
MINIMA_SAME = Claim(
    name="optimizers-momentum-minima",
    sentence="At the same rate, momentum rolls through local minima in which plain descent stays.",
    section=Section.DESCENT, at_least=0.1, seeds=500, quick_seeds=100,
    quantity="share of starts that end in the lowest basin at rate 0.1, momentum's minus plain descent's",
)  # fmt: skip
MINIMA_BEST = Claim(
    name="optimizers-momentum-minima-best",
    sentence="Momentum escapes local minima more often even where plain descent has its own best rate.",
    section=Section.DESCENT, at_least=0.1, seeds=500, quick_seeds=100,
    quantity="share of starts that end in the lowest basin, each at its best rate, momentum's minus plain descent's",
)  # fmt: skip

WALKERS = {"plain descent": fnn.sgd, "momentum": fnn.momentum, "Adam": fnn.adam}
CHAPTER_RATE, CHAPTER_STEPS = 0.1, 20
ADAM_RATE = 0.001


# Surfaces -------------------------------------------------------------------------------------------------------------


class Surface(NamedTuple):
    """A height over the plane, lowest at 0, with the goal, the distribution of starts, and the window that is drawn."""

    height: Callable[[jax.Array, jax.Array], jax.Array]
    goal: float
    start: Callable[[jax.Array], jax.Array]
    example: tuple[float, float]
    window: tuple[tuple[float, float], tuple[float, float]]
    levels: tuple[float, ...]


def _box(low: tuple[float, float], high: tuple[float, float]) -> Callable[[jax.Array], jax.Array]:
    return lambda key: jax.random.uniform(key, (2,), minval=jnp.array(low), maxval=jnp.array(high))


def _ring(key):
    angle, radius = jax.random.uniform(key, (2,), minval=jnp.array([0.0, 3.0]), maxval=jnp.array([2 * np.pi, 3.5]))
    return radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def _ridge(key):
    across, along = jax.random.normal(key, (2,))
    return jnp.stack([across, 0.001 * along])


SURFACES = {
    "bowl": Surface(
        lambda x, y: x**2 + 3 * y**2, 1e-3, _box((-5, -5), (5, 5)), (4, 3), ((-5, 5), (-4, 4)), (1, 5, 15, 30, 50)
    ),
    "Rosenbrock valley": Surface(
        lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2, 0.01, _box((-1.5, -0.5), (1.5, 2)), (-1.2, 1),
        ((-1.7, 1.7), (-0.7, 2.2)), (0.1, 1, 10, 50, 200),
    ),
    "saddle": Surface(
        lambda x, y: x**2 / 2 + (y**2 - 1) ** 2 / 4, 1e-3, _ridge, (1.2, 0.001), ((-1.6, 1.6), (-1.6, 1.6)),
        (0.02, 0.1, 0.25, 0.5, 1),
    ),
    "ravine": Surface(
        lambda x, y: (x**2 + 50 * y**2) / 2, 1e-3, _box((-10, -2), (10, 2)), (-9, 1.6), ((-10, 10), (-2.5, 2.5)),
        (1, 5, 20, 50, 100),
    ),
    "plateau": Surface(
        lambda x, y: 1 - jnp.exp(-(x**2 + y**2) / 2), 0.01, _ring, (-2.6, 1.8), ((-4, 4), (-4, 4)),
        (0.1, 0.4, 0.7, 0.9, 0.98),
    ),
    "ripples": Surface(
        lambda x, y: (x**2 + y**2) / 20 + (2 - jnp.cos(2 * np.pi * x) - jnp.cos(2 * np.pi * y)) / 20, 0.02,
        _box((-3, -3), (3, 3)), (2.7, -2.2), ((-3.3, 3.3), (-3.3, 3.3)), (0.05, 0.15, 0.3, 0.5, 0.8),
    ),
}  # fmt: skip
FIVE = tuple(SURFACES)[:5]
RATES = np.geomspace(1e-4, 10, 21)
STEPS = 500


def heights(points: jax.Array) -> jax.Array:
    """Return the heights of one point on every surface."""
    return jnp.stack([surface.height(*point) for surface, point in zip(SURFACES.values(), points, strict=True)])


def walk_surfaces(choice: jax.Array, rate: jax.Array, starts: jax.Array, after_step: Callable, beginning):
    """Take STEPS steps on all surfaces at once. They are independent, since the optimizers work entry by entry."""
    optimizer = select_optimizer(choice, [make(rate) for make in WALKERS.values()])

    def step(carry, number):
        points, state, seen = carry
        gradient = jax.grad(lambda points: heights(points).sum())(points)
        updates, state = optimizer.update(gradient, state, points)
        points = optax.apply_updates(points, updates)
        seen, shown = after_step(seen, points, number)
        return (points, state, seen), shown

    (_, _, seen), shown = jax.lax.scan(step, (starts, optimizer.init(starts), beginning), jnp.arange(1, STEPS + 1))
    return seen, shown


@jax.jit
@partial(jax.vmap, in_axes=(0, 0, None))
def walk_paths(choice, rate, starts):
    """Return the paths of several optimizers, ``(optimizers, STEPS + 1, surfaces, 2)``."""
    _, shown = walk_surfaces(choice, rate, starts, lambda seen, points, number: (seen, points), ())
    return jnp.concatenate([starts[None], shown])


@jax.jit
@partial(jax.vmap, in_axes=(0, None, None))
@partial(jax.vmap, in_axes=(None, 0, None))
@partial(jax.vmap, in_axes=(None, None, 0))
def steps_needed(choice, rate, starts):
    """Return the steps after which a walk stays at or below the goal; STEPS + 1 where it doesn't, or diverges."""
    goals = jnp.array([surface.goal for surface in SURFACES.values()])

    def last_above(last, points, number):
        return jnp.where(heights(points) <= goals, last, number), ()

    return walk_surfaces(choice, rate, starts, last_above, jnp.zeros(len(SURFACES), int))[0] + 1


class Race(NamedTuple):
    """Steps of every optimizer, rate and start on a surface, and the best rate by other starts.

    Fields:
        steps: of the starts that are judged, ``(optimizers, rates, starts)``.
        best: the index of each optimizer's best rate, ``(optimizers,)``.
    """

    steps: np.ndarray
    best: np.ndarray

    @property
    def at_best(self) -> np.ndarray:
        return np.stack([steps[best] for steps, best in zip(self.steps, self.best, strict=True)])

    @property
    def at_chapter_rate(self) -> np.ndarray:
        return self.steps[:, int(np.argmin(np.abs(RATES - CHAPTER_RATE)))]


def race_optimizers(settings: Settings, claim: Claim) -> dict[str, Race]:
    """Return every surface's race. The best rate has the fewest mean steps from starts that aren't judged."""

    def starts(key):
        keys = jax.random.split(key, len(SURFACES))
        return jnp.stack([surface.start(key) for surface, key in zip(SURFACES.values(), keys, strict=True)])

    keys = jax.vmap(partial(jax.random.split, num=2))(settings.keys_of(claim))
    steps = np.stack([
        steps_needed(jnp.arange(len(WALKERS)), jnp.asarray(RATES, jnp.result_type(float)), jax.vmap(starts)(half))
        for half in (keys[:, 0], keys[:, 1])
    ])  # fmt: skip
    best = steps[0].mean(axis=2).argmin(axis=1)
    return {name: Race(steps[1, ..., i], best[:, i]) for i, name in enumerate(SURFACES)}


def example_starts() -> jax.Array:
    return jnp.array([surface.example for surface in SURFACES.values()], jnp.result_type(float))


def surface_panel(name: str, ways: dict[str, np.ndarray], subtitle: str):
    surface = SURFACES[name]
    across, up = (np.linspace(*side, 90) for side in surface.window)
    return plane(
        np.asarray(surface.height(*np.meshgrid(across, up))), across=across, up=up, x="x", y="y", subtitle=subtitle,
        levels=surface.levels, paths=ways, points={"start": [surface.example]},
    )  # fmt: skip


@experiment_part("The chapter's own bowl", BOWL_RANKING, MOMENTUM_OSCILLATES)
def chapter_bowl(settings: Settings) -> Outcome:
    rates = jnp.full(len(WALKERS), CHAPTER_RATE)
    found = np.asarray(walk_paths(jnp.arange(len(WALKERS)), rates, example_starts()))[:, : CHAPTER_STEPS + 1, 0]
    ways = dict(zip(WALKERS, found, strict=True))
    losses = {name: np.asarray(SURFACES["bowl"].height(*way.T)) for name, way in ways.items()}
    final = {name: loss[-1] for name, loss in losses.items()}
    changes = {name: int((way[1:] * way[:-1] < 0).sum()) for name, way in ways.items()}
    ordered = (final["Adam"] < final["momentum"]) + (final["momentum"] < final["plain descent"])
    summary = ", ".join(f"{name} {value:.4g}" for name, value in final.items())
    curves = {name: Curve(np.arange(CHAPTER_STEPS + 1), loss) for name, loss in losses.items()}
    figure = Figure(
        title="Paths of three optimizers over x² + 3y², and loss by step",
        alternative=f"Left: the ways of three optimizers over the ellipses of x² + 3y² from (4, 3). Plain descent runs "
        f"into the middle, momentum swings around it, Adam is still on its way. Right: the loss by step; after 20 "
        f"steps {summary}.",
        panels=(
            surface_panel("bowl", ways, "20 steps from (4, 3) at rate 0.1"),
            lines(curves, x="step", y="loss", log="y", points=True),
        ),
        caption="The chapter's settings: rate 0.1, momentum 0.9, β₁ 0.9, β₂ 0.999, ε 10⁻⁸.",
    )  # fmt: skip
    text = f"""After 20 steps the losses are {summary}: plain descent, the last in the chapter's ranking, is far ahead.
Adam's step is about the learning rate in size, whatever the gradient: 20 steps of 0.1 are a way of 2, and the goal is 4
away. Momentum adds up ten gradients and overshoots: it changes the sign of x or y {changes["momentum"]} times, plain
descent {changes["plain descent"]} times. The rate suits none
of them; the next part gives each its own best rate."""
    return Outcome(
        results=(
            judge(BOWL_RANKING, [ordered], f"after 20 steps: {summary}"),
            judge(MOMENTUM_OSCILLATES, [changes["momentum"] - changes["plain descent"]]),
        ),
        figures=(figure,),
        text=text,
    )  # fmt: skip


@experiment_part("Five surfaces, each optimizer at its best rate", ADAM_FASTEST, ADAM_ROBUST, MOMENTUM_RAVINE)
def five_surfaces(settings: Settings) -> Outcome:
    races = race_optimizers(settings, ADAM_FASTEST)
    first = np.stack([races[name].at_best[2] <= races[name].at_best[:2].min(axis=0) for name in FIVE])
    decades = np.stack([(races[name].steps <= STEPS).sum(axis=1) * 0.25 for name in FIVE]).mean(axis=0)
    plain, momentum, _ = races["ravine"].at_best
    ways = best_paths(races)
    means = {name: races[name].at_best.mean(axis=1) for name in FIVE}
    winners = {name: tuple(WALKERS)[int(means[name].argmin())] for name in FIVE}
    panels = tuple(surface_panel(name, ways[name], f"{name}; first on average: {winners[name]}") for name in FIVE)
    summary = "; ".join(
        f"{name}: " + ", ".join(f"{walker} {mean:.0f}" for walker, mean in zip(WALKERS, means[name], strict=True))
        for name in FIVE
    )
    default = {name: (races[name].steps[2, np.argmin(np.abs(RATES - ADAM_RATE))] <= STEPS).mean() for name in FIVE}
    figures = (
        Figure(
            title="Paths over five surfaces, each optimizer at its best rate",
            alternative=f"Ways over the contours of five surfaces. Mean steps to the goal — {summary}.",
            panels=panels,
            caption=f"The best of {len(RATES)} rates for every optimizer and surface, by the mean steps from starts "
            "that aren't judged.",
        ),
        Figure(
            title="Steps to the goal by learning rate, on five surfaces",
            alternative="Mean steps to the goal against the learning rate, a curve for each optimizer and a panel for "
            f"each surface. Every curve is a valley of one or two decades. Lowest points — {summary}.",
            panels=tuple(rate_panel(name, races[name]) for name in FIVE),
            caption=f"A walk that doesn't reach the goal in {STEPS} steps, or diverges, counts {STEPS + 1}.",
        ),
    )
    rows = tuple(
        (name, walker, f"{RATES[races[name].best[i]]:.3g}", f"{means[name][i]:.1f}", f"{races[name].at_best[i].max()}")
        for name in FIVE
        for i, walker in enumerate(WALKERS)
    )
    tally = ", ".join(f"{winners[name]} on the {name}" for name in FIVE)
    text = f"""First on average at its own best rate is {tally}; Adam is first, or as fast as the first, on
{first.mean():.0%} of surfaces and starts. The goals are reached at {decades[2].mean():.2f} decades of rates by Adam and
at {decades[0].mean():.2f} by plain descent. In the ravine, where the steep side bounds plain descent's rate, momentum
needs {momentum.mean():.0f} steps and plain descent {plain.mean():.0f}.

With the default rate of 0.001, Adam reaches the goal within {STEPS} steps from
{np.mean(list(default.values())):.0%} of the starts: the rate is about the length of a step, and 0.001 suits the weights
of a network, not a walk over several units."""
    return Outcome(
        results=(
            judge(ADAM_FASTEST, first.mean(axis=0)),
            judge(ADAM_ROBUST, decades[2] - decades[0]),
            judge(MOMENTUM_RAVINE, momentum / plain),
        ),
        figures=figures,
        tables=(Table("Steps to the goal", ("surface", "optimizer", "best rate", "mean steps", "most steps"), rows),),
        text=text,
    )  # fmt: skip


def best_paths(races: dict[str, Race]) -> dict[str, dict[str, np.ndarray]]:
    """Return the paths from the example's start to where the walk stays at the goal."""
    ways = {}
    for number, (name, surface) in enumerate(SURFACES.items()):
        rates = jnp.asarray(RATES[races[name].best], jnp.result_type(float))
        found = np.asarray(walk_paths(jnp.arange(len(WALKERS)), rates, example_starts()))[:, :, number]
        above = [np.flatnonzero(~(surface.height(*way.T) <= surface.goal)) for way in found]
        ends = [last[-1] + 2 if last.size else 1 for last in above]
        ways[name] = {walker: way[:end] for walker, way, end in zip(WALKERS, found, ends, strict=True)}
    return ways


def rate_panel(name: str, found: Race):
    curves = {walker: Curve(RATES, steps.mean(axis=1)) for walker, steps in zip(WALKERS, found.steps, strict=True)}
    return lines(curves, x="learning rate", y="mean steps", log="x", subtitle=name)


@experiment_part("Flat regions and local minima", PLATEAU_SAME, PLATEAU_BEST, MINIMA_SAME, MINIMA_BEST)
def flat_and_wavy(settings: Settings) -> Outcome:
    races = race_optimizers(settings, PLATEAU_SAME)
    rates = jnp.full(len(WALKERS), CHAPTER_RATE)
    ways = np.asarray(walk_paths(jnp.arange(len(WALKERS)), rates, example_starts()))[:, :, -1]
    plateau, ripples = races["plateau"], races["ripples"]
    same, best = (steps[1] / steps[0] for steps in (plateau.at_chapter_rate, plateau.at_best))
    reached = (ripples.steps <= STEPS).mean(axis=2)
    escaped_same, escaped_best = (steps <= STEPS for steps in (ripples.at_chapter_rate, ripples.at_best))
    shares = {walker: Curve(RATES, share) for walker, share in zip(WALKERS, reached, strict=True)}
    figure = Figure(
        title="Paths over ripples, and share of starts in the lowest basin by learning rate",
        alternative="Left: the three ways over a bowl with ripples at rate 0.1. Right: the share of starts "
        "that end in the lowest basin against the rate; the best shares are "
        + ", ".join(f"{walker} {share.max():.0%}" for walker, share in zip(WALKERS, reached, strict=True)) + ".",
        panels=(
            surface_panel("ripples", dict(zip(WALKERS, ways, strict=True)), f"all three at rate {CHAPTER_RATE}"),
            lines(shares, x="learning rate", y="share in the lowest basin", log="x"),
        ),
        caption=f"Ripples: (x² + y²)/20 + (2 − cos 2πx − cos 2πy)/20, from the square of side 6; {STEPS} steps.",
    )  # fmt: skip
    text = f"""Across the plateau momentum needs {same.mean():.2f} of plain descent's steps at the same rate of 0.1: its
velocity adds up small gradients that agree, ten times a single step in the end. With the best rate for each it needs
{best.mean():.2f} times as many: here nothing steep bounds the rate, so a larger one does for plain descent what
momentum does, and no velocity is left over at the goal.

Among the ripples, at rate 0.1, {escaped_same[1].mean():.1%} of momentum's starts end in the lowest basin and
{escaped_same[0].mean():.1%} of plain descent's; at the best rates {escaped_best[1].mean():.1%} and
{escaped_best[0].mean():.1%}, and {escaped_best[2].mean():.1%} for Adam. Rolling through is a matter of speed against
height: momentum leaves small dips, and stays in those that are deep for its rate."""
    return Outcome(
        results=(
            judge(PLATEAU_SAME, same),
            judge(PLATEAU_BEST, best),
            judge(MINIMA_SAME, escaped_same[1].astype(float) - escaped_same[0]),
            judge(MINIMA_BEST, escaped_best[1].astype(float) - escaped_best[0]),
        ),
        figures=(figure,),
        text=text,
    )


EXPERIMENT = Experiment(
    name="optimizers",
    order=7.2,
    title="Plain descent, momentum and Adam on surfaces",
    introduction="The chapter compares three optimizers on x² + 3y² and prints a ranking. Its run is repeated, then "
    "the three walk over a narrow valley, a saddle, a ravine, a plateau and ripples, from many starts and at many "
    "learning rates at once. We compare their steps to the goal, and the escape from flat regions and local minima.",
    parts=(chapter_bowl, five_surfaces, flat_and_wavy),
)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT)
