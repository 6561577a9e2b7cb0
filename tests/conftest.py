"""The whole suite runs with strict dtype promotion, no silent broadcasts, and in float64 unless set otherwise."""

import gc
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import hypothesis
import jax
import jaxtyping
import pytest

from tests import durations, torch_archive

jax.config.update("jax_enable_x64", os.environ.get("JAX_ENABLE_X64", "1").lower() not in ("0", "false"))
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# A test compiles hundreds of programs and runs each once: what XLA would spend on making them fast is lost.
jax.config.update("jax_disable_most_optimizations", True)


# Shapes and dtypes are checked at run time where arrays are computed. The other packages walk over programs and trees
# with small functions, whose checks would take half of the suite's time.
UNCHECKED = {"__init__", "__main__", "_numerics", "_reports", "gradcheck", "plots", "practice", "pytest_plugin"}
LIBRARY = Path(__file__).parent.parent / "funcnn"
CHECKED = sorted({path.stem for path in LIBRARY.iterdir() if path.is_dir() or path.suffix == ".py"} - UNCHECKED)
jaxtyping.install_import_hook([f"funcnn.{name}" for name in CHECKED], "beartype.beartype")

# A shell without job control ignores Ctrl-C in what it starts in the background, and so would a test that sends it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A second run loads what the first one compiled; the thresholds keep small programs too. Subprocesses have no cache.
# JAX_COMPILATION_CACHE_DIR= (empty) turns it off.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parent.parent / ".jax_cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def is_known_to_xla(flags: str) -> bool:
    """Whether XLA accepts the flags. An unknown flag ends the process, so a subprocess tries."""
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    tried = subprocess.run([sys.executable, "-c", "import jax; jax.devices()"], env=environment, capture_output=True)
    return tried.returncode == 0


# XLA's older code generator compiles twice as fast, as long as there is one. Workers inherit the answer.
if "XLA_FLAGS" not in os.environ:
    QUICK_TO_COMPILE = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = QUICK_TO_COMPILE if is_known_to_xla(QUICK_TO_COMPILE) else ""

# Optax's own tests want settings of their own, and a session of their own: `nox -s optax_suite`.
collect_ignore = [] if "OPTAX_SUITE" in os.environ else ["optax_suite.py"]
# Eight devices and second processes, likewise: `nox -s distributed`.
collect_ignore += [] if "DISTRIBUTED_SUITE" in os.environ else ["distributed"]
# What needs PyTorch, likewise: `nox -s torch_parity`.
collect_ignore += [] if "TORCH_PARITY" in os.environ else ["torch_parity"]
# The report and the site in a real browser: `nox -s report`, `nox -s docs`.
collect_ignore += ["report_in_browser.py", "site_in_browser.py"]

# XLA compiles every random network: no deadline, no search for a smaller failure, few examples.
# `nox -s gradcheck` runs more.
for name, examples in {"lean": 4, "thorough": 200}.items():
    hypothesis.settings.register_profile(
        name,
        max_examples=examples,
        deadline=None,
        derandomize=True,
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "lean"))


def pytest_collection_finish():
    """Keep the garbage collector off what lives to the end: modules, tests, and what JAX caches."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """``--dist loadfile`` with every docstring in one worker, and the files that take longest first.

    Two workers then finish at about the same time. A file that was never measured may take long, and comes first. Any
    other ``--dist`` is xdist's own.
    """
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    seconds = durations.latest()

    class LongestFirst(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return durations.file_of(nodeid)

        def _assign_work_unit(self, node):
            self.workqueue.move_to_end(max(self.workqueue, key=lambda file: seconds.get(file, math.inf)), last=False)
            super()._assign_work_unit(node)

    return LongestFirst(config, log)


@pytest.fixture
def as_for_users():
    """Without the tests' run-time type checks, so that bad input meets the errors that users meet."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def promotion_as_for_users():
    """JAX's own rules of promotion, for functions that are written as users write."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def untouched_configuration():
    """A script sets its own precision; the tests after it want theirs."""
    before = jax.config.read("jax_enable_x64")
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture
def save_torch(tmp_path, monkeypatch):
    """Write tensors as ``torch.save`` does."""
    return torch_archive.writer(tmp_path, monkeypatch)
