"""The store of measured parts, keyed by their settings and code."""

import ast
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import experiments
import funcnn
from experiments.harness.claims import ClaimResult, format_threshold
from experiments.harness.experiment import Experiment, Outcome, Settings
from experiments.harness.topics import topic_path

FUNCNN = Path(funcnn.__file__).parent
Record = dict[str, Any]  # a part's outcome or an experiment, as JSON


def digest(name: str, settings: Settings) -> str:
    """Return a hash of what an experiment's figures depend on: settings, its code, funcnn's code, and JAX's release."""
    versions = [metadata.version("jax"), metadata.version("jaxlib")]
    content = hashlib.sha256(json.dumps([asdict(settings), *versions]).encode())
    for path in [*source_files(topic_path(name)), *sorted(FUNCNN.rglob("*.py"))]:
        content.update(path.read_bytes())
    return content.hexdigest()[:16]


def source_files(script: Path) -> list[Path]:
    """Return a script and every module of ``experiments`` that it imports, directly or indirectly."""
    found, waiting = {script}, [script]
    while waiting:
        for node in ast.walk(ast.parse(waiting.pop().read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "experiments":
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                new = {path for name in names for path in module_paths(name)} - found
                found |= new
                waiting += new
    return sorted(found)


def module_paths(name: str) -> list[Path]:
    """Return the files of a module of ``experiments``: one, or none if the name is a package or no module."""
    inside = name.split(".")[1:]
    paths = (Path(folder, *inside).with_suffix(".py") for folder in experiments.__path__ if inside)
    return [path for path in paths if path.is_file()]


def record_path(folder: Path, name: str, settings: Settings, part: int) -> Path:
    """Return the file of a part's record."""
    return folder / "measured" / f"{name}-{part}-{digest(name, settings)}.json"


def read(path: Path) -> Record | None:
    """Return a stored record, or ``None`` where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write(path: Path, record: Record) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(record, ensure_ascii=False, allow_nan=False, default=json_default))


def write_atomically(path: Path, text: str) -> None:
    """Write a file at once, so that an interrupted run leaves no partial file."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def outcome_record(outcome: Outcome) -> Record:
    return {
        "findings": [claim_record(result) for result in outcome.results],
        "figures": [
            figure._asdict() | {"panels": [panel._asdict() for panel in figure.panels]} for figure in outcome.figures
        ],
        "tables": [table._asdict() for table in outcome.tables],
        "text": outcome.text,
        "board": outcome.board,
    }


def claim_record(result: ClaimResult) -> Record:
    claim = result.claim
    finite = {name: bound for name in ("at_least", "at_most") if abs(bound := getattr(claim, name)) != float("inf")}
    return {
        "name": claim.name, "sentence": claim.sentence, "section": claim.section.value, "source": claim.source,
        "quantity": claim.quantity, "statistic": claim.statistic, "threshold": format_threshold(claim), **finite,
        "estimate": result.estimate, "low": result.low, "high": result.high, "seeds": result.seeds,
        "verdict": result.verdict, "remark": result.remark, "values": result.values,
    }  # fmt: skip


def experiment_record(
    experiment: Experiment, settings: Settings, parts: Sequence[Record], failures: Mapping[int, str]
) -> Record:
    """Return an experiment with the records of its parts, and the failures of those that have none."""
    return {
        "name": experiment.name, "title": experiment.title, "introduction": experiment.introduction,
        "precision": experiment.precision, "settings": asdict(settings),
        "command": command_line(experiment.name, settings),
        "parts": [
            {"title": part.title, "claims": [claim.sentence for claim in part.claims], "failure": failures.get(index)}
            | (record or {})
            for index, (part, record) in enumerate(zip(experiment.parts, parts, strict=True))
        ],
    }  # fmt: skip


def command_line(name: str, settings: Settings) -> str:
    """Return the command that measures the same figures."""
    options = [
        f"--{field.name}" + ("" if value is True else f" {value}")
        for field in fields(settings)
        if (value := getattr(settings, field.name)) != field.default
    ]
    return " ".join(["python -m experiments", name, *options])


def json_default(value: Any) -> Any:
    """Convert NumPy's and JAX's scalars and arrays for ``json.dumps``."""
    return value.tolist()
