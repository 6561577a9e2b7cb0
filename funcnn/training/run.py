"""The data of a run: what stays the same while it lasts, and the state that its steps change."""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
from jax import Array

from funcnn.health import HealthReport
from funcnn.training.batches import ArrayBatches, StreamBatches
from funcnn.training.early_stopping import EarlyStopping
from funcnn.training.interrupts import Interrupts
from funcnn.training.observers import Observe
from funcnn.training.pace import Pace, first_pace
from funcnn.training.results import HistoryBuilder, Progress, Trained, as_trained, empty_history
from funcnn.training.steps import Carry, TrainingSetup
from funcnn.training.store import Store
from funcnn.types import Params, State


class Best(NamedTuple):
    """The parameters with the best validation figure, and how many validations since then were not better."""

    figure: float
    waited: int
    params: Params
    state: State


class RunState(NamedTuple):
    """The state of a run between two steps. A checkpoint holds all of it but ``pace``.

    Fields:
        carry: parameters, running statistics and optimizer state.
        position: steps done.
        epoch: whole epochs done.
        history: the measurements so far.
        best: the best validation so far, with early stopping.
        pace: the most steps of the next stretch.
        is_over: whether training has stopped before its last epoch.
    """

    carry: Carry
    position: int
    epoch: int
    history: HistoryBuilder
    best: Best | None
    pace: Pace
    is_over: bool


class Run(NamedTuple):
    """What stays the same while a run lasts.

    Fields:
        setup: model, loss, optimizer and how a step is computed.
        batches: the source of the batches.
        epochs: passes over the data.
        validate: ``(carry) -> figures``, ``None`` without validation data.
        validate_every: epochs between two validations.
        early_stopping: its settings, ``None`` for none.
        callbacks: functions of ``Progress``, called after every epoch.
        store: the checkpoints, ``None`` for none.
        save_every: steps between two checkpoints, ``None`` for one after every epoch.
        identity: what a checkpoint is compared with, as JSON.
        observers: functions of a ``LoopEvent``.
        interrupts: the signals that the run has received.
        start_time: ``time.monotonic()`` at the start.
        diagnose: from the history to a health report, ``None`` without monitoring.
    """

    setup: TrainingSetup
    batches: ArrayBatches | StreamBatches
    epochs: int
    validate: Callable[[Carry], dict[str, Array]] | None
    validate_every: int
    early_stopping: EarlyStopping | None
    callbacks: tuple[Callable[[Progress], Any], ...]
    store: Store | None
    save_every: int | None
    identity: dict[str, Any]
    observers: tuple[Observe, ...]
    interrupts: Interrupts
    start_time: float
    diagnose: Callable[[HistoryBuilder], HealthReport] | None

    @property
    def stops_every_epoch(self) -> bool:
        return bool(self.callbacks or self.observers) or (self.store is not None and self.save_every is None)


def initial_state(carry: Carry, program: Hashable) -> RunState:
    """Return the state of a run before its first step. ``program`` identifies its compiled step."""
    copied_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(carry))
    return RunState(carry, 0, 0, empty_history(), None, first_pace(program, copied_bytes), False)


def result(run: Run, at: RunState) -> Trained:
    """Return the result of a run: the best parameters with early stopping, the newest ones without."""
    carry, best = at.carry, at.best
    if best is not None:
        carry = carry._replace(params=best.params, state=best.state)
    health = run.diagnose(at.history) if run.diagnose and at.history.monitored else None
    return as_trained(carry, at.history.finish()._replace(health=health))
