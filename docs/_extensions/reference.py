"""The pages of the reference, one for each module that funcnn takes public names from; written before the build.

The list of names is read from ``funcnn/__init__.py``, so a new name gets its entry without a change here.
"""

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from docstring_equations import SECTION, set_docstring

import funcnn as fnn

LONGEST_TITLE = 40
TITLES = {
    "funcnn.backprop": "Gradients of a model",
    "funcnn.nonfinite": "Sources of NaN and infinity",
    "funcnn.optimizercheck": "Checks of optimizers",
    "funcnn.practice": "Exercises and their grader",
    "funcnn.types": "Types",
}
"""Titles in the place of those that the modules' docstrings give."""
FOLDER = Path(__file__).parents[1] / "reference" / "generated"


class Group(NamedTuple):
    """A module and the public names that come from it."""

    module: str
    names: list[str]


def public_groups() -> list[Group]:
    """Return the public names by the module that they are imported from, in the order of ``funcnn/__init__.py``."""
    source = ast.parse(Path(fnn.__file__).read_text(encoding="utf-8"))
    groups: dict[str, Group] = {}
    for statement in source.body:
        if not isinstance(statement, ast.ImportFrom) or not statement.module:
            continue
        for alias in statement.names:
            name = alias.asname or alias.name
            module = f"funcnn.{name}" if inspect.ismodule(getattr(fnn, name)) else statement.module
            names = _functions_of(getattr(fnn, name)) if module.endswith(f".{name}") and _is_module(name) else [name]
            groups.setdefault(module, Group(module, [])).names.extend(names)
    return list(groups.values())


def _is_module(name: str) -> bool:
    return inspect.ismodule(getattr(fnn, name, None))


def _functions_of(module: Any) -> list[str]:
    """Return the public functions of a module that users reach as ``fnn.datasets.moons``."""
    short = module.__name__.removeprefix("funcnn.")
    return [
        f"{short}.{name}"
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(inspect.unwrap(value)) or inspect.isclass(value))
        and value.__module__.startswith(module.__name__)
    ]


def value_of(name: str) -> Any:
    """Return what ``fnn.NAME`` is, for a name with dots too."""
    value: Any = fnn
    for part in name.split("."):
        value = getattr(value, part)
    return value


def entry(name: str) -> list[str]:
    """Return the directive that documents a public name."""
    value = value_of(name)
    if getattr(value, "_is_protocol", False):
        nothing = inspect.Parameter.empty
        _, *arguments = inspect.signature(value.__call__).parameters.values()
        call = inspect.Signature([argument.replace(annotation=nothing) for argument in arguments])
        return [f".. autoclass:: funcnn.{name}{call}", "   :members:", ""]
    if inspect.isclass(value):
        return [f".. autoclass:: funcnn.{name}", "   :members:", ""]
    if inspect.isroutine(value) or hasattr(value, "__wrapped__") or inspect.isfunction(value):
        return [f".. autofunction:: funcnn.{name}", ""]
    return list(_data_entry(name, value))


def _data_entry(name: str, value: Any) -> Iterator[str]:
    """Document a value, such as the layer ``relu`` or the loss ``mean_squared_error``, by what its functions do."""
    yield f".. py:data:: funcnn.{name}"
    yield f"   :type: {type(value).__name__}"
    yield ""
    pair = [f"{name}_{which}" for which in ("forward", "backward") if hasattr(fnn, f"{name}_{which}")]
    described = [getattr(fnn, part) for part in pair] or [part for part in value if inspect.isfunction(part)]
    for function in described:
        yield from (f"   {line}" for line in _summary(function))
        yield ""
    if pair:
        links = " and ".join(f":py:func:`~funcnn.{part}`" for part in pair)
        yield f"   A {type(value).__name__.lower()} made of the pair {links}."
        yield ""


def _summary(function: Any) -> list[str]:
    """Return a docstring up to its first section, with its equations set."""
    lines = (inspect.getdoc(function) or "").splitlines()
    ends = (number for number, line in enumerate(lines) if SECTION.match(line))
    return set_docstring(lines[: next(ends, len(lines))])


def page(group: Group) -> str:
    """Return a page of the reference: what the module says of itself, and every name."""
    module = importlib.import_module(group.module)
    first = (inspect.getdoc(module) or "").partition("\n\n")[0].replace("\n", " ")
    title, colon, rest = first.rstrip(".").partition(":")
    if not colon or len(title) > LONGEST_TITLE:
        title, rest = group.module.rpartition(".")[2].replace("_", " ").capitalize(), first.rstrip(".")
    text = f"{rest.strip()[:1].upper()}{rest.strip()[1:]}. " if rest else ""
    title = TITLES.get(group.module, title)
    lines = [title, "=" * len(title), "", f"{text}From ``{group.module}``.", "", *_introduction(module), ""]
    for name in group.names:
        lines += entry(name)
    return "\n".join(lines)


def _introduction(module: Any) -> list[str]:
    """Return a module's docstring after its first paragraph, without its sections and what it says of its own files."""
    lines = (inspect.getdoc(module) or "").partition("\n\n")[2].splitlines()
    headings = [number - 1 for number, line in enumerate(lines) if set(line) == {"-"}]
    ends = iter(sorted([*headings, *(number for number, line in enumerate(lines) if SECTION.match(line))]))
    text = "\n".join(lines[: next(ends, len(lines))])
    files = [f"``{found.name}``" for found in pkgutil.iter_modules(getattr(module, "__path__", ()))]
    paragraphs = re.split(r"\n\n(?=\S)", text)
    kept = [paragraph for paragraph in paragraphs if sum(name in paragraph for name in files) < 2]
    return set_docstring("\n\n".join(kept).splitlines())


def write(app=None) -> None:
    """Write the pages and their table of contents; files that are unchanged keep their time."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    groups = public_groups()
    pages = {f"{group.module}.rst": page(group) for group in groups}
    for old in FOLDER.glob("*.rst"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        file = FOLDER / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def skip_member(app, what, name, obj, skip, options):
    """Leave out the fields of tuples, which ``Fields:`` documents, and the methods that every tuple has."""
    return True if type(obj).__name__ == "_tuplegetter" or name in ("count", "index") else None


def setup(app):
    app.connect("builder-inited", write)
    app.connect("autodoc-skip-member", skip_member)
    return {"parallel_read_safe": True}
