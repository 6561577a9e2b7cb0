"""Check the set against ``jax.grad`` in float64: ``python -m experiments.benchmarks.blind_second.verify``."""

from collections import Counter, defaultdict

import jax
import numpy as np

from experiments.benchmarks.blind_second import BUGS, CASES, RIGHT
from experiments.benchmarks.catalogue.case import CAUSES

CLOSE, FAR = 1e-10, 1e-3


def difference(got, expected) -> float:
    """Return the norm of the difference, relative to that of ``expected``."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    if got.shape != expected.shape:
        return np.inf
    return float(np.linalg.norm(got - expected) / (np.linalg.norm(expected) + 1e-300))


def measure(cases) -> dict[str, dict[str, float]]:
    """Return the relative difference of every leaf by its path, for cases that share their loss and their data."""
    params, args = cases[0].make("float64")
    expected = jax.jit(jax.grad(cases[0].loss_fn))(params, *args)
    grads = jax.jit(lambda params, args: [case.grad_fn(params, *args) for case in cases])(params, args)
    return {
        case.name: {f"[{leaf!r}]": difference(grad[leaf], expected[leaf]) for leaf in expected}
        for case, grad in zip(cases, grads, strict=True)
    }


def problems(case, leaves) -> list[str]:
    """Return what is wrong with the case itself."""
    found = [f"{leaf} differs by {value:.2e}" for leaf, value in leaves.items() if not case.causes and value > CLOSE]
    if case.causes:
        found += [f"cause {cause} isn't in the list" for cause in sorted(case.causes - CAUSES)]
        if not leaves.get(case.leaf, 0) > FAR:
            found.append(f"{case.leaf} differs by {leaves.get(case.leaf)} only")
    params, args = case.make("float32")
    shapes = jax.eval_shape(case.grad_fn, params, *args)
    found += [
        f"{leaf} is {shape.shape} {shape.dtype} in float32"
        for leaf, shape in shapes.items()
        if (shape.shape, shape.dtype) != (params[leaf].shape, params[leaf].dtype)
    ]
    return found


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    print("causes:", *sorted(CAUSES))
    groups = defaultdict(list)
    for case in CASES:
        groups[case.loss_fn].append(case)
    failures = 0
    for cases in groups.values():
        try:
            measured = measure(cases)
        except Exception as error:
            failures += 1
            print("FAILED", cases[0].name, type(error).__name__, str(error)[:600])
            continue
        for case in cases:
            leaves = measured[case.name]
            found = problems(case, leaves)
            failures += bool(found)
            far = " ".join(f"{leaf}:{value:.1e}" for leaf, value in leaves.items() if value > CLOSE)
            print("FAILED" if found else "ok", case.name, case.leaf or "-", far, "; ".join(found))
    repeated = [name for name, count in Counter(case.name for case in CASES).items() if count > 1]
    print("themes:", dict(Counter(case.theme for case in BUGS)), dict(Counter(case.theme for case in RIGHT)))
    print(len(BUGS), "wrong,", len(RIGHT), "right,", failures, "failures, repeated names:", repeated)


if __name__ == "__main__":
    main()
