"""The loop around the compiled steps of ``fit``: validation, early stopping, callbacks, checkpoints, divergence."""

import time

import numpy as np
from jax import Array

from funcnn.training.batches import Stretch
from funcnn.training.callbacks import is_end
from funcnn.training.divergence import (
    DivergenceError,
    are_finite,
    check_rest_is_finite,
    divergence_message,
    last_finite,
    measure_sizes,
)
from funcnn.training.early_stopping import is_improvement
from funcnn.training.errors import attach_result, interruption
from funcnn.training.observers import LoopEvent
from funcnn.training.pace import MOST_STEPS
from funcnn.training.results import Progress, Trained
from funcnn.training.resume import save
from funcnn.training.run import Best, Run, RunState, result


def run_to_end(run: Run, at: RunState) -> Trained:
    """Run the steps that are left, and return the result.

    Raises:
        DivergenceError: a loss or a parameter is not finite; at the end, any other array of the result.
        CheckpointError: the last checkpoint could not be written.
        KeyboardInterrupt, SystemExit: Ctrl-C or SIGTERM was received.
        BaseException: a callback or the source of the batches raised it. Every error has the result so far.
    """
    began = at.position
    try:
        while at.epoch < run.epochs and not at.is_over:
            run.interrupts.check()
            start_time = time.monotonic()
            stretch = run.batches.run(at.carry, at.position, _next_stop(run, at), is_brief=at.pace.is_brief)
            if not np.isfinite(stretch.losses).all() or not are_finite(stretch.carry.params):
                raise _divergence(run, at, stretch)
            at = _advance(run, at, stretch, time.monotonic() - start_time)
            at = _report(run, at, stretch)
            if run.store is not None and _is_save_due(run, at, stretch):
                save(run, run.store, at)
        run.interrupts.check()
        if run.store is not None:
            run.store.finish()
        trained = result(run, at)
        run.interrupts.check()
        if at.position > began:
            check_rest_is_finite(run.setup, at.carry, at.position, at.epoch, trained)
    except BaseException as error:
        _end_early(run, at, error)
        raise
    return trained


def _end_early(run: Run, at: RunState, error: BaseException) -> None:
    """Attach the result so far to the error that ends a run, and save it after a signal."""
    if isinstance(error, DivergenceError):
        return
    message = interruption(at.position)
    if run.interrupts.number and run.store is not None and at.position:
        save(run, run.store, at)
        failure = run.store.wait()
        message += f", which could not be saved: {failure}" if failure else ", which is saved; run it again to go on"
    if isinstance(error, KeyboardInterrupt) and not error.args:
        error.args = (message,)
    attach_result(error, result(run, at))


def longest_stretch(
    steps: int, epochs: int, stops_every_epoch: bool, validate_every: int | None, save_every: int | None
) -> int:
    """Return the most steps between two stops. It does not depend on where a run resumes."""
    limits = [epochs * steps, MOST_STEPS]
    limits += [steps] if stops_every_epoch else []
    limits += [validate_every * steps] if validate_every else []
    limits += [save_every] if save_every else []
    return min(limits)


def _next_stop(run: Run, at: RunState) -> int:
    """Return the next position at which something outside the compiled loop is due."""
    position, steps = at.position, run.batches.steps
    stops = [position + at.pace.steps]
    if run.save_every:
        stops.append((position // run.save_every + 1) * run.save_every)
    if steps is not None:
        stops.append(run.epochs * steps)
        if run.stops_every_epoch:
            stops.append((at.epoch + 1) * steps)
        if run.validate:
            stops.append((at.epoch // run.validate_every + 1) * run.validate_every * steps)
    return min(stops)


def _advance(run: Run, at: RunState, stretch: Stretch, seconds: float) -> RunState:
    """Return the state after a stretch of steps and the validation that is due. An error leaves the state unchanged."""
    lengths, count = at.history.lengths(), len(stretch.losses)
    at.history.add(stretch, count)
    at = at._replace(
        carry=stretch.carry, position=at.position + count, epoch=at.epoch + len(stretch.ends),
        pace=at.pace.after(count, seconds),
    )  # fmt: skip
    is_due = at.epoch % run.validate_every == 0 or at.epoch == run.epochs
    if not (stretch.ends and run.validate and is_due):
        return at
    try:
        return _add_validation(run, run.validate(at.carry), at)
    except BaseException:
        at.history.cut(lengths)
        raise


def _report(run: Run, at: RunState, stretch: Stretch) -> RunState:
    """Call the observers and, after an epoch, the callbacks. Return the state with their answers."""
    has_progress = stretch.ends and (run.callbacks or run.observers)
    progress = _progress(run, at) if has_progress else None
    event = LoopEvent(at.position, at.epoch, float(stretch.losses[-1]), progress)
    for observe in run.observers:
        observe(event)
    if progress is None or not run.callbacks:
        return at
    with run.interrupts.at_once():
        answers = [is_end(callback, callback(progress)) for callback in run.callbacks]
    return at._replace(is_over=at.is_over or any(answers))


def _add_validation(run: Run, figures: dict[str, Array], at: RunState) -> RunState:
    for name, value in figures.items():
        at.history.validation.setdefault(name, []).append(np.array(value))
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
    step, epoch = position + 1, at.epoch + 1
    saved = position if run.store is not None and position and run.store.wait() is None else None
    message = divergence_message(run.setup.loss, sizes, step, epoch, saved)
    return DivergenceError(message, step, epoch, result(run, at._replace(best=None)), sizes)


def _is_save_due(run: Run, at: RunState, stretch: Stretch) -> bool:
    is_last = at.epoch == run.epochs or at.is_over
    return is_last or (bool(stretch.ends) if run.save_every is None else at.position % run.save_every == 0)
