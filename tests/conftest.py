"""The whole suite runs with strict dtype promotion, no silent broadcasts, and in float64 unless told otherwise."""

import os
import subprocess
import sys

import hypothesis
import jax
import jaxtyping
import pytest

jax.config.update("jax_enable_x64", os.environ.get("JAX_ENABLE_X64", "1").lower() not in ("0", "false"))
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# A test compiles hundreds of programs and runs each once: what XLA would spend on making them fast is lost.
jax.config.update("jax_disable_most_optimizations", True)


def xla_knows(flags: str) -> bool:
    """XLA ends a process that gives it a flag it doesn't know: another one is asked."""
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    asked = subprocess.run([sys.executable, "-c", "import jax; jax.devices()"], env=environment, capture_output=True)
    return asked.returncode == 0


# XLA's older code generator compiles twice as fast, as long as there is one. Workers inherit the answer.
if "XLA_FLAGS" not in os.environ:
    QUICK_TO_COMPILE = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = QUICK_TO_COMPILE if xla_knows(QUICK_TO_COMPILE) else ""

# Optax's own tests want settings of their own, and a session of their own: `nox -s optax_suite`.
collect_ignore = [] if "OPTAX_SUITE" in os.environ else ["optax_suite.py"]
# Eight devices and second processes, likewise: `nox -s distributed`.
collect_ignore += [] if "DISTRIBUTED_SUITE" in os.environ else ["distributed"]
# The report in a real browser: `nox -s report`.
collect_ignore += ["report_in_browser.py"]

# XLA compiles every network that is drawn: no deadline, no search for a smaller failure, few examples.
# `nox -s gradcheck` asks for more.
for name, examples in {"lean": 8, "thorough": 200}.items():
    hypothesis.settings.register_profile(
        name,
        max_examples=examples,
        deadline=None,
        derandomize=True,
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "lean"))


@pytest.fixture
def as_for_users():
    """Without the tests' run-time type checks, so that bad input meets the errors that users meet."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def untouched_configuration():
    """A script sets its own precision; the tests after it want theirs."""
    before = jax.config.read("jax_enable_x64")
    yield
    jax.config.update("jax_enable_x64", before)
