"""Topics: found in the folder, ordered by the report's sections, independent of each other."""

import ast
import re
from pathlib import Path

import pytest

import experiments
from experiments.__main__ import AllSettings, print_list
from experiments.harness import store
from experiments.harness.experiment import Settings
from experiments.harness.topics import load, ordered_names, topic_names, topic_path

FOLDER = Path(experiments.__file__).parent
NEW_TOPIC = """
from experiments.harness.claims import Claim, Section
from experiments.harness.experiment import Experiment, Part

CLAIM = Claim(name="new", sentence="New.", section=Section.WHAT, quantity="units", at_most=1)
EXPERIMENT = Experiment(name="brand_new", title="A new topic", introduction="x", parts=(Part("x", (CLAIM,), None),))
"""


def imported_modules(script):
    """The names of every module that a script imports, and ``module.name`` of every name that it imports."""
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{script.name}: expected absolute imports"
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def test_the_folder_holds_topics_and_nothing_else():
    modules = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "__main__"}
    assert modules == set(topic_names())
    assert {path.parent.name for path in FOLDER.glob("*/__init__.py")} == {"harness", "shared", "benchmarks"}


@pytest.mark.parametrize("name", topic_names())
def test_no_topic_imports_another(name):
    topics = {f"experiments.{other}" for other in topic_names()}
    assert not topics & set(imported_modules(FOLDER / f"{name}.py"))


def test_no_sentence_of_a_topic_has_a_raw_exponent():
    """Numbers in a text are those of ``format_number``: 4.5·10⁻¹⁴ and 0, not 4.5e-14 and 0e+00."""
    scripts = [*(topic_path(name) for name in topic_names()), *(FOLDER / "shared").glob("*.py")]
    found = [f"{script.name}: {form}" for script in scripts for form in re.findall(r":[,.\d]*e\}", script.read_text())]
    assert not found


@pytest.mark.parametrize("folder", ["harness", "shared", "benchmarks"])
def test_nothing_beside_the_topics_imports_one(folder):
    topics = {f"experiments.{name}" for name in topic_names()}
    for script in (FOLDER / folder).rglob("*.py"):
        assert not topics & set(imported_modules(script)), script


def test_a_new_file_is_a_topic(tmp_path, monkeypatch, capsys):
    (tmp_path / "brand_new.py").write_text(NEW_TOPIC, encoding="utf-8")
    (tmp_path / "no_topic.py").write_text("EXPERIMENTS = ()\n", encoding="utf-8")
    monkeypatch.setattr(experiments, "__path__", [*experiments.__path__, str(tmp_path)])
    assert "brand_new" in topic_names()
    assert "no_topic" not in topic_names()
    assert ordered_names()[-1] == "brand_new"
    assert AllSettings(names=("brand_new",)).names == ("brand_new",)
    print_list(ordered_names())
    assert "A new topic" in capsys.readouterr().out
    before = store.digest("brand_new", Settings())
    (tmp_path / "brand_new.py").write_text(NEW_TOPIC + "\n# Changed.\n", encoding="utf-8")
    assert store.digest("brand_new", Settings()) != before


def test_every_topic_has_a_place_of_its_own_in_the_report():
    orders = [load(name).order for name in ordered_names()]
    assert orders == sorted(set(orders))


def test_a_topic_that_does_not_exist_has_no_script():
    with pytest.raises(FileNotFoundError, match="expected a script"):
        topic_path("nowhere")
