"""Every experiment, one after another: ``python -m experiments``."""

import time
from dataclasses import dataclass, replace

import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from experiments import chapter, digits, mnist
from experiments.chapter import ChapterSettings
from experiments.console import CommonSettings, console
from experiments.digits import DigitsSettings
from experiments.mnist import MnistSettings

EXPERIMENTS = (
    ("chapter", chapter.run, ChapterSettings()),
    ("digits", digits.run, DigitsSettings()),
    ("mnist", mnist.run, MnistSettings()),
)


@dataclass(frozen=True, kw_only=True)
class AllSettings(CommonSettings):
    """Every experiment with its own settings, and what is given here."""

    epochs: int | None = None
    """Epochs of every experiment; none given, each takes its own number."""


def main(settings: AllSettings) -> None:
    began = time.monotonic()
    given = {name: value for name, value in vars(settings).items() if value is not None}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        done = bar.add_task("experiments", total=len(EXPERIMENTS))
        for name, run, own in EXPERIMENTS:
            bar.update(done, description=f"experiments: {name}")
            run(replace(own, **given))
            bar.advance(done)
        bar.update(done, description="experiments")
    pictures = sorted(settings.out.glob("*.png"))
    console.print(
        f"\nDone in {time.monotonic() - began:.0f} seconds. {len(pictures)} pictures are in "
        f"[bold]{settings.out.resolve()}[/]",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(AllSettings, prog="python -m experiments"))
