"""The command line: its three exit statuses, what stands on standard output, and what a wrong call prints."""

import json
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

import funcnn as fnn
from funcnn.__main__ import main as funcnn_command
from funcnn._closed_output import CLOSED
from funcnn.gradcheck import command
from funcnn.gradcheck.command import main
from funcnn.gradcheck.report import GradientReport
from funcnn.layers import activations
from tests.cases import KEY, WIDEST, cast

MINE = """
import colorsys, operator, jax.numpy as jnp
from sibling import twice

X, Y = jnp.array([[1.0, 2.0], [3.0, 5.0]], jnp.float32), jnp.ones(2, jnp.float32)
W = jnp.ones(2, jnp.float32)
number = 3

def loss(w, x, y):
    print("computing")
    return ((x @ w - y) ** 2).mean()

def half(w, x, y):
    return x.T @ (x @ w - y) / len(y)

def right(): return loss, lambda w, x, y: twice(half(w, x, y)), W, (X, Y)
def wrong(): return loss, half, W, (X, Y)
def without_args(): return lambda w: loss(w, X, Y), lambda w: 2 * half(w, X, Y), W
def needs(x): return loss, half, W, (x, Y)
def nothing(): pass
def two(): return loss, half
def array_for_args(): return loss, half, W, X
def no_function(): return loss, half(W, X, Y), W, (X, Y)
def vector(): return lambda w: w, lambda w: w, W
def no_line_of_this_file(): return operator.itemgetter("absent"), half, {"w": W}

def failing():
    def loss(w):
        raise ZeroDivisionError("nothing to divide by")
    return loss, half, W
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "sibling.py").write_text("def twice(x):\n    return 2 * x\n")
    (tmp_path / "ends.py").write_text("import sys\n\nsys.exit(0)\n")
    (tmp_path / "broken.py").write_text("x = 1\ndef (:\n")
    return tmp_path


def test_a_right_gradient_is_0_and_json_has_standard_output_for_itself(mine, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    path, modules = list(sys.path), set(sys.modules)
    assert main(["gradcheck", f"{mine / 'mine.py'}:right", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["ok"] is True
    assert "computing" in err
    assert sys.path == path
    assert not {name for name in set(sys.modules) - modules if "mine" in name or "sibling" in name}
    assert "colorsys" in sys.modules  # Python's own modules stay


def test_a_wrong_gradient_is_1_with_a_report_and_a_page(mine, capsys):
    assert main(["gradcheck", f"{mine / 'mine.py'}:wrong", "--html", str(mine / "report.html")]) == 1
    assert "scaled" in capsys.readouterr().out
    assert "Gradient check: wrong" in (mine / "report.html").read_text(encoding="utf-8")


def test_further_arguments_may_be_left_out(mine):
    assert main(["gradcheck", f"{mine / 'mine.py'}:without_args"]) == 0


def test_a_model_of_funcnn_is_checked_in_the_dtype_that_is_asked_for(capsys):
    options = "--sizes 2,1 --loss mean_squared_error --dtype float64 --batch-size 3 --json"
    assert main(["gradcheck", *options.split()]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(leaf["path"], leaf["dtype"]) for leaf in report["leaves"]] == [
        ("[0].kernel", "float64"),
        ("[0].bias", "float64"),
    ]


@pytest.mark.parametrize(
    ("options", "model", "loss"),
    [
        (
            "--sizes 3,4,2 --normalization batch --dropout 0.5 --activation leaky_relu",
            fnn.mlp((3, 4, 2), fnn.leaky_relu(), normalization=fnn.batch_norm, dropout=0.5),
            fnn.softmax_cross_entropy,
        ),
        (
            "--sizes 3,4,4,1 --loss mean_squared_error --skip --activation gelu_tanh",
            fnn.mlp((3, 4, 4, 1), fnn.gelu_tanh, skip=True),
            fnn.mean_squared_error,
        ),
        ("--sizes 2,2 --loss binary_cross_entropy", fnn.mlp((2, 2), output=fnn.sigmoid), fnn.binary_cross_entropy),
        ("--sizes 2,3 --loss categorical_cross_entropy", fnn.mlp((2, 3), output=fnn.softmax),
         fnn.categorical_cross_entropy),
        ("--sizes 2,3 --loss kl_divergence", fnn.mlp((2, 3), output=fnn.log_softmax), fnn.kl_divergence),
        (
            "--sizes 2,3,1 --loss sigmoid_cross_entropy --normalization layer --output tanh",
            fnn.mlp((2, 3, 1), output=fnn.tanh, normalization=fnn.layer_norm),
            fnn.sigmoid_cross_entropy,
        ),
    ],
)  # fmt: skip
def test_names_become_the_model_the_loss_and_data_that_fits_them(options, model, loss, monkeypatch):
    asked = []

    def check_model(*args, key):
        asked.append(args)
        return GradientReport(True, (), "")

    monkeypatch.setattr(command, "check_model", check_model)
    assert main(["gradcheck", *options.split(), "--batch-size", "5"]) == 0
    ((asked_model, asked_loss, batch),) = asked
    params, state = model.init(KEY)
    assert jax.tree.map(jnp.shape, asked_model.init(KEY)) == jax.tree.map(jnp.shape, (params, state))
    assert asked_loss == loss
    assert batch.x.dtype == jnp.float32
    x, y = cast(batch, WIDEST)
    expected = loss.forward(model.forward(params, state, x, train=True, key=KEY)[0], y)[0]
    got = loss.forward(asked_model.forward(params, state, x, train=True, key=KEY)[0], y)[0]
    assert got == expected
    assert jnp.isfinite(got)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("mine.py:absent", "none of that name; the file defines loss, half, right"),
        ("mine.py:number", "expected a function without arguments, got a value of type int"),
        ("mine.py:needs", "got needs(x)"),
        ("mine.py:nothing", "(loss_fn, grad_fn, params, args), got a value of type NoneType"),
        ("mine.py:two", "got 2 values"),
        ("mine.py:array_for_args", "A single one is (x,)"),
        ("mine.py:no_function", "got a grad_fn of type ArrayImpl"),
        ("mine.py:vector", "scalar"),
        ("mine.py:failing", "mine.py:29, in loss: ZeroDivisionError: nothing to divide by"),
        ("mine.py", "expected FILE.py:NAME"),
        ("absent.py:right", "expected an existing file"),
        ("ends.py:right", "ends.py:3, in <module>: SystemExit"),
        ("broken.py:right", "broken.py:2: SyntaxError"),
        ("mine.py:right --sizes 3,2", "expected either FILE.py:NAME"),
        ("mine.py:right --skip --batch-size 3", "--batch-size, --skip: expected together with --sizes"),
        ("mine.py:right --html absent/report.html", "existing folder"),
    ],
)
def test_a_wrong_file_is_2_with_a_sentence(target, expected, mine, monkeypatch, capsys):
    monkeypatch.chdir(mine)
    assert main(["gradcheck", *target.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert expected in err
    assert "Traceback" not in err


def test_an_error_without_a_line_of_the_file_keeps_its_traceback(mine):
    with pytest.raises(KeyError, match="absent"):
        main(["gradcheck", f"{mine / 'mine.py'}:no_line_of_this_file"])


@pytest.mark.usefixtures("as_for_users")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", "got neither"),
        ("--sizes 3", "at least two positive integers"),
        ("--sizes 3,0", "got '3,0'"),
        ("--sizes 3,x", "got '3,x'"),
        ("--sizes 3,2 --batch-size 0", "--batch-size: expected a positive integer"),
        ("--sizes 3,2 --activation relo", "relo"),
        ("--sizes 3,2 --dropout 1", "[0, 1)"),
        ("--sizes 3,1", "For a single output take --loss sigmoid_cross_entropy"),
        ("--sizes 3,2 --loss categorical_cross_entropy --output identity", "expected values in [0, 1]"),
        ("--sizes 3,2 --seed x", "x"),
        ("--unknown-option", "For full helptext, run python -m funcnn gradcheck --help"),
        ("--sizes 3,2 --batchsize 4", "--batch-size"),
    ],
)
def test_a_wrong_model_is_2_with_a_sentence(options, expected, capsys):
    assert main(["gradcheck", *options.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert expected in err


def test_a_page_that_cannot_be_made_is_2(mine, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert main(["gradcheck", f"{mine / 'mine.py'}:right", "--html", str(mine / "report.html")]) == 2
    assert "pip install 'funcnn[report]'" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_2(mine, capsys):
    (mine / "report.html").mkdir()
    assert main(["gradcheck", f"{mine / 'mine.py'}:right", "--html", str(mine / "report.html")]) == 2
    assert "--html: expected a file that can be written, got " in capsys.readouterr().err


@pytest.mark.benchmarks_smoke
def test_alone_it_shows_its_help():
    ended = subprocess.run([sys.executable, "-m", "funcnn"], capture_output=True, text=True, check=True)
    assert "gradcheck" in ended.stdout
    assert ended.stderr == ""


PROGRAMS = """
import atexit, ctypes, os, sys
import jax.numpy as jnp

def case(factor): return lambda w: (w**2).sum(), lambda w: factor * w, jnp.ones(2)

def ends(): os._exit(0)
def ends_in_c(): ctypes.CDLL(None)._exit(0)
def ends_at_exit():
    atexit.register(os._exit, 0)
    return case(3)
def writes_bytes():
    sys.stdout.buffer.write(b"\\xff\\xfe")
    os.write(1, b"\\xff\\xfe")
    print("\\udcff")
    return case(2)
def forks():
    os.fork()
    return case(2)
def leaves_a_fork():
    if os.fork():
        os._exit(0)
    return case(2)
def forks_and_ends():
    if not os.fork():
        os._exit(0)
    return case(2)
def errs_in_a_fork():
    if child := os.fork():
        os.waitpid(child, 0)
        os._exit(0)
def prints_without_end():
    while True:
        print("x" * 1000)
"""


@pytest.fixture
def programs(tmp_path):
    (tmp_path / "programs.py").write_text(PROGRAMS)

    def start(name):
        command = [sys.executable, "-m", "funcnn", "gradcheck", f"{tmp_path / 'programs.py'}:{name}", "--json"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    return start


@pytest.mark.benchmarks_smoke
def test_a_file_that_ends_its_process_gets_2_and_a_sentence(programs):
    process = programs("ends")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, b"")
    assert b"programs.py:ends: expected a process that runs to the end of the check, got one that ended" in err


@pytest.mark.benchmarks_smoke
@pytest.mark.skipif(not hasattr(os, "fork"), reason="only POSIX forks")
def test_a_status_belongs_to_a_report_whatever_the_file_does(programs):
    expected = {
        "ends_in_c": 2, "ends_at_exit": 1, "writes_bytes": 0, "forks": 0, "leaves_a_fork": 2, "forks_and_ends": 0,
        "errs_in_a_fork": 2,
    }  # fmt: skip
    processes = {name: programs(name) for name in expected}
    for name, process in processes.items():
        out, err = process.communicate(timeout=300)
        assert process.returncode == expected[name], name
        if expected[name] == 2:
            assert out == b"", name
            assert b"ended before its report" in err, name
        else:
            assert json.loads(out)["ok"] is (expected[name] == 0), name


@pytest.mark.benchmarks_smoke
@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, None], ids=["killed", "interrupted", "unread"])
def test_output_without_end_ends_with_the_command_and_is_never_0(number, programs):
    with programs("prints_without_end") as process:
        assert process.stderr.read(10**6).count(b"x") > 900_000
        if number is None:
            process.stderr.close()
        else:
            process.send_signal(number)
            while process.stderr.read(10**6):  # until no process has it open
                pass
        assert process.wait(timeout=60) != 0
        assert process.stdout.read() == b""


def test_without_tyro_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tyro", None)
    monkeypatch.delitem(sys.modules, "funcnn.gradcheck.command")
    for arguments, status, expected in (
        ("gradcheck --help", 2, "pip install 'funcnn[report]'"),
        ("gradchek", 2, "got gradchek. `python -m funcnn --help` describes both"),
        ("", 0, "  practice "),
        ("--help", 0, "  gradcheck "),
        ("practice list", 0, "relu-backward"),
    ):
        assert funcnn_command(arguments.split()) == status
        printed = capsys.readouterr()
        assert expected in (printed.err if status else printed.out)


def test_another_module_that_is_missing_is_an_error(monkeypatch):
    monkeypatch.delitem(sys.modules, "funcnn.gradcheck.command")
    monkeypatch.setitem(sys.modules, "funcnn.gradcheck.process", None)
    with pytest.raises(ModuleNotFoundError, match=r"funcnn\.gradcheck\.process"):
        funcnn_command(["gradcheck", "--help"])


def test_a_public_activation_or_loss_is_a_choice_without_a_list(monkeypatch):
    selu = fnn.activation_layer(fnn.elu_forward, fnn.elu_backward, fnn.LayerSpec("selu"))
    monkeypatch.setattr(activations, "selu", selu)
    found = command._activations()
    assert set(found) <= set(vars(fnn))
    assert found["selu"] is selu
    assert found["leaky_relu"] is fnn.leaky_relu()
    assert not set(found) & {"linear", "dropout", "batch_norm", "serial"}
    assert set(command._LOSSES) == {name for name, value in vars(fnn).items() if isinstance(value, fnn.Loss)}
    for kind, output in (("binary", fnn.sigmoid), ("categorical", fnn.softmax), ("softmax", fnn.identity)):
        assert command._fitting_output(command._LOSSES[f"{kind}_cross_entropy"].spec) is output


@pytest.mark.benchmarks_smoke
def test_the_packages_are_commands_too():
    for name, expected in (
        ("gradcheck", "usage: python -m funcnn gradcheck"),
        ("practice", "usage: python -m funcnn practice"),
    ):
        command = [sys.executable, "-m", f"funcnn.{name}", "--help"]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        assert ended.stdout.startswith(expected)
        assert ended.stderr == ""


@pytest.mark.benchmarks_smoke
def test_a_report_that_nobody_reads_ends_without_a_message(mine):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "funcnn", "gradcheck", f"{mine / 'mine.py'}:without_args"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (ended.returncode, ended.stderr.replace("computing\n", "")) == (CLOSED, "")
