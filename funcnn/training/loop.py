"""The loop around the compiled steps of ``fit``: validation, early stopping, callbacks, checkpoints, divergence."""

import signal
import time
from typing import Any

import numpy as np
from jax import Array

from funcnn.training.batches import Stretch
from funcnn.training.divergence import DivergenceError, are_finite, divergence_message, last_finite, measure_sizes
from funcnn.training.early_stopping import is_improvement
from funcnn.training.observers import LoopEvent
from funcnn.training.results import Progress
from funcnn.training.resume import save
from funcnn.training.run import Best, Run, RunState, result

QUICK, SLOW = 0.1, 0.4
"""Seconds between two updates of a progress bar: quicker stretches of steps get longer, slower ones shorter."""


def run_to_end(run: Run, at: RunState) -> RunState:
    """Run the steps that are left.

    Raises:
        DivergenceError: a loss or a parameter is not finite.
        KeyboardInterrupt, SystemExit: Ctrl-C or SIGTERM was received, and the run is saved.
    """
    while at.epoch < run.epochs and not at.is_over:
        start_time = time.monotonic()
        stretch = run.batches.run(at.carry, at.position, _next_stop(run, at))
        if not np.isfinite(stretch.losses).all() or not are_finite(stretch.carry.params):
            raise _divergence(run, at, stretch)
        at = _advance(run, at, stretch, time.monotonic() - start_time)
        number = run.received_signal()
        if run.store is not None and (number or _is_save_due(run, at, stretch)):
            save(run, run.store, at)
        if run.store is not None and number:
            run.store.wait()
            message = f"training was interrupted after step {at.position}, which is saved; run it again to go on"
            raise KeyboardInterrupt(message) if number == signal.SIGINT else SystemExit(128 + number)
    return at


def longest_stretch(
    steps: int, epochs: int, stops_every_epoch: bool, validate_every: int | None, save_every: int | None
) -> int:
    """Return the most steps between two stops. It does not depend on where a run resumes."""
    limits = [epochs * steps]
    limits += [steps] if stops_every_epoch else []
    limits += [validate_every * steps] if validate_every else []
    limits += [save_every] if save_every else []
    return min(limits)


def _next_stop(run: Run, at: RunState) -> int:
    """Return the next position at which something outside the compiled loop is due."""
    position, steps = at.position, run.batches.steps
    stops = [position + at.pace] if run.has_bar or run.store else []  # short enough for Ctrl-C to save soon
    if run.save_every:
        stops.append((position // run.save_every + 1) * run.save_every)
    if steps is not None:
        stops.append(run.epochs * steps)
        if run.stops_every_epoch:
            stops.append((at.epoch + 1) * steps)
        if run.validate:
            stops.append((at.epoch // run.validate_every + 1) * run.validate_every * steps)
    return min(stops, default=position + 2**30)


def _advance(run: Run, at: RunState, stretch: Stretch, seconds: float) -> RunState:
    """Return the state after a stretch of steps: validate, stop early, call observers and callbacks."""
    at.history.add(stretch, len(stretch.losses))
    pace = at.pace * 2 if seconds < QUICK else max(at.pace // 2, 1) if seconds > SLOW else at.pace
    at = at._replace(
        carry=stretch.carry, position=at.position + len(stretch.losses), epoch=at.epoch + len(stretch.ends), pace=pace
    )
    progress = None
    if stretch.ends:
        if run.validate and (at.epoch % run.validate_every == 0 or at.epoch == run.epochs):
            at = _add_validation(run, run.validate(at.carry), at)
        if run.callbacks or run.observers:
            progress = _progress(run, at)
    event = LoopEvent(at.position, at.epoch, float(stretch.losses[-1]), progress)
    for observe in run.observers:
        observe(event)
    if progress is not None:
        answers = [callback(progress) for callback in run.callbacks]
        at = at._replace(is_over=at.is_over or any(map(_is_true, answers)))
    return at


def _is_true(answer: Any) -> bool:
    return isinstance(answer, bool | np.bool_) and bool(answer)


def _add_validation(run: Run, figures: dict[str, Array], at: RunState) -> RunState:
    for name, value in figures.items():
        at.history.validation.setdefault(name, []).append(np.asarray(value))
    at.history.validation_epochs.append(at.epoch)
    if run.early_stopping is None:
        return at
    patience, monitor, mode = run.early_stopping
    figure, best = float(figures[monitor]), at.best
    if best is None or is_improvement(mode, figure, best.figure):
        return at._replace(best=Best(figure, 0, at.carry.params, at.carry.state))
    best = best._replace(waited=best.waited + 1)
    return at._replace(best=best, is_over=best.waited >= patience)


def _progress(run: Run, at: RunState) -> Progress:
    newest = {name: float(figures[-1]) for name, figures in at.history.validation.items()}
    return Progress(
        at.epoch, run.epochs, at.history.newest_epoch_loss(), newest, at.carry.params, at.carry.state,
        at.position, time.monotonic() - run.start_time,
    )  # fmt: skip


def _divergence(run: Run, at: RunState, stretch: Stretch) -> DivergenceError:
    """Return the error with the last finite parameters, and save these."""
    broken = np.flatnonzero(~np.isfinite(stretch.losses))
    stop = at.position + (int(broken[0]) if broken.size else len(stretch.losses))
    carry, position = last_finite(run.batches.replay, at.carry, at.position, stop)
    sizes = measure_sizes(run.setup, carry, *run.batches.batch_at(position))
    at.history.add(stretch, position - at.position)
    at = at._replace(carry=carry, position=position, epoch=len(at.history.ends))
    if run.store is not None and position:
        save(run, run.store, at)
        run.store.wait()
    step, epoch = position + 1, at.epoch + 1
    saved = position if run.store is not None and position else None
    message = divergence_message(run.setup.loss, sizes, step, epoch, saved)
    return DivergenceError(message, step, epoch, result(run, at._replace(best=None)), sizes)


def _is_save_due(run: Run, at: RunState, stretch: Stretch) -> bool:
    is_last = at.epoch == run.epochs or at.is_over
    return is_last or (bool(stretch.ends) if run.save_every is None else at.position % run.save_every == 0)
