"""The summary paragraph of a report."""

from collections.abc import Iterable

from funcnn.gradcheck.report import GradientReport, LeafReport

_TAPS = (
    "To find the wrong step, tap the values between the parameters and the loss. With a value z and its gradient dz:\n"
    '    z = fnn.tap("z", z)                 in the loss, after z is computed\n'
    '    return gradients, {"z": dz}         at the end of the gradient function\n'
    "    fnn.check_gradients(...)            again; the report then compares dz as well"
)


def explanation(report: GradientReport, kinks: str, *, can_tap: bool = False) -> str:
    """Return the summary paragraph of a report: what is wrong, and where first.

    Leaves that are wrong in the same way share one line.

    Args:
        report: the report without its summary.
        kinks: the kinks in words; empty if there are none.
        can_tap: whether values on the way may be tapped to find the wrong step.
    """
    lines = []
    wrong = [leaf for leaf in report.leaves if not leaf.ok]
    count = len(report.leaves)
    if not count:
        lines.append("There are no parameters to compare.")
    elif wrong:
        of = "the one leaf" if count == 1 else f"{len(wrong)} of {count} leaves"
        is_open = report.verdict == "undecided"
        lines.append(f"The gradients differ in {of}." if is_open else f"The gradient by hand is wrong in {of}.")
    elif report.verdict == "undecided":
        lines.append("Whether the gradient by hand is right isn't decided.")
    elif report.verdict == "autodiff wrong":
        lines.append("The gradient by hand is right, and autodiff's is wrong.")
    else:
        lines.append(f"The gradients agree in {'the one leaf' if count == 1 else f'all {count} leaves'}.")
    lines += _findings(wrong)
    lines += _first_step(report)
    if can_tap and not report.steps and any(leaf.cause == "unknown" for leaf in wrong):
        lines.append(_TAPS)
    lines += [
        f"A property of the gradient fails: {entry.name}: {entry.detail}."
        for entry in report.properties
        if entry.ok is False
    ]
    if kinks:
        lines.append(f"On a kink: {kinks}. Between the one-sided derivatives any value is right there.")
    lines += _findings(leaf for leaf in report.leaves if leaf.ok and leaf.cause in ("noise", "unstable"))
    return "\n".join(lines)


def _findings(leaves: Iterable[LeafReport]) -> list[str]:
    """One line a cause; what has a name comes before what only follows from it."""
    found: dict[tuple, list[str]] = {}
    alone: dict[tuple, str] = {}
    for leaf in leaves:
        key = (leaf.cause == "unknown", leaf.cause, "" if leaf.cause == "unknown" else leaf.detail)
        found.setdefault(key, []).append(leaf.path or "the root")
        alone.setdefault(key, leaf.detail)
    lines = []
    for key in sorted(found, key=lambda key: key[0]):
        paths = found[key]
        shown = ", ".join(paths[:6]) + (f" and {len(paths) - 6} more" if len(paths) > 6 else "")
        lines.append(f"{shown}: {key[1]}: {alone[key]}" + (" (the first)" if key[0] and len(paths) > 1 else ""))
    if len(lines) > 1 and any(key[0] for key in found) and not all(key[0] for key in found):
        lines[-1] += "; it may follow from the rest"
    return lines


def _first_step(report: GradientReport) -> list[str]:
    """The first wrong step on the way back, and which gradients of the same layer are right."""
    first = next((step for step in report.steps if not step.ok), None)
    if first is None:
        return []
    layer, _, name = first.path.rpartition(": ")
    beside = [step for step in report.steps if layer and step.path.startswith(f"{layer}: ") and step.ok]
    right = f"; {', '.join(step.path.removeprefix(f'{layer}: ') for step in beside)} right" if beside else ""
    where = f"{layer}: {name} wrong" if layer else name
    return [f"Going backward, the first wrong step is {where} ({first.cause}: {first.detail}){right}"]
