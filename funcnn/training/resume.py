"""Saving the state of a run in a checkpoint, and resuming a run from one."""

import contextlib
import itertools
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array

from funcnn.training.batches import ArrayBatches, StreamBatches
from funcnn.training.checkpoints import Checkpoints
from funcnn.training.errors import OtherRunError
from funcnn.training.named_leaves import as_text, expected_leaf, from_text, named_leaves, with_leaves
from funcnn.training.results import HistoryBuilder
from funcnn.training.run import Best, Run, RunState
from funcnn.training.run_identity import Identity, first_difference
from funcnn.training.steps import Carry
from funcnn.training.store import Store, open_store

STREAM_ADVICE = (
    "In every process, an epoch has to give the same batches in the same order. Where the order is random, pass a "
    "function of the epoch that draws it from the epoch's number, lambda epoch: batches(np.random.default_rng(epoch)). "
    "Where the data have changed, this is another run: use another folder, or "
    "Checkpoints(…, on_difference='restart'), which begins anew in a folder beside this one."
)


def save(run: Run, store: Store, at: RunState) -> None:
    """Write a checkpoint of the state of a run."""
    history, best = at.history, at.best
    grown = {"losses": np.concatenate(history.losses), "sizes": np.concatenate(history.sizes).astype(np.int32)}
    grown |= {f"validation.{name}": np.stack(figures) for name, figures in history.validation.items()}
    if history.monitored:
        grown["monitored"] = np.concatenate(history.monitored).astype(np.int32)
        grown |= {f"figures.{name}": np.concatenate(figures) for name, figures in history.figures.items()}
    # A run may have millions of epochs: their numbers are arrays, and the description stays short.
    numbers = {"ends": history.ends, "validation_epochs": history.validation_epochs}
    grown |= {name: np.array(kept, np.int32) for name, kept in numbers.items() if kept}
    arrays = _named(at.carry)
    if best is not None:
        arrays |= named_leaves("best.params", best.params) | named_leaves("best.state", best.state)
    description = {
        **run.identity,
        "epoch": at.epoch,
        "reader_state": as_text(run.batches.reader_state(at.position)),
        "best": None if best is None else [best.figure, best.waited],
        "is_over": at.is_over,
        "stream": run.batches.fingerprints(at.position, may_read=at.epoch < run.epochs and not run.interrupts.number),
    }
    store.save(at.position, arrays, {f"history.{name}": array for name, array in grown.items()}, description)


def open_and_resume(
    stack: contextlib.ExitStack, settings: Checkpoints, default_sharding: Sharding | None, identity: Identity,
    batches: ArrayBatches | StreamBatches, epochs: int, initial: RunState,
) -> tuple[Store, RunState]:  # fmt: skip
    """Open the folder of a run, and return it with the state in its newest checkpoint.

    Args:
        stack: closes the folder at its end.
        settings: the folder, and whether to begin in another one where the run in it differs.
        default_sharding: of arrays that are not part of the carry.
        identity: what a checkpoint is compared with.
        batches: the source of the batches, in which an iterable's reader is moved on.
        epochs: epochs of the run.
        initial: the state before the first step, returned where there is no checkpoint.

    Raises:
        CheckpointError: the newest checkpoint is damaged, or of another run; another run has the folder.
        ValueError: it has more epochs than the run.
    """
    first = Path(settings.folder)
    for number in itertools.count(1):
        folder = first if number == 1 else first.with_name(f"{first.name}-{number}")
        with contextlib.ExitStack() as inner:
            store = inner.enter_context(open_store(settings._replace(folder=folder), default_sharding))
            try:
                at = _resume(store, identity, batches, epochs, initial)
            except OtherRunError as error:
                if settings.on_difference == "refuse" or jax.process_count() > 1:
                    raise
                message = str(error)
            else:
                stack.push(inner.pop_all())
                return store, at
        warnings.warn(
            f"{message} on_difference='restart' goes on to the next folder, {first.name}-{number + 1}.", stacklevel=2
        )
    raise AssertionError("itertools.count ends")  # pragma: no cover


def _resume(store: Store, identity: Identity, batches, epochs: int, initial: RunState) -> RunState:
    """Return the state in the newest checkpoint, or ``initial`` where there is none."""
    expected = {name: expected_leaf(leaf) for name, leaf in _named(initial.carry).items()}
    best_leaves = named_leaves("best.params", initial.carry.params) | named_leaves("best.state", initial.carry.state)
    optional = {name: expected_leaf(leaf) for name, leaf in best_leaves.items()}
    saved = store.newest(expected, optional, lambda about: first_difference(about, expected, optional, identity))
    if saved is None:
        return initial
    arrays, description = saved
    carry = Carry(*(with_leaves(field, tree, arrays) for field, tree in initial.carry._asdict().items()))
    history = _saved_history(arrays)
    position, epoch = description["step"], description["epoch"]
    if epoch > epochs:
        raise ValueError(
            f"fit(epochs): expected at least the {epoch} that the checkpoint has done, got {epochs}. "
            f"Pass epochs={epoch} or more, or another folder for another run."
        )
    if isinstance(batches, StreamBatches):
        begin = history.ends[-1] if history.ends else 0
        batches.skip_to(epoch, position - begin, from_text(description["reader_state"]))
        if not batches.is_as_before(description["stream"], may_read=epoch < epochs and not description["is_over"]):
            batches.skip_to(0, 0, None)
            raise OtherRunError(
                f"fit(checkpoints): expected a checkpoint of this run in {store.folder}, got step {position} of "
                f"another: the stream's batches are others than in the checkpoint. {STREAM_ADVICE}"
            )
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


def _saved_history(arrays: dict[str, Array]) -> HistoryBuilder:
    past = {name: np.asarray(leaf) for name, leaf in _with_prefix("history.", arrays).items()}
    return HistoryBuilder(
        losses=[past["losses"]],
        sizes=[past["sizes"].astype(int)],
        ends=past["ends"].tolist() if "ends" in past else [],
        validation={name: list(figures) for name, figures in _with_prefix("validation.", past).items()},
        validation_epochs=past["validation_epochs"].tolist() if "validation_epochs" in past else [],
        monitored=[past["monitored"].astype(int)] if "monitored" in past else [],
        figures={name: [figures] for name, figures in _with_prefix("figures.", past).items()},
    )


def _with_prefix(prefix, arrays):
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _named(carry: Carry) -> dict[str, Array]:
    parts = (named_leaves(field, tree) for field, tree in carry._asdict().items())
    return {name: leaf for part in parts for name, leaf in part.items()}
