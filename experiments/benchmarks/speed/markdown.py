"""The tables of speed for README.md and the site, and the words that the tables use."""

from collections.abc import Sequence

from experiments.benchmarks.speed.rounds import REFERENCE, Record
from experiments.harness.page_section import README, PageSection

SECTION = PageSection(README, "speed")
TITLES = {
    "funcnn_scan": "funcnn, gradients by hand, in a scan",
    "funcnn_autodiff": "funcnn, `autodiff_value_and_grad`, in a scan",
    "funcnn_fit": "`funcnn.fit`, which also shuffles",
    "jax_scan": "JAX and Optax, in a scan",
    "jax_step": "JAX and Optax, a call a step",
    "equinox": "Equinox",
    "flax_nnx": "Flax NNX",
    "keras_jax": "Keras on JAX",
    "pytorch": "PyTorch",
    "pytorch_compiled": "PyTorch, `torch.compile`",
    "scikit_learn": "scikit-learn",
    "numpy_by_hand": "NumPy by hand",
}


SHORT = ("funcnn_scan", "funcnn_fit", "jax_scan", "equinox", "flax_nnx", "pytorch")
"""The contestants of README.md's table."""
SHORT_NETWORKS = ("64-128-64-10", "CNN", "LSTM", "GPT")
"""The networks of README.md's table."""


def write(record: Record, section: PageSection = SECTION) -> None:
    """Write the short table into README.md. The site makes the whole one from the file of figures."""
    section.write(short_table(record))


def short_table(record: Record) -> str:
    """Return steps a second of a few contestants on a few networks, and where they were measured."""
    on = record["about"]
    results = [result for result in record["networks"] if result["network"]["name"] in SHORT_NETWORKS]
    return "\n".join(
        [
            *rows(results, SHORT),
            "",
            f"*Steps a second, in brackets as a multiple of JAX and Optax in a scan: float32, Adam, "
            f"{on['processor']}, {on['cores']} cores, jax {on['jax']}.*",
        ]
    )


def rows(results: Sequence[Record], contestants: Sequence[str]) -> list[str]:
    """Return the lines of a table of steps a second, of the contestants that have figures."""
    names = [name for name in contestants if any(name in result["figures"] for result in results)]
    lines = ["| steps a second | " + " | ".join(result["network"]["name"] for result in results) + " |"]
    lines += ["|---|" + "---:|" * len(results)]
    return lines + [f"| {TITLES[name]} | {' | '.join(cell(result, name) for result in results)} |" for name in names]


def table(record: Record) -> str:
    """Steps a second of every contestant and network, each with its ratio to the reference; how it was measured."""
    results: Sequence[Record] = record["networks"]
    lines = rows(results, tuple(TITLES))
    lines += [f"| funcnn in a scan, share of the floor | {' | '.join(map(share, results))} |", ""]
    means = record["geometric_means"].get("funcnn_scan", {})
    ratio = f"funcnn's scan over JAX's: {means[REFERENCE]:.2f}, the geometric mean of the networks. " if means else ""
    on = record["about"]
    packages = [name for name in on if name not in ("system", "processor", "cores", "device", "load")]
    versions = ", ".join(f"{name} {on[name]}" for name in packages if on[name] != "not installed")
    lines += [
        f"*`{record['command']}`: medians of {record['settings']['rounds']} interleaved rounds, in brackets as a "
        f"multiple of JAX and Optax in a scan; float32, Adam, equal starts and batches, the first losses compared; a "
        f"round begins at the start. {ratio}The floor: a step's matrix products and the bytes of Adam, measured "
        f"alone. {versions}; {on['processor']}, {on['cores']} cores, device {on['device']}.*"
    ]
    return "\n".join(lines)


def cell(result: Record, name: str) -> str:
    """Steps a second and the multiple of the reference; a dash for who isn't there."""
    if name not in result["figures"]:
        return "–"
    figures = result["figures"][name]
    return f"{counted(figures['steps_per_second']['median'])} ({figures['over_reference']['median']:.2f})"


def share(result: Record) -> str:
    found = result["figures"].get("funcnn_scan", {}).get("floor_share")
    return f"{found['median']:.0%}" if found else "–"


def counted(value: float) -> str:
    """Three digits are all that a timing has: ``1,230,000``, ``45.6``."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:g}"
