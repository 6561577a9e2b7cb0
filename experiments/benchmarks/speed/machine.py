"""What the figures depend on: versions, processor, cores, device, and what else runs at the start."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("jax", "jaxlib", "optax", "numpy", "equinox", "flax", "keras", "torch", "scikit-learn")
ASK_JAX = "import jax; print(jax.devices()[0].device_kind)"


def facts() -> dict[str, str | float]:
    """By name, for the record and the README."""
    found: dict[str, str | float] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    # In a process of its own: this one doesn't load JAX, whose threads would stand beside the workers'.
    device = subprocess.run([sys.executable, "-c", ASK_JAX], capture_output=True, text=True, check=True).stdout.strip()
    return found | {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        "device": device.splitlines()[-1],
        "load": round(os.getloadavg()[0], 2),
    }


def processor() -> str:
    """The model's name; on Linux ``platform`` doesn't know it."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        lines = path.read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()
