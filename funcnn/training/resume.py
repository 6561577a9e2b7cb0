"""Saving the state of a run in a checkpoint, and resuming a run from one."""

from typing import Any

import numpy as np
from jaxtyping import Array

from funcnn.training.batches import ArrayBatches, StreamBatches
from funcnn.training.checkpoints import Store, as_text, expected_leaf, from_text, named_leaves, with_leaves
from funcnn.training.results import HistoryBuilder
from funcnn.training.run import Best, Run, RunState
from funcnn.training.steps import Carry


def save(run: Run, store: Store, at: RunState) -> None:
    """Write a checkpoint of the state of a run."""
    history, best = at.history, at.best
    grown = {"losses": np.concatenate(history.losses), "sizes": np.concatenate(history.sizes).astype(np.int32)}
    grown |= {f"validation.{name}": np.stack(figures) for name, figures in history.validation.items()}
    if history.monitored:
        grown["monitored"] = np.concatenate(history.monitored).astype(np.int32)
        grown |= {f"figures.{name}": np.concatenate(figures) for name, figures in history.figures.items()}
    arrays = _named(at.carry)
    if best is not None:
        arrays |= named_leaves("best.params", best.params) | named_leaves("best.state", best.state)
    description = {
        "configuration": run.configuration,
        "epoch": at.epoch,
        "ends": history.ends,
        "validation_epochs": history.validation_epochs,
        "reader_state": as_text(run.batches.reader_state(at.position)),
        "best": None if best is None else [best.figure, best.waited],
        "is_over": at.is_over,
    }
    store.save(at.position, arrays, {f"history.{name}": array for name, array in grown.items()}, description)


def resume(
    store: Store | None, configuration: dict[str, Any], batches: ArrayBatches | StreamBatches, epochs: int,
    initial: RunState,
) -> RunState:  # fmt: skip
    """Return the state in the newest checkpoint, or ``initial`` where there is none.

    Args:
        store: the checkpoints.
        configuration: what a checkpoint is compared with.
        batches: the source of the batches, which an iterable's reader is moved on in.
        epochs: epochs of the run.
        initial: the state before the first step.

    Raises:
        CheckpointError: it is damaged, or of another run.
        ValueError: it has more epochs than the run.
    """
    if store is None:
        return initial
    expected = {name: expected_leaf(leaf) for name, leaf in _named(initial.carry).items()}
    best_leaves = named_leaves("best.params", initial.carry.params) | named_leaves("best.state", initial.carry.state)
    optional = {name: expected_leaf(leaf) for name, leaf in best_leaves.items()}
    saved = store.newest(expected, optional, configuration)
    if saved is None:
        return initial
    arrays, description = saved
    carry = Carry(*(with_leaves(field, tree, arrays) for field, tree in initial.carry._asdict().items()))
    history = _saved_history(arrays, description)
    position, epoch = description["step"], description["epoch"]
    if epoch > epochs:
        raise ValueError(f"fit(epochs): expected at least the {epoch} that the checkpoint has done, got {epochs}.")
    if isinstance(batches, StreamBatches):
        begin = history.ends[-1] if history.ends else 0
        batches.skip_to(epoch, position - begin, from_text(description["reader_state"]))
    return initial._replace(
        carry=carry, position=position, epoch=epoch, history=history, is_over=description["is_over"],
        best=_saved_best(initial.carry, arrays, description),
    )  # fmt: skip


def _saved_best(carry: Carry, arrays: dict[str, Array], description: dict[str, Any]) -> Best | None:
    if description["best"] is None:
        return None
    params, state = (with_leaves(f"best.{field}", getattr(carry, field), arrays) for field in ("params", "state"))
    figure, waited = description["best"]
    return Best(figure, waited, params, state)


def _saved_history(arrays: dict[str, Array], description: dict[str, Any]) -> HistoryBuilder:
    past = {name: np.asarray(leaf) for name, leaf in _with_prefix("history.", arrays).items()}
    return HistoryBuilder(
        losses=[past["losses"]],
        sizes=[past["sizes"].astype(int)],
        ends=description["ends"],
        validation={name: list(figures) for name, figures in _with_prefix("validation.", past).items()},
        validation_epochs=description["validation_epochs"],
        monitored=[past["monitored"].astype(int)] if "monitored" in past else [],
        figures={name: [figures] for name, figures in _with_prefix("figures.", past).items()},
    )


def _with_prefix(prefix, arrays):
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _named(carry: Carry) -> dict[str, Array]:
    parts = (named_leaves(field, tree) for field, tree in carry._asdict().items())
    return {name: leaf for part in parts for name, leaf in part.items()}
