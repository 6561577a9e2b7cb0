"""The GPT of ``experiments/language.py`` beside a twin in PyTorch: equal starts and batches, PyTorch's layers and Adam.

``python -m experiments.benchmarks.language_twin`` trains both for each seed and prints their losses on the test text.
It needs PyTorch.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name in PyTorch's documentation
import tyro
from rich.progress import Progress

import funcnn as fnn
from experiments.harness.console import console, progress_bar, table
from experiments.harness.runner import environment
from experiments.shared.characters import (
    NANO,
    Size,
    cut_windows,
    gpt_of,
    python_topics,
    window_drawer,
    window_losses,
)
from experiments.shared.fresh_batches import train_on_draws

COMMAND = "python -m experiments.benchmarks.language_twin"
CHUNK = 100  # windows that are predicted at once


@dataclass(frozen=True, kw_only=True)
class TwinSettings:
    """The GPT of the full run of the experiment on language, in funcnn and in PyTorch."""

    seeds: int = 3
    """The number of starts; the experiment has these."""
    steps: int = NANO.steps
    """Steps of training."""
    out: Path = Path("report/language_twin.json")
    """The file for the figures."""


def predict(params: dict[str, torch.Tensor], tokens: torch.Tensor, heads: int) -> torch.Tensor:
    """Return GPT-2's logits from funcnn's parameters by their paths: the same architecture, PyTorch's operations."""
    x = params["[0].table"][tokens] + params["[1].table"][: tokens.shape[1]]
    norm, attention, forward = "[2][0].inner[0]", "[2][0].inner[1]", "[2][1].inner"
    features = x.shape[-1]

    def normalize(x, path, layer=slice(None)):
        return F.layer_norm(x, (features,), params[f"{path}.scale"][layer], params[f"{path}.bias"][layer])

    def linear(x, path, layer):
        return x @ params[f"{path}.kernel"][layer] + params[f"{path}.bias"][layer]

    for layer in range(len(params[f"{norm}.scale"])):
        y = normalize(x, norm, layer)
        q, k, v = (
            linear(y, f"{attention}.{name}", layer).unflatten(-1, (heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + linear(y, f"{attention}.output", layer)
        y = linear(normalize(x, f"{forward}[0]", layer), f"{forward}[1]", layer)
        x = x + linear(F.gelu(y, approximate="tanh"), f"{forward}[3]", layer)
    return normalize(x, "[3]") @ params["[0].table"].T


def cross_entropy(logits: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.flatten(0, 1), following.flatten())


def train_twin(start: Any, batches: fnn.Batch, windows: torch.Tensor, size: Size, bar: Progress, title: str) -> float:
    """Return PyTorch's loss on the test windows after training from funcnn's start on funcnn's batches."""
    params = {
        jax.tree_util.keystr(path): torch.tensor(np.asarray(leaf)).requires_grad_()
        for path, leaf in jax.tree_util.tree_leaves_with_path(start)
    }
    optimizer = torch.optim.Adam(params.values(), lr=size.rate, eps=1e-8)
    tokens, following = (torch.tensor(np.asarray(part), dtype=torch.int64) for part in batches)
    for x, y in bar.track(zip(tokens, following, strict=True), total=len(tokens), description=title):
        optimizer.zero_grad()
        cross_entropy(predict(params, x, size.heads), y).backward()
        optimizer.step()
    with torch.no_grad():
        losses = [
            len(some) * cross_entropy(predict(params, some[:, :-1], size.heads), some[:, 1:]).item()
            for some in windows.split(CHUNK)
        ]
    return sum(losses) / len(windows)


def train_both(settings: TwinSettings, size: Size = NANO) -> list[dict[str, float]]:
    """Return the test losses of both for each seed, in nats."""
    text = python_topics()
    model = gpt_of(size, len(text.characters))
    draw = window_drawer(size.batch, size.context)
    source, windows = jnp.asarray(text.training), cut_windows(text.test, size.context, size.windows)
    keys = jax.random.split(jax.random.key(0), settings.seeds)

    def train_ours():
        trained = train_on_draws(
            keys, source, model=model, loss=fnn.softmax_cross_entropy, optimizer=fnn.adam(size.rate), draw=draw,
            steps=settings.steps, grad=fnn.manual_value_and_grad,
        )  # fmt: skip
        losses = window_losses(trained.params, trained.state, jnp.asarray(windows), model=model)
        return np.asarray(losses, float).mean((1, 2))

    @jax.jit
    def start_and_batches(key):
        init_key, batch_key = jax.random.split(key)
        step_keys = jax.random.split(batch_key, settings.steps)
        return model.init(init_key)[0], jax.vmap(lambda key: draw(key, source))(step_keys)

    found = []
    with progress_bar("steps") as bar:
        task = bar.add_task("funcnn, all seeds in one program", total=settings.steps * settings.seeds)
        ours = train_ours()
        bar.advance(task, settings.steps * settings.seeds)
        console.print(f"funcnn: {', '.join(f'{loss:.4f}' for loss in ours)} nats", highlight=False)
        for number, key in enumerate(keys):
            start_time, title = time.monotonic(), f"PyTorch, seed {number}"
            theirs = train_twin(*start_and_batches(key), torch.tensor(windows.astype(np.int64)), size, bar, title)
            found.append({"seed": number, "funcnn": float(ours[number]), "PyTorch": theirs})
            console.print(f"{title}: {theirs:.4f} nats, {time.monotonic() - start_time:.0f} s", highlight=False)
    return found


def run(settings: TwinSettings) -> list[dict[str, float]]:
    """Train both, print the losses side by side, and write them."""
    console.rule("[bold]A GPT beside its twin in PyTorch")
    found = train_both(settings)
    shown = table("seed", "funcnn", "PyTorch", "funcnn / PyTorch − 1")
    for row in found:
        ratio = row["funcnn"] / row["PyTorch"] - 1
        shown.add_row(str(row["seed"]), f"{row['funcnn']:.4f}", f"{row['PyTorch']:.4f}", f"{ratio:+.2%}")
    console.print(shown)
    about = {
        "command": COMMAND,
        "settings": asdict(settings),
        "environment": environment() | {"torch": torch.__version__},
        "nats": found,
    }
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    settings.out.write_text(json.dumps(about, indent=1, default=str), encoding="utf-8")
    console.print(f"written: {settings.out}", highlight=False)
    return found


if __name__ == "__main__":
    run(tyro.cli(TwinSettings, prog=COMMAND))
