"""What is made of the rounds: figures a contestant, ratios with intervals, and their geometric means."""

import math
from collections.abc import Sequence

from experiments.benchmarks.speed.networks import AnyNetwork
from experiments.benchmarks.speed.rounds import REFERENCE, Record, estimate, floor_share, ratio

OURS = ("funcnn_scan", "funcnn_autodiff", "funcnn_fit")


def summarised(network: AnyNetwork, record: Record) -> Record:
    """The medians over rounds of every contestant of a network, in steps, epochs and samples a second."""
    timed = record["contestants"]
    figures = {}
    for name, facts in timed.items():
        rounds = facts["rounds"]
        figures[name] = {
            "steps_per_second": estimate([1 / times["steps"] for times in rounds])._asdict(),
            "epochs_per_second": estimate([1 / times["epochs"] for times in rounds])._asdict(),
            "predicted_samples_per_second": estimate(
                [network.samples / times["predictions"] for times in rounds]
            )._asdict(),
            "first_step_seconds": facts["first_step_seconds"],
            "import_seconds": facts["import_seconds"],
            "peak_megabytes": facts["peak_megabytes"],
            "deviation": facts["deviation"],
            "over_reference": ratio(record, name, REFERENCE)._asdict(),
            "floor_share": floor_share(record, name)._asdict() if record["floor"] else None,
        }
    over = {one: {other: ratio(record, one, other)._asdict() for other in timed} for one in OURS if one in timed}
    return {"figures": figures, "ours_over": over}


def geometric_means(results: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Each of ours over every contestant, over all the networks that both train."""
    means: dict[str, dict[str, float]] = {}
    for one in OURS:
        ratios: dict[str, list[float]] = {}
        for result in results:
            for other, found in result["ours_over"].get(one, {}).items():
                ratios.setdefault(other, []).append(found["median"])
        if ratios:
            means[one] = {other: math.exp(sum(map(math.log, of)) / len(of)) for other, of in ratios.items()}
    return means
