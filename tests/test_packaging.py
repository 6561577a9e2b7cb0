"""What a release and a contributor depend on: workflows, versions, metadata and hooks agree with each other."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SESSIONS = set(re.findall(r"@nox\.session.*?\ndef (\w+)\(", (ROOT / "noxfile.py").read_text(encoding="utf-8")))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda file: file.stem)
def test_workflows_are_pinned_and_have_few_rights(workflow):
    text = workflow.read_text(encoding="utf-8")
    used = re.findall(r"uses: *(\S+)@(\S+)(.*)", text)
    assert used
    for action, revision, comment in used:
        assert re.fullmatch("[0-9a-f]{40}", revision), f"{action} isn't pinned by the hash of a commit"
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), f"{action} doesn't say which version the hash is"
    assert "\npermissions:\n  contents: read\n" in text
    granted = set(re.findall(r"^ +([a-z-]+): write", text, flags=re.MULTILINE))
    assert granted <= {"docs": {"pages", "id-token"}, "release": {"id-token"}}.get(workflow.stem, set())
    assert text.count("actions/checkout@") == text.count("persist-credentials: false")
    assert text.count("runs-on:") == text.count("timeout-minutes:")


def test_an_action_has_one_revision_everywhere():
    revisions = {}
    for workflow in WORKFLOWS:
        for action, revision in re.findall(r"uses: *(\S+)@(\S+)", workflow.read_text(encoding="utf-8")):
            assert revisions.setdefault(action, revision) == revision


def test_workflows_run_sessions_that_exist():
    text = "".join(workflow.read_text(encoding="utf-8") for workflow in WORKFLOWS)
    named = set(re.findall(r"nox -s ([a-z]\w*)", text)) | set(re.findall(r"^ {10}- (\w+)$", text, flags=re.MULTILINE))
    assert {"docs", "package", "tests", "minimums", "gradcheck"} <= named
    assert named <= SESSIONS


def test_every_supported_python_is_tested():
    classified = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    matrix = re.search(r"python: \[(.*)\]", (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert re.findall(r'"(3\.\d+)"', matrix.group(1)) == classified


def test_the_version_is_the_same_everywhere():
    version = PROJECT["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert version in headings
    assert headings == sorted(headings, key=lambda name: tuple(map(int, name.split("."))), reverse=True)


def test_the_sdist_holds_what_its_documentation_names():
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert [name for name in included if not (ROOT / name).exists()] == []
    assert {"CITATION.cff", "SECURITY.md", "docs", "tests"} <= set(included)


def test_hooks_use_the_lint_group():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    wanted = set(re.findall(r'additional_dependencies: \["(.*?)"\]', hooks))
    assert wanted == set(PROJECT["dependency-groups"]["lint"])


def test_issues_about_verdicts_ask_for_the_report():
    forms = {file.stem: file.read_text(encoding="utf-8") for file in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")}
    assert "report.to_json()" in forms["wrong_verdict"]
    assert "required: true" in forms["bug"]
