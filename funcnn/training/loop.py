"""The loop around the compiled stretches of ``fit``: what happens between two of them, and where a run stands."""

import signal
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
from jax import Array

from funcnn.health import HealthReport
from funcnn.training.checkpoints import Store, as_text, expected_leaf, from_text, named_leaves, with_leaves
from funcnn.training.divergence import DivergenceError, are_finite, last_finite, measured_sizes, told
from funcnn.training.feeds import ArrayFeed, StreamFeed, Stretch
from funcnn.training.results import Ledger, Progress, Trained, as_trained, new_ledger
from funcnn.training.steps import Carry, Recipe
from funcnn.training.watchers import Moment, Tell
from funcnn.types import Params, State

QUICK, SLOW = 0.1, 0.4
"""Seconds between two looks of a progress bar: a stretch that is quicker is lengthened, one that is slower halved."""


class Best(NamedTuple):
    """The parameters that did best on the validation data, and for how many validations nothing was better."""

    figure: float
    waited: int
    params: Params
    state: State


class Standing(NamedTuple):
    """Where a run stands: all that a checkpoint has to hold, and the pace, which a run finds anew.

    Fields:
        position: steps done.
        epoch: whole epochs done.
        pace: steps between two looks of a progress bar.
        is_over: whether training has stopped before its last epoch.
    """

    carry: Carry
    position: int
    epoch: int
    ledger: Ledger
    best: Best | None
    pace: int
    is_over: bool


class Early(NamedTuple):
    """When to stop early: after ``patience`` validations in which the figure ``watch`` didn't get ``better``."""

    patience: int
    watch: str
    better: Literal["lower", "higher"]

    def is_better(self, figure: float, best: float) -> bool:
        """Whether a figure beats the best so far; any number beats NaN."""
        return np.isnan(best) > np.isnan(figure) or (figure < best if self.better == "lower" else figure > best)


class Run(NamedTuple):
    """What stays the same while a run lasts."""

    recipe: Recipe
    feed: ArrayFeed | StreamFeed
    epochs: int
    validate: Callable[[Carry], dict[str, Array]] | None
    validate_every: int
    early: Early | None
    callbacks: tuple[Callable[[Progress], Any], ...]
    store: Store | None
    save_every: int | None
    configuration: dict[str, Any]
    tells: tuple[Tell, ...]
    has_bar: bool
    interrupted: Callable[[], int]
    began: float
    diagnose: Callable[[Ledger], HealthReport] | None

    @property
    def looks_every_epoch(self) -> bool:
        return bool(self.callbacks or self.tells) or (self.store is not None and self.save_every is None)


def begun(carry: Carry) -> Standing:
    """A run before its first step."""
    return Standing(carry, 0, 0, new_ledger(), None, 1, False)


def carried_out(run: Run, standing: Standing) -> Standing:
    """The run from where it stands to its end.

    Raises:
        DivergenceError: a loss or a parameter wasn't finite.
        KeyboardInterrupt, SystemExit: Ctrl-C or SIGTERM came, and the run is saved.
    """
    while standing.epoch < run.epochs and not standing.is_over:
        began = time.monotonic()
        stretch = run.feed.run(standing.carry, standing.position, _next_stop(run, standing))
        if not np.isfinite(stretch.losses).all() or not are_finite(stretch.carry.params):
            raise _diverged(run, standing, stretch)
        standing = _after(run, standing, stretch, time.monotonic() - began)
        came = run.interrupted()
        if run.store is not None and (came or _is_save_due(run, standing, stretch)):
            save(run, run.store, standing)
        if run.store is not None and came:
            run.store.wait()
            word = f"training was interrupted after step {standing.position}, which is saved; run it again to go on"
            raise KeyboardInterrupt(word) if came == signal.SIGINT else SystemExit(128 + came)
    return standing


def _next_stop(run: Run, standing: Standing) -> int:
    """The next position at which something outside the compiled loop has to happen."""
    position, steps = standing.position, run.feed.steps
    stops = [position + standing.pace] if run.has_bar or run.store else []  # Ctrl-C doesn't wait long for a save
    if run.save_every:
        stops.append((position // run.save_every + 1) * run.save_every)
    if steps is not None:
        stops.append(run.epochs * steps)
        if run.looks_every_epoch:
            stops.append((standing.epoch + 1) * steps)
        if run.validate:
            stops.append((standing.epoch // run.validate_every + 1) * run.validate_every * steps)
    return min(stops, default=position + 2**30)


def longest_stretch(
    steps: int, epochs: int, looks_every_epoch: bool, validate_every: int | None, save_every: int | None
) -> int:
    """The most steps between two stops; it doesn't depend on where a run began again."""
    limits = [epochs * steps]
    limits += [steps] if looks_every_epoch else []
    limits += [validate_every * steps] if validate_every else []
    limits += [save_every] if save_every else []
    return min(limits)


def _after(run: Run, standing: Standing, stretch: Stretch, seconds: float) -> Standing:
    """Where the run stands after a stretch; validation, early stopping and whoever looks on."""
    ledger = standing.ledger
    ledger.add(stretch, len(stretch.losses))
    pace = standing.pace * 2 if seconds < QUICK else max(standing.pace // 2, 1) if seconds > SLOW else standing.pace
    standing = standing._replace(
        carry=stretch.carry, position=standing.position + len(stretch.losses),
        epoch=standing.epoch + len(stretch.ends), pace=pace,
    )  # fmt: skip
    ended = None
    if stretch.ends:
        if run.validate and (standing.epoch % run.validate_every == 0 or standing.epoch == run.epochs):
            standing = _validated(run, run.validate(standing.carry), standing)
        if run.callbacks or run.tells:
            ended = _progress(run, standing)
    moment = Moment(standing.position, standing.epoch, float(stretch.losses[-1]), ended)
    for tell in run.tells:
        tell(moment)
    if ended is not None:
        answers = [callback(ended) for callback in run.callbacks]
        standing = standing._replace(is_over=standing.is_over or any(map(_is_true, answers)))
    return standing


def _is_true(answer: Any) -> bool:
    return isinstance(answer, bool | np.bool_) and bool(answer)


def _validated(run: Run, measured: dict[str, Array], standing: Standing) -> Standing:
    for name, value in measured.items():
        standing.ledger.validation.setdefault(name, []).append(np.asarray(value))
    standing.ledger.validated.append(standing.epoch)
    if run.early is None:
        return standing
    figure, best = float(measured[run.early.watch]), standing.best
    if best is None or run.early.is_better(figure, best.figure):
        return standing._replace(best=Best(figure, 0, standing.carry.params, standing.carry.state))
    best = best._replace(waited=best.waited + 1)
    return standing._replace(best=best, is_over=best.waited >= run.early.patience)


def _progress(run: Run, standing: Standing) -> Progress:
    ledger, carry = standing.ledger, standing.carry
    newest = {name: float(figures[-1]) for name, figures in ledger.validation.items()}
    return Progress(
        standing.epoch, run.epochs, ledger.newest_epoch_loss(), newest, carry.params, carry.state,
        standing.position, time.monotonic() - run.began,
    )  # fmt: skip


def _diverged(run: Run, standing: Standing, stretch: Stretch) -> DivergenceError:
    """The error, with the last finite parameters, which are also saved."""
    broken = np.flatnonzero(~np.isfinite(stretch.losses))
    stop = standing.position + (int(broken[0]) if broken.size else len(stretch.losses))
    carry, position = last_finite(run.feed.again, standing.carry, standing.position, stop)
    sizes = measured_sizes(run.recipe, carry, *run.feed.batch_at(position))
    ledger = standing.ledger
    ledger.add(stretch, position - standing.position)
    standing = standing._replace(carry=carry, position=position, epoch=len(ledger.ends))
    if run.store is not None and position:
        save(run, run.store, standing)
        run.store.wait()
    step, epoch = position + 1, standing.epoch + 1
    saved = position if run.store is not None and position else None
    return DivergenceError(
        told(run.recipe.loss, sizes, step, epoch, saved), step, epoch, left(run, standing._replace(best=None)), sizes
    )


def left(run: Run, standing: Standing) -> Trained:
    """What a run leaves where it stands: the best parameters, where some were kept, and else the newest."""
    carry, best, ledger = standing.carry, standing.best, standing.ledger
    if best is not None:
        carry = carry._replace(params=best.params, state=best.state)
    health = run.diagnose(ledger) if run.diagnose and ledger.watched else None
    return as_trained(carry, ledger.history()._replace(health=health))


def _is_save_due(run: Run, standing: Standing, stretch: Stretch) -> bool:
    is_last = standing.epoch == run.epochs or standing.is_over
    return is_last or (bool(stretch.ends) if run.save_every is None else standing.position % run.save_every == 0)


def save(run: Run, store: Store, standing: Standing) -> None:
    """Write a checkpoint of where the run stands."""
    ledger, best = standing.ledger, standing.best
    history = {"losses": np.concatenate(ledger.losses), "sizes": np.concatenate(ledger.sizes).astype(np.int32)}
    history |= {f"validation.{name}": np.stack(figures) for name, figures in ledger.validation.items()}
    if ledger.watched:
        history["watched"] = np.concatenate(ledger.watched).astype(np.int32)
        history |= {f"figures.{name}": np.concatenate(figures) for name, figures in ledger.figures.items()}
    arrays = _named(standing.carry)
    if best is not None:
        arrays |= named_leaves("best.params", best.params) | named_leaves("best.state", best.state)
    grown = {f"history.{name}": array for name, array in history.items()}
    about = {
        "configuration": run.configuration,
        "epoch": standing.epoch,
        "ends": ledger.ends,
        "validated": ledger.validated,
        "reading": as_text(run.feed.reading(standing.position)),
        "best": None if best is None else [best.figure, best.waited],
        "is_over": standing.is_over,
    }
    store.save(standing.position, arrays, grown, about)


def resumed(run: Run, fresh: Standing) -> Standing:
    """Where the newest checkpoint says that the run stands; ``fresh`` where there is none.

    Raises:
        CheckpointError: it is damaged, or of another run.
    """
    if run.store is None:
        return fresh
    expected = {name: expected_leaf(leaf) for name, leaf in _named(fresh.carry).items()}
    best_leaves = named_leaves("best.params", fresh.carry.params) | named_leaves("best.state", fresh.carry.state)
    maybe = {name: expected_leaf(leaf) for name, leaf in best_leaves.items()}
    saved = run.store.newest(expected, maybe, run.configuration)
    if saved is None:
        return fresh
    arrays, about = saved
    carry = Carry(
        with_leaves("params", fresh.carry.params, arrays),
        with_leaves("state", fresh.carry.state, arrays),
        with_leaves("opt_state", fresh.carry.opt_state, arrays),
    )
    best = None
    if about["best"] is not None:
        params = with_leaves("best.params", fresh.carry.params, arrays)
        figure, waited = about["best"]
        best = Best(figure, waited, params, with_leaves("best.state", fresh.carry.state, arrays))
    past = {
        name.removeprefix("history."): np.asarray(leaf) for name, leaf in arrays.items() if name.startswith("history.")
    }
    validation = {
        name.removeprefix("validation."): list(figures)
        for name, figures in past.items()
        if name.startswith("validation.")
    }
    figures = {name.removeprefix("figures."): [of] for name, of in past.items() if name.startswith("figures.")}
    watched = [past["watched"].astype(int)] if "watched" in past else []
    ledger = Ledger(
        [past["losses"]], [past["sizes"].astype(int)], about["ends"], validation, about["validated"], watched, figures
    )  # fmt: skip
    position, epoch = about["step"], about["epoch"]
    if epoch > run.epochs:
        raise ValueError(f"fit(epochs): expected at least the {epoch} that the checkpoint has done, got {run.epochs}.")
    if isinstance(run.feed, StreamFeed):
        run.feed.skip_to(epoch, position - (ledger.ends[-1] if ledger.ends else 0), from_text(about["reading"]))
    return fresh._replace(
        carry=carry, position=position, epoch=epoch, ledger=ledger, best=best, is_over=about["is_over"]
    )  # fmt: skip


def _named(carry: Carry) -> dict[str, Array]:
    parts = (named_leaves(field, tree) for field, tree in carry._asdict().items())
    return {name: leaf for part in parts for name, leaf in part.items()}


def checked_early(
    patience: int | None, watch: str, better: Any, measured: Iterable[str], has_validation: bool
) -> Early | None:
    """When to stop early; ``None`` for never.

    Raises:
        ValueError: there is nothing to watch.
    """
    if patience is None and (watch, better) != ("loss", "lower"):
        raise ValueError(
            "fit(watch, better): expected them with patience alone, which judges by them; pass patience=…."
        )
    if better not in ("lower", "higher"):
        raise ValueError(f"fit(better): expected 'lower' or 'higher', got {better!r}.")
    known = ("loss", *measured)
    if watch not in known:
        raise ValueError(f"fit(watch): expected one of the validation figures {known}, got {watch!r}.")
    if patience is None:
        return None
    if not has_validation:
        raise ValueError("fit(patience): expected validation data to judge by; pass validation=(x, y).")
    return Early(patience, watch, better)
