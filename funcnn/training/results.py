"""The results of training: the history, the trained parameters, and the progress that callbacks receive."""

from typing import NamedTuple

import jax
import numpy as np
import optax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from funcnn.health import HealthReport
from funcnn.training.batches import Stretch
from funcnn.training.steps import Carry, Figures
from funcnn.types import Params, State


class History(NamedTuple):
    """The measurements of a run.

    Fields:
        loss: mean loss of each epoch's batches, weighted by their sizes, ``(epochs,)``.
        step_loss: loss of every batch before its update, ``(epochs, steps)``; NaN after the last batch of an
            epoch that has fewer batches than another.
        validation: by name, ``(validations,)``: ``loss`` and the metrics given to ``fit``; empty without validation
            data.
        validation_epochs: the epochs, from 1, after which it was measured, ``(validations,)``.
        health: the report of ``fit(monitor=True)``, ``None`` without it.
    """

    loss: Float[Array, " epochs"]
    step_loss: Float[Array, "epochs steps"]
    validation: dict[str, Array]
    validation_epochs: Int[Array, " validations"]
    health: HealthReport | None = None


class Trained(NamedTuple):
    """The result of training: parameters, running statistics, optimizer state and history."""

    params: Params
    state: State
    opt_state: optax.OptState
    history: History


class Progress(NamedTuple):
    """What a callback receives after every epoch.

    Fields:
        epoch: epochs done, from 1.
        epochs: epochs of the whole run.
        loss: the epoch's mean training loss.
        validation: the newest validation figures by name.
        params, state: the parameters and running statistics after this epoch.
        step: steps done, over all epochs.
        seconds: time since training began.
    """

    epoch: int
    epochs: int
    loss: float
    validation: dict[str, float]
    params: Params
    state: State
    step: int
    seconds: float


class HistoryBuilder(NamedTuple):
    """The measurements so far, on the host: lists that grow, from which the history is made at the end.

    Fields:
        losses: of every step.
        sizes: samples of every step.
        ends: the position, in steps, at which each epoch ended.
        validation: figures by name.
        validation_epochs: the epochs after which they were measured.
        monitored: the numbers of the monitored steps.
        figures: by name, the measurements of every layer at these steps, ``(steps, layers)``.
    """

    losses: list[np.ndarray]
    sizes: list[np.ndarray]
    ends: list[int]
    validation: dict[str, list]
    validation_epochs: list[int]
    monitored: list[np.ndarray]
    figures: dict[str, list[np.ndarray]]

    def newest_epoch_loss(self) -> float:
        """Return the mean loss over the samples of the newest whole epoch."""
        first, last = (self.ends[-2] if len(self.ends) > 1 else 0), self.ends[-1]
        losses, sizes = _newest(self.losses, last - first), _newest(self.sizes, last - first)
        return float((losses.astype(np.float64) * sizes).sum() / sizes.sum())

    def add(self, stretch: Stretch, done: int) -> None:
        """Add the first ``done`` steps of a stretch."""
        is_whole = done == len(stretch.losses)
        position = 0 if is_whole else sum(map(len, self.losses)) + done
        self.losses.append(stretch.losses[:done])
        self.sizes.append(stretch.sizes[:done])
        self.ends.extend(stretch.ends if is_whole else [end for end in stretch.ends if end <= position])
        if stretch.figures:
            kept = len(stretch.monitored) if is_whole else int((stretch.monitored < position).sum())
            self.monitored.append(stretch.monitored[:kept])
            for name, figures in named_figures(stretch.figures).items():
                self.figures.setdefault(name, []).append(figures if is_whole else figures[:kept])

    def lengths(self) -> dict[str, int]:
        """Return what ``cut`` takes to remove all that is added from now on."""
        return {name: len(kept) for name, kept in self._lists().items()}

    def cut(self, lengths: dict[str, int]) -> None:
        """Remove what was added since ``lengths`` was taken."""
        for name, kept in self._lists().items():
            del kept[lengths.get(name, 0) :]
        for figures in (self.validation, self.figures):
            for name in [name for name, kept in figures.items() if not kept]:
                del figures[name]

    def _lists(self) -> dict[str, list]:
        plain = {name: kept for name, kept in self._asdict().items() if isinstance(kept, list)}
        return (
            plain
            | {f"validation.{name}": kept for name, kept in self.validation.items()}
            | {f"figures.{name}": kept for name, kept in self.figures.items()}
        )

    def finish(self) -> History:
        """Return the history, with a row for every epoch.

        Arrays are put where they belong, for ``jnp.asarray`` compiles a program for each shape: after Ctrl-C that waits
        for the compilation that the signal came in.
        """
        losses, sizes = _concatenate(self.losses), _concatenate(self.sizes)
        validated = jax.device_put(np.array(self.validation_epochs, np.int32))
        if not len(losses):
            return History(jax.device_put(np.zeros(0)), jax.device_put(np.zeros((0, 0))), {}, validated)
        ends = self.ends if self.ends and self.ends[-1] == len(losses) else [*self.ends, len(losses)]
        starts = np.array([0, *ends[:-1]], int)
        counts = np.array(ends, int) - starts
        is_step = np.arange(counts.max())[None, :] < counts[:, None]
        rows, weights = np.full(is_step.shape, np.nan, losses.dtype), np.zeros(is_step.shape)
        rows[is_step], weights[is_step] = losses, sizes
        sums = (rows.astype(np.float64) * weights).sum(axis=1, where=is_step)
        means = (sums / np.maximum(weights.sum(axis=1), 1)).astype(losses.dtype)
        validation = {name: jax.device_put(np.stack(figures)) for name, figures in self.validation.items()}
        return History(jax.device_put(means), jax.device_put(rows), validation, validated)


def named_figures(figures: Figures) -> dict[str, np.ndarray]:
    return {**figures.measures._asdict(), "update_ratios": figures.update_ratios}


def empty_history() -> HistoryBuilder:
    return HistoryBuilder([], [], [], {}, [], [], {})


def scanned_history(step_losses: Array, sizes: np.ndarray) -> History:
    """Return the history of losses ``(epochs, steps)``, under tracing too."""
    shares = jnp.asarray(sizes / sizes.sum(), step_losses.dtype)
    nothing = jnp.zeros(0, jnp.int32)
    return History((step_losses * shares[None, :]).sum(axis=-1), step_losses, {}, nothing)


def as_trained(carry: Carry, history: History) -> Trained:
    return Trained(*carry, history=history)


def _concatenate(pieces):
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def _newest(pieces, count):
    kept = []
    for piece in reversed(pieces):
        kept.append(piece)
        count -= len(piece)
        if count <= 0:
            break
    return _concatenate(kept[::-1])[max(-count, 0) :]
