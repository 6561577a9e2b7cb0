"""How fast the same networks train in funcnn and elsewhere, each library as its own documentation advises.

``python -m experiments.benchmarks.speed`` trains five multi-layer perceptrons, a CNN, an LSTM and a GPT with every
contestant that is installed, in interleaved rounds; ``pip install --group bench`` has the packages. The first losses of
each have to be the reference's.
"""

import json
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro
from rich.markup import escape

from experiments.benchmarks.speed import chart, markdown
from experiments.benchmarks.speed.architectures import ARCHITECTURES
from experiments.benchmarks.speed.machine import facts
from experiments.benchmarks.speed.markdown import counted
from experiments.benchmarks.speed.networks import FIVE, VARIANTS, AnyNetwork
from experiments.benchmarks.speed.rounds import NEEDS, REFERENCE, Record, measure_network
from experiments.benchmarks.speed.summary import geometric_means, summarised
from experiments.harness.console import console, progress_bar, table
from experiments.harness.store import write_atomically

COMMAND = "python -m experiments.benchmarks.speed"
RATES = ("contestant", "steps/s", "over jax_scan", "epochs/s", "predictions/s", "floor")
COSTS = ("contestant", "first step, s", "import, s", "peak MB", "first losses differ by")
BUSY = 0.3
"""The load, in processes, from which on the figures of libraries with thread pools are worth little."""


@dataclass(frozen=True, kw_only=True)
class SpeedSettings:
    """The same networks, trained here and elsewhere."""

    networks: tuple[str, ...] = ()
    """Some of the networks, by name; none given, all eight, and with --variants the variants."""
    contestants: tuple[str, ...] = tuple(NEEDS)
    """Who takes part; jax_scan, the reference, always does."""
    rounds: int = 10
    """How often everyone is timed."""
    seconds: float = 0.5
    """How long each trains in a round, about."""
    variants: bool = False
    """Also the digits' network with another loss, other activations, batch normalization, skip connections."""
    out: Path = Path("report/bench.json")
    """The file for every round's figures; the chart goes beside it."""
    readme: bool = False
    """Write the short table of README.md. The site's is made from the file of figures."""

    def __post_init__(self):
        if self.rounds < 1:
            raise ValueError(f"--rounds: expected 1 or more, got {self.rounds}.")
        if not self.seconds > 0:
            raise ValueError(f"--seconds: expected more than 0, got {self.seconds}.")
        if self.out.suffix != ".json":
            raise ValueError(f"--out: expected a name that ends in .json, got {self.out}.")

    def selected_networks(self) -> list[AnyNetwork]:
        """Return the selected networks.

        Raises:
            SystemExit: a name is none of a network or a contestant.
        """
        known = {network.name: network for network in (*FIVE, *ARCHITECTURES, *VARIANTS)}
        for word, given, names in (("networks", self.networks, known), ("contestants", self.contestants, NEEDS)):
            strange = [name for name in given if name not in names]
            if strange:
                raise SystemExit(f"--{word}: expected some of {', '.join(map(repr, names))}, got {strange[0]!r}.")
        if self.networks:
            return [known[name] for name in self.networks]
        return [*FIVE, *ARCHITECTURES, *(VARIANTS if self.variants else ())]


def show(result: Record) -> None:
    """What a network's contestants reach and what they cost, and a word about everyone who isn't there."""
    rates, costs = table(*RATES, title=result["network"]["name"]), table(*COSTS)
    for name in (name for name in NEEDS if name in result["figures"]):
        figures = result["figures"][name]
        steps, epochs, predicted = (
            counted(figures[f"{kind}_per_second"]["median"]) for kind in ("steps", "epochs", "predicted_samples")
        )
        share = f"{figures['floor_share']['median']:.1%}" if figures["floor_share"] else "–"
        rates.add_row(name, steps, with_interval(figures["over_reference"]), epochs, predicted, share)
        seconds = (f"{figures[f'{kind}_seconds']:.2f}" for kind in ("first_step", "import"))
        costs.add_row(name, *seconds, f"{figures['peak_megabytes']:.0f}", f"{figures['deviation']:.0e}")
    for shown in (rates, costs):
        shown.columns[0].no_wrap = True
        console.print(shown)
    for name, reason in result["left_out"].items():
        console.print(f"{name}: left out, {reason}.", highlight=False, markup=False)
    for name, reason in result["errors"].items():
        console.print(f"[red]{name}[/]: {escape(reason)}", highlight=False)


def with_interval(found: Record) -> str:
    if found["low"] is None:
        return f"{found['median']:.3f}"
    return f"{found['median']:.3f} ({found['low']:.3f}–{found['high']:.3f})"


def show_means(means: dict[str, dict[str, float]]) -> None:
    """Ours over every contestant, the geometric means over the networks."""
    names = [name for name in NEEDS if any(name in of for of in means.values())]
    shown = table("geometric mean of the networks, over", *means)
    for name in names:
        shown.add_row(name, *(f"{of[name]:.2f}" if name in of else "–" for of in means.values()))
    console.print(shown)


def run(settings: SpeedSettings) -> Record:
    """Measure, print and write."""
    networks = settings.selected_networks()
    if settings.readme:
        # Before the long run, not after it.
        markdown.SECTION.surroundings()
    console.rule("[bold]How fast networks train")
    record: Record = {
        "command": shlex.join([*COMMAND.split(), *sys.argv[1:]]),
        "settings": asdict(settings) | {"out": str(settings.out)},
        "about": facts(),
        "reference": REFERENCE,
        "networks": [],
    }
    if record["about"]["load"] > BUSY:
        console.print(
            f"[red]The machine is busy[/], load {record['about']['load']} where at most {BUSY} is fine: "
            "the figures won't be worth much."
        )
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    with progress_bar("networks measured") as bar:
        task = bar.add_task("", total=len(networks))
        for network in networks:
            found = measure_network(
                network, settings.contestants, settings.rounds, settings.seconds,
                lambda word: bar.update(task, description=word),
            )  # fmt: skip
            result = {"network": network._asdict()} | found | summarised(network, found)
            record["networks"].append(result)
            record["geometric_means"] = geometric_means(record["networks"])
            write_atomically(settings.out, json.dumps(record, indent=1))
            show(result)
            bar.advance(task)
    if record["geometric_means"]:
        show_means(record["geometric_means"])
    console.print("   ".join(f"[dim]{name}[/] {value}" for name, value in record["about"].items()), highlight=False)
    console.print(f"written: {settings.out}", highlight=False)
    if chart.write(record["networks"], settings.out.with_suffix(".svg")):
        console.print(f"written: {settings.out.with_suffix('.svg')}", highlight=False)
    if settings.readme:
        markdown.write(record)
    return record


if __name__ == "__main__":
    found = run(tyro.cli(SpeedSettings, prog=COMMAND))
    sys.exit(any(result["errors"] for result in found["networks"]))
