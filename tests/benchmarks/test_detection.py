"""The detection benchmark: what counts as caught and as named, and the sets of cases."""

import json
import sys
from types import ModuleType, SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import detection, optimizer_detection
from experiments.benchmarks.case_sets import SETS, as_case, right_twin
from experiments.benchmarks.catalogue.case import Case, normal
from experiments.benchmarks.catalogue.optimizers import OptimizerCase
from experiments.benchmarks.catalogue.verification import verify
from experiments.benchmarks.checkers import CHECKERS, TITLES
from experiments.benchmarks.detection import COLUMNS, DetectionSettings, Round, Verdict, markdown, row
from experiments.harness.page_section import PageSection


def make(dtype):
    w, x = normal(dtype, 0, (3, 2), (4, 3))
    return {"w": w}, (x,)


def loss_fn(params, x):
    return jnp.sin(x @ params["w"]).sum()


def right(params, x):
    return {"w": x.T @ jnp.cos(x @ params["w"])}


def doubled(params, x):
    return {"w": 2 * right(params, x)["w"]}


BUG = Case("doubled", "made up", loss_fn, doubled, make, frozenset({"scaled"}), "['w']", right=right)
UNNAMED = BUG._replace(name="unnamed", causes=frozenset({"unknown", "scaled"}))
RIGHT = right_twin(BUG)


def verdict(case, is_flagged, *causes):
    return Verdict(case, is_flagged, causes, 0.5, None)


def cells(name, verdicts):
    return dict(zip(COLUMNS, row(Round(name, "float64", "catalogue"), verdicts), strict=True))


def test_causes_are_counted_over_all_bugs_and_unknown_is_none():
    verdicts = [
        verdict(BUG, True, "scaled"),
        verdict(BUG, True, "unknown"),
        verdict(BUG, True, "sign"),
        verdict(BUG, True, "scaled", "sign"),
        verdict(BUG, True),
        verdict(BUG, False),
        verdict(UNNAMED, True, "unknown"),
        verdict(RIGHT, False),
        verdict(RIGHT, True, "sign"),
    ]
    found = cells("funcnn", verdicts)
    assert found["bugs caught"] == "6 of 7"
    assert found["cause named"] == "2 of 7"
    assert found["named wrongly"] == "2 of 7"
    assert found["false alarms"] == "1 of 2"
    assert cells("np.allclose", verdicts)["cause named"] == "–"


def test_an_exception_is_a_flag_without_a_cause():
    def failing(case, params, args):
        raise ZeroDivisionError("division by zero")

    found = detection.evaluate_checker(failing, BUG, "float32")
    assert (found.is_flagged, found.causes, found.is_named) == (True, (), False)
    assert found.error == "ZeroDivisionError: division by zero"


def test_the_causes_are_those_of_the_leaf_with_the_bug():
    def both_wrong(params, x):
        return {"b": -jnp.ones(2), "w": 2 * right(params, x)["w"]}

    def loss(params, x):
        return loss_fn(params, x) + params["b"].sum()

    case = BUG._replace(loss_fn=loss, grad_fn=both_wrong)
    params, args = make("float64")
    params["b"] = jnp.zeros(2, params["w"].dtype)
    assert CHECKERS["funcnn"](case, params, args) == (True, ("scaled",))
    everywhere = CHECKERS["funcnn"](case._replace(leaf=None), params, args)
    assert everywhere[0]
    assert set(everywhere[1]) == {"sign", "scaled"}


@pytest.mark.benchmarks_smoke
def test_a_set_has_a_row_for_each_checker_and_dtype(monkeypatch, tmp_path, untouched_configuration):
    rounded = BUG._replace(name="in float32 alone", dtypes=("float32",))
    monkeypatch.setitem(sys.modules, "experiments.benchmarks.blind", _module(CASES=(BUG, RIGHT)))
    monkeypatch.setitem(SETS, "catalogue", SETS["catalogue"]._replace(load=lambda: (BUG, rounded, RIGHT)))
    settings = DetectionSettings(checkers=("funcnn", "np.allclose"), sets=("catalogue", "blind"), out=tmp_path)
    assert detection.run(settings) == 0
    record = json.loads((tmp_path / "detection.json").read_text(encoding="utf-8"))
    rows = {(line["checker"], line["dtype"], line["set"]): line for line in record["table"]}
    assert len(rows) == 8
    assert rows["funcnn", "float64", "catalogue"]["cause named"] == "1 of 1"
    assert rows["funcnn", "float32", "catalogue"]["cause named"] == "2 of 2"
    assert rows["np.allclose", "float32", "blind"]["bugs caught"] == "1 of 1"
    assert {line["false alarms"] for line in rows.values()} == {"0 of 1"}


def test_the_published_set_has_every_report_and_its_right_twin(monkeypatch):
    rule = SimpleNamespace(
        name="rule", theme="made up", function=lambda params, x: jnp.sin(x @ params["w"]), make=make,
        vjp=lambda params, dy, x: {"w": 2 * x.T @ (dy * jnp.cos(x @ params["w"]))},
        right=lambda params, dy, x: {"w": x.T @ (dy * jnp.cos(x @ params["w"]))},
        causes=frozenset({"scaled"}), leaf=None, dtypes=("float64", "float32"), autodiff_differs=False,
    )  # fmt: skip
    reports = (SimpleNamespace(case=BUG), SimpleNamespace(case=rule))
    monkeypatch.setitem(sys.modules, "experiments.benchmarks.published", _module(REPORTS=reports))
    cases = SETS["published"].load()
    assert [case.name for case in cases] == ["doubled", "rule", "doubled_right", "rule_right"]
    assert [bool(case.causes) for case in cases] == [True, True, False, False]
    for case in cases:
        verify(case)


def test_a_complex_rule_as_a_case_has_the_gradient_of_its_loss():
    def make_complex(dtype):
        real, imaginary = normal(dtype, 3, (4,), (4,))
        return {"z": jax.lax.complex(real, imaginary)}, ()

    rule = SimpleNamespace(
        name="square", theme="made up", function=lambda params: params["z"] ** 2, make=make_complex,
        vjp=lambda params, dy: {"z": dy}, right=lambda params, dy: {"z": 2 * params["z"] * dy},
        causes=frozenset({"unknown"}), leaf=None, dtypes=("float64",), autodiff_differs=False,
    )  # fmt: skip
    case = as_case(rule)
    params, _ = case.make("float64")
    np.testing.assert_allclose(case.right(params)["z"], jax.grad(case.loss_fn)(params)["z"])


def test_the_readme_names_the_sets_and_their_origin():
    rows = [("funcnn", "float64", "catalogue", "1 of 1", "0 of 1", "1 of 1", "0 of 1", "0.1")]
    text = markdown(rows, {"catalogue": (BUG, RIGHT)}, {"jax": "1"})
    assert text.splitlines()[2].startswith(f"| {TITLES['funcnn']} | float64 | catalogue | 1 of 1 |")
    assert "catalogue, 1 bugs and 1 right gradients, written beside the checker" in text
    assert '"unknown" counts as not named' in text


def test_records_of_parts_are_joined_into_the_pages(monkeypatch, tmp_path):
    pages = {name: PageSection(tmp_path / f"{name}.md", "detection") for name in ("PAGE", "SUMMARY")}
    for name, page in pages.items():
        page.page.write_text(f"{page.begin}{page.end}", encoding="utf-8")
        monkeypatch.setattr(detection, name, page)
    monkeypatch.setitem(SETS, "catalogue", SETS["catalogue"]._replace(load=lambda: (BUG, RIGHT)))
    paths = [tmp_path / f"{checker}.json" for checker in ("np.allclose", "funcnn")]
    for path in paths:
        verdicts = {Round(path.stem, "float32", "catalogue"): [verdict(BUG, True, "scaled"), verdict(RIGHT, False)]}
        rows = [row(each, found) for each, found in verdicts.items()]
        record = detection.as_record(DetectionSettings(), {"jax": "1"}, rows, verdicts)
        path.write_text(json.dumps(record), encoding="utf-8")
    detection.run(DetectionSettings(readme=True, records=tuple(paths)))
    lines = pages["SUMMARY"].content().splitlines()
    assert lines[2:] == [
        f"| {TITLES['funcnn']} | 1 of 1 | 0 of 1 | 1 of 1 |",
        f"| {TITLES['np.allclose']} | 1 of 1 | 0 of 1 | – |",
    ]
    assert "1 bugs and 1 right gradients" in pages["PAGE"].content()
    monkeypatch.setitem(SETS, "catalogue", SETS["catalogue"]._replace(load=lambda: (BUG, RIGHT, UNNAMED)))
    with pytest.raises(ValueError, match="has no verdict on 1 of 3 cases, such as unnamed"):
        detection.run(DetectionSettings(readme=True, records=tuple(paths)))
    monkeypatch.setitem(SETS, "catalogue", SETS["catalogue"]._replace(load=lambda: (BUG, RIGHT)))
    paths[0].write_text(paths[0].read_text(encoding="utf-8").replace('"jax": "1"', '"jax": "2"'), encoding="utf-8")
    with pytest.raises(ValueError, match="is of other versions than"):
        detection.run(DetectionSettings(readme=True, records=tuple(paths)))
    with pytest.raises(ValueError, match="add --readme"):
        DetectionSettings(records=tuple(paths))


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"--only: no case or theme is called nothing\."):
        DetectionSettings(only=("nothing",))


def test_optimizers_are_counted_in_the_same_way():
    wrong = OptimizerCase("wrong", "made up", None, None, frozenset({"sign", "unknown"}))
    fine = OptimizerCase("fine", "made up", None, None)
    name = optimizer_detection.NAMING_COMPARISON
    verdicts = [
        optimizer_detection.Verdict(case, cause is not None, cause, 0.5)
        for case, cause in (
            (wrong, "sign"), (wrong, "unknown"), (wrong, "dampening"), (wrong, None), (fine, None), (fine, "sign"),
        )
    ]  # fmt: skip
    found = dict(zip(optimizer_detection.COLUMNS, optimizer_detection.row(name, verdicts), strict=True))
    assert found["mistakes caught"] == "3 of 4"
    assert found["cause named"] == "1 of 4"
    assert found["named wrongly"] == "1 of 4"
    assert found["false alarms"] == "1 of 2"


def _module(**names):
    module = ModuleType("made_up")
    vars(module).update(names)
    return module
