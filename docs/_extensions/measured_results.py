"""The tables of results, written before the build from the files of figures: none is copied by hand."""

import ast
import importlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "results" / "generated"
RESULTS = ROOT / "experiments" / "benchmarks" / "results"
STUDIES = (
    "memory",
    "first_use",
    "ensembles",
    "depth",
    "growth",
    "precision",
    "checking",
    "first_check",
    "processes",
)
WIDTH = 100


def speed() -> str:
    """Return the tables of steps a second, one for each machine that has a file of figures."""
    from experiments.benchmarks.speed import markdown

    tables = []
    for file in sorted(RESULTS.glob("speed_*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        names = [result["network"]["name"] for result in record["networks"]]
        words = "variants of the digits network" if "variants" in file.name else "; ".join(names)
        tables.append(
            f"## {record['about']['processor']}: {words}\n\n{markdown.table(record)}\n\nFile: `{file.name}`.\n"
        )
    return "\n".join(tables)


def scaling() -> str:
    """Return what each study of scaling prints of its files of figures, one for each machine."""
    from experiments.harness.console import console

    parts = []
    console.width = WIDTH
    for study in STUDIES:
        module = importlib.import_module(f"experiments.benchmarks.scaling.{study}")
        title = (module.__doc__ or study).splitlines()[0].rstrip(".")
        files = sorted(RESULTS.glob(f"{study}_*.json"))
        for file in files:
            record = _with_numbers(json.loads(file.read_text(encoding="utf-8")))
            machine = f", {record['environment']['processor']}" if len(files) > 1 else ""
            with console.capture() as shown:
                module.show(record)
            parts.append(f"## {title}{machine}\n\n`{record['command']}`\n\n```text\n{shown.get().rstrip()}\n```\n")
    return "\n".join(parts)


def _with_numbers(record: Any) -> Any:
    """Return a record with the numbers back that JSON keeps as words where they are keys."""
    if isinstance(record, dict):
        return {int(key) if key.isdecimal() else key: _with_numbers(value) for key, value in record.items()}
    return [_with_numbers(value) for value in record] if isinstance(record, list) else record


def causes() -> str:
    """Return the causes that a report names, from the text beside their list in the source."""
    source = (ROOT / "funcnn" / "gradcheck" / "report.py").read_text(encoding="utf-8")
    body = ast.parse(source).body
    for statement, after in pairwise(body):
        if isinstance(statement, ast.AnnAssign) and getattr(statement.target, "id", "") == "Cause":
            text = ast.literal_eval(after.value)
            return text.partition("\n\n")[2].replace("``", "`")
    raise LookupError("no list of causes in funcnn/gradcheck/report.py")


def errata() -> str:
    """Return the chapter's worked examples with the figures that it prints beside the true ones, computed now."""
    from experiments import chapter
    from experiments.harness.experiment import Settings

    outcomes = chapter.run(Settings()).outcomes
    lines = []
    for part, outcome in zip(chapter.EXPERIMENT.parts, outcomes, strict=True):
        lines += [f"## {part.title}", "", outcome.text, ""]
        for found in outcome.tables:
            lines += [f"{found.title}:", "", f"| {' | '.join(name or ' ' for name in found.columns)} |"]
            lines += ["|---" * len(found.columns) + "|"]
            lines += [f"| {' | '.join(map(_cell, row))} |" for row in found.rows] + [""]
        lines += [":::{dropdown} The steps", "```text", outcome.board, "```", ":::", ""] if outcome.board else []
    return "\n".join(lines)


def _cell(value: Any) -> str:
    text = str(value)
    return f"**{text}**" if "wrong" in text else text


PAGES = {"speed": speed, "scaling": scaling, "causes": causes, "errata": errata}


def write(app=None) -> None:
    """Write every page that changed."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        file, text = FOLDER / f"{name}.md", make()
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def setup(app):
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
