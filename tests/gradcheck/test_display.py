"""The report as plain text, on a terminal and as a page: what a reader has to find in it."""

import io
import json
import math
import re
import sys
from html.parser import HTMLParser

import pytest

from funcnn._reports.document import Conclusion, Document, Note
from funcnn._reports.terminal import render, to_terminal
from funcnn.gradcheck.report import Cost, GradientReport, LeafReport, PropertyReport, Uncompared

ORIGIN = "ε^¾ of the largest"


def right(path, **changes):
    leaf = LeafReport(
        path, (64, 300), "float32", True, False, 3.1e-17, 2.2e-16, 1.1e-12, None, "", ORIGIN, (61, 100), 0.25, 0.25
    )  # fmt: skip
    return leaf._replace(**changes)


def wrong(path, **changes):
    found = {
        "ok": False, "max_abs_difference": 2.3e-3, "relative_difference": 0.5, "by_hand": -0.00123,
        "by_autodiff": -0.00246, "cause": "scaled", "detail": "1/2 of it", "differences": ((1e-3, -2.3e-3),) * 2,
    }  # fmt: skip
    return right(path, **(found | changes))


REPORT = GradientReport(
    False,
    (wrong("[0].kernel"), right("[0].bias", shape=(300,), worst=(7,), exact=True), right("", shape=(), worst=())),
    "The gradient by hand is wrong in 1 of 3 leaves.\n[0].kernel: scaled: " + "word " * 30,
    "hand-written wrong",
    "the measured slope is autodiff's",
    (right("[2] relu"), wrong("[1] linear"), wrong("[0] batch_norm")),
    (PropertyReport("the same twice", True, ""), PropertyReport("the same under jit", False, "by 2.3e-3")),
    "float64",
    Cost(0.83, 12, 1),
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def on_terminal(monkeypatch):
    """``str`` of a report as a terminal gets it; pytest has standard output back by the time the test begins."""

    def shown(report, **environment):
        for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in ({"TERM": "xterm-256color", "COLUMNS": "120"} | environment).items():
            monkeypatch.setenv(name, value)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", Terminal())
            return str(report)

    return shown


def without_codes(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def cells(line):
    return re.split(r"\s{2,}", line.strip())


def test_a_leaf_is_a_row_with_both_values_at_the_worst_place():
    header, _, kernel, bias, root, *_ = REPORT.to_text().splitlines()
    assert cells(header) == [
        "parameter", "shape", "dtype", "ok", "at", "by hand", "autodiff", "difference", "relative", "tolerance", "cause"
    ]  # fmt: skip
    assert cells(kernel) == [
        "[0].kernel", "(64, 300)", "float32", "NO", "[61, 100]", "-0.00123", "-0.00246", "2.3e-03", "5.0e-01",
        "1.1e-12", "scaled",
    ]  # fmt: skip
    assert cells(bias)[3:5] == ["exact", "[7]"]
    assert cells(root)[:4] == [".", "()", "float32", "yes"]


def test_the_first_wrong_step_is_marked_and_no_other():
    text = REPORT.to_text()
    table = text[text.index("intermediate gradients in backward order") :].splitlines()
    assert [line.endswith("<- first wrong") for line in table[3:6]] == [False, True, False]
    assert text.count("first wrong") == 1


def test_properties_verdict_diagnosis_and_cost_follow():
    blocks = REPORT.to_text().split("\n\n")
    assert blocks[2].splitlines()[1:] == ["yes  the same twice", "NO   the same under jit: by 2.3e-3"]
    verdict, finding, *paragraph = blocks[3].splitlines()
    assert verdict == "verdict: hand-written wrong: the measured slope is autodiff's"
    assert finding == "The gradient by hand is wrong in 1 of 3 leaves."
    assert paragraph[0].startswith("[0].kernel: scaled: word")
    assert paragraph[1].startswith("  word")
    assert blocks[4] == f"float32 compared in float64; tolerance: {ORIGIN}; 12 gradients and 1 loss in 0.8 s"


def test_lines_are_short_and_end_in_no_spaces():
    longest = wrong("['encoder'][3].kernel", cause="offset_by_parameter", by_hand=-1.234e-05)
    for report in (REPORT, REPORT._replace(leaves=(longest,))):
        lines = report.to_text().splitlines()
        assert max(map(len, lines)) <= 110
        assert not any(line != line.rstrip() for line in lines)


def test_a_report_of_three_fields_shows_no_empty_parts():
    text = GradientReport(True, (right("w"),), "The gradients agree in the one leaf.").to_text()
    header, _, _, blank, *rest = text.splitlines()
    assert "cause" not in header
    assert [blank, *rest] == ["", "verdict: agrees", "The gradients agree in the one leaf.", "", f"tolerance: {ORIGIN}"]
    leaves = (right("w"), *(right(path, tolerance_origin=f"{ORIGIN}, and {more}") for path, more in ("ba", "cd")))
    text = GradientReport(True, leaves, "").to_text()
    assert text.splitlines()[-1] == f"tolerance: {ORIGIN}, and in some rows a or d"
    others = tuple(right(letter, tolerance_origin=f"rounding of {letter}") for letter in "abcde")
    text = GradientReport(True, others, "").to_text()
    assert text.splitlines()[-1] == "tolerance: rounding of a, or rounding of b, or rounding of c, or 2 more"
    assert GradientReport(True, (), "Nothing to compare.").to_text() == "verdict: agrees\nNothing to compare."


def test_as_data_it_is_what_its_json_holds():
    data = REPORT._replace(leaves=(wrong("w", by_hand=1 + 2j, max_abs_difference=math.nan),)).to_dict()
    (leaf,) = data["leaves"]
    assert (leaf["path"], leaf["shape"], leaf["cause"]) == ("w", [64, 300], "scaled")
    assert (leaf["by_hand"], leaf["max_abs_difference"]) == ("(1+2j)", "nan")
    assert json.loads(REPORT.to_json()) == REPORT.to_dict()


def test_of_many_leaves_the_wrong_ones_and_the_first_are_shown():
    leaves = tuple(wrong(f"[{i}]") if i in (30, 199) else right(f"[{i}]") for i in range(200))
    text = GradientReport(False, leaves, "").to_text()
    assert "[30]" in text
    assert "[199]" in text
    assert "[9]" in text
    assert "[10]" not in text
    assert "188 more, all right, are left out." in text


@pytest.mark.parametrize(
    ("changes", "by_hand", "by_autodiff"),
    [
        ({"by_hand": 1.00000012, "by_autodiff": 1.0}, "1.0000001", "1"),
        ({"by_hand": 1.5 + 2j, "by_autodiff": 1.5 - 2j}, "1.5+2j", "1.5-2j"),
        ({"by_hand": math.nan, "by_autodiff": 1.0, "cause": "nonfinite"}, "nan", "1"),
        ({"by_hand": math.nan, "by_autodiff": math.nan, "cause": "nonfinite"}, "nan", "nan"),
    ],
    ids=["close", "complex", "nan", "two nans"],
)
def test_values_have_the_digits_that_tell_them_apart(changes, by_hand, by_autodiff):
    row = cells(GradientReport(False, (wrong("w", **changes),), "").to_text().splitlines()[2])
    assert row[5:7] == [by_hand, by_autodiff]


def test_where_shapes_differ_there_are_no_values_to_show():
    leaf = wrong("w", cause="shape", by_hand=math.nan, by_autodiff=math.nan, worst=(), max_abs_difference=math.nan)
    header = GradientReport(False, (leaf,), "").to_text().splitlines()[0]
    assert "by hand" not in header
    assert "at" not in cells(header)


def test_a_terminal_gets_the_same_words_in_colours(on_terminal):
    text = on_terminal(REPORT)
    assert re.search(r"\x1b\[1;31mNO", text)
    assert re.search(r"\x1b\[32myes", text)
    seen = " ".join(without_codes(text).split())
    for word in ("[0].kernel", "<- first wrong", "verdict: hand-written wrong", "under jit: by 2.3e-3", ORIGIN):
        assert word in seen


def test_a_terminal_has_an_empty_line_between_any_two_blocks(on_terminal):
    class Shown:
        def __str__(self):
            blocks = (Conclusion(("fine",), "healthy", "green"), Note("first"), Note("second"))
            return render(Document(blocks))

    lines = without_codes(on_terminal(Shown())).splitlines()
    panel_end = next(number for number, line in enumerate(lines) if line.startswith("╰"))
    assert lines[panel_end + 1 :] == ["", "first", "", "second"]


def test_a_cause_beside_a_right_leaf_is_yellow(on_terminal):
    text = on_terminal(GradientReport(True, (right("w", cause="kink"),), ""))
    assert re.search(r"\x1b\[33mkink", text)


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_terminal_may_be_narrow(columns, on_terminal):
    lines = without_codes(on_terminal(REPORT, COLUMNS=str(columns))).splitlines()
    assert max(map(len, lines)) <= columns
    assert any("[0].kernel" in line and "NO" in line for line in lines)


def test_no_color_is_respected(on_terminal):
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", on_terminal(REPORT, NO_COLOR="1"))


def test_what_was_not_compared_is_in_the_text_the_data_and_the_page(tmp_path):
    reason = "integers have no gradient"
    counts = tuple(Uncompared(f"['n'][{i}]", "int32", reason) for i in range(12))
    other = Uncompared("['unit']", "str", "no array of numbers")
    report = REPORT._replace(not_compared=(*counts[:1], other))
    line = f"not compared: ['n'][0] int32 ({reason}); ['unit'] str (no array of numbers)"
    assert line in report.to_text().splitlines()
    assert report.to_dict()["not_compared"][0] == {"path": "['n'][0]", "dtype": "int32", "reason": reason}
    report.to_html(tmp_path / "report.html")
    assert line in Page((tmp_path / "report.html").read_text(encoding="utf-8")).words
    assert f"['n'][9] int32, and 2 more ({reason})" in " ".join(REPORT._replace(not_compared=counts).to_text().split())
    assert "not compared" not in REPORT.to_text()


def test_without_a_terminal_the_text_is_plain():
    assert to_terminal(Document(())) is None
    assert str(REPORT) == REPORT.to_text()


def test_without_rich_the_text_is_plain(on_terminal, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert on_terminal(REPORT) == REPORT.to_text()


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def attributes(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_page_stands_alone_and_names_its_parts(tmp_path):
    REPORT.to_html(tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert page.attributes("html") == [{"lang": "en"}]
    assert "Gradient check: wrong" in page.words
    assert not page.attributes("script") + page.attributes("link")
    assert {heading["scope"] for heading in page.attributes("th")} == {"col", "row"}
    pictures = page.attributes("img")
    assert [picture["alt"].split(" of shape")[0] for picture in pictures] == [
        f"Heat map of by hand minus autodiff for {path}" for path in ("[0].kernel", "[1] linear", "[0] batch_norm")
    ]
    assert all(picture["src"].startswith("data:image/png;base64,") for picture in pictures)
    text = " ".join(" ".join(page.words).split())
    for word in (
        "Verdict: hand-written wrong",
        "first wrong",
        "the same under jit",
        "12 gradients and 1 loss in 0.8 s",
    ):
        assert word in text


def test_what_a_path_or_a_sentence_holds_is_text_on_the_page(tmp_path):
    nasty = "<script>alert(1)</script>"
    leaf = wrong(f"['{nasty}']", detail=nasty, differences=((math.nan, math.inf, 1.0),), shape=(3,))
    GradientReport(False, (leaf,), nasty, "undecided", nasty).to_html(str(tmp_path / "report.html"))
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not page.attributes("script")
    assert nasty in page.words


def test_a_right_gradient_has_no_pictures_and_all_of_its_leaves(tmp_path):
    leaves = tuple(right(f"[{i}]") for i in range(60))
    GradientReport(True, leaves, "They agree.").to_html(tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Gradient check: right" in page.words
    assert not page.attributes("img")
    assert len([heading for heading in page.attributes("th") if heading["scope"] == "row"]) == 60


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_a_page_without_its_libraries_says_what_to_install(missing, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'funcnn\[report\]'"):
        REPORT.to_html(tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
