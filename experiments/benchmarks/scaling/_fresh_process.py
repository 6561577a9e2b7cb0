"""What one fresh process measures for ``first_use``: the import, the first ``fit`` and an equal second one.

It prints one line of JSON. Nothing is imported before the clock begins but the clock.
"""

import json
import time

started = time.perf_counter()
import jax  # noqa: E402

after_jax = time.perf_counter()
import funcnn as fnn  # noqa: E402

after_funcnn = time.perf_counter()

from collections import Counter  # noqa: E402

import numpy as np  # noqa: E402

EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "traces",
    "/jax/core/compile/backend_compile_duration": "compilations",
    "/jax/compilation_cache/cache_hits": "cache_hits",
    "/jax/compilation_cache/cache_misses": "cache_misses",
}
"""What JAX tells of its work; a program that the persistent cache gives counts as compiled."""


def fit() -> None:
    """The digits network for an epoch, everything made anew."""
    rng = np.random.default_rng(0)
    x, y = rng.random((1792, 64), np.float32), rng.integers(10, size=1792)
    trained = fnn.fit(
        fnn.mlp((64, 128, 64, 10)), fnn.softmax_cross_entropy, fnn.adam(1e-3), (x, y), epochs=1, batch_size=64,
        key=jax.random.key(0),
    )  # fmt: skip
    jax.block_until_ready(trained)


def main() -> None:
    counted: Counter[str] = Counter()

    def count(event, *_, **__):
        if event in EVENTS:
            counted[EVENTS[event]] += 1

    jax.monitoring.register_event_duration_secs_listener(count)
    jax.monitoring.register_event_listener(count)
    results = {"import jax": after_jax - started, "import funcnn": after_funcnn - started}
    for name in ("first fit", "second fit"):
        counted.clear()
        before = time.perf_counter()
        fit()
        results[name] = {"seconds": time.perf_counter() - before} | {what: counted[what] for what in EVENTS.values()}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
