"""What the scripts share: their settings, the way they print, and where their pictures go."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import jax
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import funcnn as fnn
from experiments.distributed import is_first

console = Console()

GRADIENTS = {"manual": fnn.manual_value_and_grad, "autodiff": fnn.autodiff_value_and_grad}


@dataclass(frozen=True, kw_only=True)
class CommonSettings:
    """What every script can be told."""

    seed: int = 0
    """Where every random key begins."""
    grad: Literal["manual", "autodiff"] = "manual"
    """Whose gradients train: the backward passes written by hand, or jax.grad."""
    out: Path = Path("report")
    """The folder for the pictures."""

    def __post_init__(self):
        for name in ("epochs", "batch_size", "seeds"):
            value = getattr(self, name, None)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')}: expected a positive integer, got {value}.")


@dataclass(frozen=True, kw_only=True)
class Settings(CommonSettings):
    """What an experiment can be told."""

    epochs: int
    """Passes over the data."""
    precision: Literal["float64", "float32"] = "float64"
    """The floating dtype of everything."""

    @property
    def value_and_grad(self) -> Callable:
        return GRADIENTS[self.grad]


def begin(title: str, settings: Settings) -> None:
    """Set the precision, make the folder for the pictures, and print the title and what the figures depend on.

    Of several processes the first one prints.
    """
    jax.config.update("jax_enable_x64", settings.precision == "float64")
    console.quiet = not is_first()
    settings.out.mkdir(parents=True, exist_ok=True)
    console.rule(f"[bold]{title}")
    shown = asdict(settings) | {"jax": jax.__version__, "device": jax.devices()[0].device_kind}
    words = [f"[dim]{name.replace('_', ' ')}[/]\u00a0{value}" for name, value in shown.items()]
    console.print("   ".join(words).replace("_", "\u00a0"), highlight=False)


def table(*columns: str, title: str | None = None) -> Table:
    """An empty table whose first column is text and whose others are figures."""
    made = Table(title=title, title_justify="left", header_style="bold")
    for position, column in enumerate(columns):
        made.add_column(column, justify="left" if position == 0 else "right")
    return made


def save(figure: Figure, settings: Settings, name: str) -> Path:
    """Write a figure into the folder for pictures and say where."""
    path = settings.out / f"{name}.png"
    if is_first():
        figure.savefig(path, dpi=150, bbox_inches="tight")
    console.print(f"picture: {path}", highlight=False)
    return path
