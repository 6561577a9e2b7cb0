"""The topics: every module directly in ``experiments`` that defines ``EXPERIMENT``."""

import ast
import importlib
import pkgutil
from pathlib import Path

import experiments
from experiments.harness.experiment import Experiment


def topic_path(name: str) -> Path:
    """Return the script of a topic.

    Raises:
        FileNotFoundError: no folder of the package has it.
    """
    for folder in experiments.__path__:
        path = Path(folder) / f"{name}.py"
        if path.is_file():
            return path
    raise FileNotFoundError(f"expected a script {name}.py in {', '.join(experiments.__path__)}, got none.")


def topic_names() -> list[str]:
    """Return the names of all topics, alphabetically. The scripts are parsed and not imported."""
    modules = (module.name for module in pkgutil.iter_modules(experiments.__path__) if not module.ispkg)
    return sorted(name for name in modules if _defines_experiment(topic_path(name)))


def load(name: str) -> Experiment:
    """Import a topic and return its experiment."""
    return importlib.import_module(f"experiments.{name}").EXPERIMENT


def ordered_names() -> list[str]:
    """Return the names of all topics in the order of the report: by ``Experiment.order``, then by name."""
    return sorted(topic_names(), key=lambda name: (load(name).order, name))


def _defines_experiment(script: Path) -> bool:
    assignments = (node for node in ast.parse(script.read_text(encoding="utf-8")).body if isinstance(node, ast.Assign))
    return any(
        isinstance(target, ast.Name) and target.id == "EXPERIMENT" for node in assignments for target in node.targets
    )
