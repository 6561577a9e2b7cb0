"""A process of a contestant's own, so that thread pools, imports and memory don't mix. It waits while others run.

``python -m experiments.benchmarks.speed.worker PIPE MODULE START_TIME``, started by ``rounds`` alone. Nothing that a
library has to import may be imported here: how long that takes is one of the figures.
"""

import contextlib
import importlib
import resource
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

MINOR = 0.25
"""The share of a round's seconds that epochs, and that predictions, get each."""
LARGEST_LEAP = 1000
LEAST_EPOCHS = 3
"""Epochs in a call, at least, of what trains whole epochs: nobody calls it for a single one of a few steps."""
CHECKED = 20
"""First losses that are compared."""


class Task(NamedTuple):
    """Something done any number of times: ``run(n)``, n a multiple of ``least``, for a share of a round's seconds.

    ``least`` is the smallest number that is timed, ``most`` the largest at a stretch; ``prepare`` comes before each
    stretch, untimed.
    """

    run: Callable[[int], object]
    prepare: Callable[[], object] = lambda: None
    least: int = 1
    most: int = sys.maxsize
    share: float = 1.0


def timed(task: Task, number: int) -> float:
    """Seconds each."""
    longest = max(task.least, task.most // task.least * task.least)
    seconds, left = 0.0, number
    while left:
        stretch = min(left, longest)
        task.prepare()
        began = time.perf_counter()
        task.run(stretch)
        seconds += time.perf_counter() - began
        left -= stretch
    return seconds / number


def sized(task: Task, seconds: float) -> int:
    """How many last about so long. What is returned has been done before: a program for it is compiled."""
    number, wanted = task.least, task.share * seconds
    while True:
        timed(task, number)
        each = timed(task, number)
        if number * each > 0.6 * wanted:
            return number
        leap = min(LARGEST_LEAP, round(wanted / (number * each)))
        number *= max(2, leap)


def peak_megabytes() -> float:
    """The most memory that this process has held; a parent's is counted by ``getrusage`` on Linux, not in /proc."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


def forget_peak() -> None:
    """Begin the peak anew, where Linux allows it: what comparing the first losses takes isn't the contestant's."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def begin_training(module, network, x, y, start, seconds: float, start_time: float) -> tuple[dict, dict[str, Task]]:
    """The first steps, their losses, and the tasks of a round; no task where the library has no such network."""
    contestant = module.contestant(network, x, y, start)
    if contestant is None:
        return {"has_network": False}, {}
    losses = contestant.train(contestant.block)
    facts = {"has_network": True, "first_step_seconds": time.monotonic() - start_time}
    peak = peak_megabytes()
    facts |= first_losses(network, contestant, losses)
    forget_peak()
    least = contestant.block * LEAST_EPOCHS if contestant.block > 1 else 1
    steps = Task(contestant.train, contestant.restart, least, contestant.most)
    facts["numbers"] = {"steps": sized(steps, seconds)}
    facts["peak_megabytes"] = max(peak, peak_megabytes())
    others = {
        "epochs": Task(contestant.epochs, contestant.restart, most=contestant.most // network.batches, share=MINOR),
        "predictions": Task(lambda number: [contestant.predict() for _ in range(number)], share=MINOR),
    }
    facts["numbers"] |= {name: sized(task, seconds) for name, task in others.items()}
    for kind in ("uncorrected_losses", "moved_losses"):
        if hasattr(module, kind):
            facts[kind] = getattr(module, kind)(network, x, y, start, len(facts["losses"])).tolist()
    return facts, {"steps": steps} | others


def first_losses(network, contestant, losses) -> dict:
    """The losses of the first steps, of which one block has been done, and what they had to be."""
    blocks = -(-min(CHECKED, contestant.checked) // contestant.block)
    parts = [losses, *([contestant.train((blocks - 1) * contestant.block)] if blocks > 1 else [])]
    facts = {"averaged": contestant.averaged, "uncorrected_epsilon": contestant.uncorrected_epsilon}
    facts["losses"] = [float(loss) for part in parts for loss in part]
    return facts if contestant.expected is None else facts | {"expected": contestant.expected().tolist()}


def begin_floor(module, network, seconds: float) -> tuple[dict, dict[str, Task]]:
    """The floor's parts as tasks, beside the contestants'."""
    tasks = {name: Task(run) for name, run in module.parts(network).items()}
    return {"numbers": {name: sized(task, seconds) for name, task in tasks.items()}}, tasks


def serve(connection: Connection, name: str, start_time: float) -> None:
    """Import, take the order, train a little; then measure at every request until the pipe is closed."""
    before = time.perf_counter()
    module = importlib.import_module(name)
    imported = time.perf_counter() - before
    network, x, y, start, seconds = connection.recv()
    if hasattr(module, "contestant"):
        facts, tasks = begin_training(module, network, x, y, start, seconds, start_time)
    else:
        facts, tasks = begin_floor(module, network, seconds)
    connection.send({"import_seconds": imported, **facts})
    while True:
        connection.recv()
        connection.send({name: timed(task, facts["numbers"][name]) for name, task in tasks.items()})


if __name__ == "__main__":
    pipe, module_name, start_time = sys.argv[1:]
    with Connection(int(pipe)) as other_end:
        try:
            serve(other_end, module_name, float(start_time))
        except EOFError:
            pass
        except Exception:
            other_end.send({"error": traceback.format_exc()})
