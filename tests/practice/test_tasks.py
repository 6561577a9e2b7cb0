"""Every exercise: its solution is right, its stub and planted code are not, and mistakes have their own cause."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from funcnn import practice
from funcnn._numerics.precision import enable_x64
from funcnn.practice import archive, catalogue, command, teaching, watching
from funcnn.practice.builders import write
from funcnn.practice.grading import _judge_values, grade_task
from funcnn.practice.process import Array, Reply
from funcnn.practice.task import Mistake, load, with_mistake
from tests.practice.solutions import SOLUTIONS

TASKS = {task.name: task for task in practice.tasks()}
FIXED = {
    "sigmoid-backward": "backward(a, da)",
    "relu-backward": "backward(z, da)",
    "tanh-backward": "backward(a, da)",
    "softmax-backward": "backward(p, dp)",
    "linear-backward": "backward(x, kernel, dy)",
    "mean-squared-error-backward": "backward(prediction, target)",
    "softmax-cross-entropy-backward": "backward(logits, labels)",
    "batch-norm-backward": "backward(x, scale, dy, epsilon)",
    "momentum-step": "step(params, velocity, gradient, rate, decay)",
    "adam-step": "step(params, m, v, t, gradient, rate)",
    "two-layer-network": "gradients(params, x, y)",
    "clip-by-global-norm": "clip(gradients, limit)",
}


def as_reply(value):
    if isinstance(value, tuple):
        return tuple(as_reply(entry) for entry in value)
    return value if isinstance(value, str) else Array(np.asarray(value, float), "float64")


def judged(task, source):
    """Return the difference that is found in an answer, which runs here and not apart."""
    inputs = task.inputs(np.random.default_rng(2024))[0]
    with np.errstate(all="ignore"):
        outputs = tuple(as_reply(load(source, task.entry)(*arguments)) for arguments in inputs)
    return _judge_values(task, Reply(outputs), inputs, load(task.solution, task.entry))


def test_there_are_enough_of_each_kind_and_names_are_unique():
    kinds = [task.kind for task in practice.tasks()]
    assert len(TASKS) == len(kinds) >= 60
    assert kinds.count("repair") >= 25
    assert {"write", "repair", "predict", "derive"} == set(kinds)
    assert {name: TASKS[name].signature for name in FIXED} == FIXED


@pytest.mark.parametrize("name", TASKS)
def test_the_solution_is_right_and_the_stub_is_not(name):
    task = TASKS[name]
    assert judged(task, task.solution) is None
    assert len(task.hints) >= 3
    assert task.solution not in task.statement
    if task.kind == "repair":
        found = judged(task, task.stub)
        assert found is not None
        assert (found.cause, found.sentence) in [(mistake.cause, mistake.sentence) for mistake in task.mistakes]
    else:
        with pytest.raises(NotImplementedError):
            load(task.stub, task.entry)(*task.inputs(np.random.default_rng(0))[0][0])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.mistakes and task.kind != "repair"])
def test_every_mistake_is_refused_with_its_cause(name):
    task = TASKS[name]
    for mistake in task.mistakes:
        found = judged(task, with_mistake(task, mistake))
        assert found is not None, mistake
        assert found.cause == mistake.cause, mistake


REFERENCES = [name for name, task in TASKS.items() if task.reference is not None and task.kind != "repair"]


def test_every_backward_pass_has_a_reference():
    asked = {name for name, task in TASKS.items() if task.entry in ("backward", "gradients") and task.kind == "write"}
    assert asked == set(REFERENCES)


@pytest.mark.parametrize("name", REFERENCES)
def test_backward_passes_are_what_autodiff_gives(name):
    task = TASKS[name]
    arguments = task.inputs(np.random.default_rng(1))[0][0]
    loss, variables = task.reference(*arguments)
    with enable_x64(True):
        expected = jax.tree.leaves(jax.jit(jax.grad(loss))(jax.tree.map(jnp.asarray, variables)))
    mine = load(task.solution, task.entry)(*arguments)
    for one, other in zip(mine if isinstance(mine, tuple) else (mine,), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-9)


JACOBIANS = {
    "sigmoid-jacobian": lambda a: (jax.nn.sigmoid, jnp.log(a / (1 - a))),
    "softmax-jacobian": lambda p: (jax.nn.softmax, jnp.log(p)),
    "linear-jacobian": lambda x, kernel: (lambda x: x @ kernel, x),
}


@pytest.mark.parametrize("name", JACOBIANS)
def test_jacobians_are_what_autodiff_gives(name):
    arguments = TASKS[name].inputs(np.random.default_rng(1))[0][0]
    function, at = JACOBIANS[name](*arguments)
    mine = load(TASKS[name].solution, "jacobian")(*arguments)
    np.testing.assert_allclose(mine, jax.jacobian(function)(jnp.asarray(at)), rtol=1e-4, atol=1e-6)


def figures(name):
    """Return the words of an exercise's statement and fact."""
    return f"{TASKS[name].statement} {TASKS[name].fact}".replace(",", " ").replace(":", " ").split()


def test_figures_in_words_are_those_of_the_library():
    z = jnp.array([[-3.0]])

    def slope(activation, at=z):
        return float(activation.backward(activation.forward((), (), at, train=True)[2], jnp.ones((1, 1)))[1][0, 0])

    for activation in (fnn.sigmoid, fnn.tanh, fnn.leaky_relu()):
        assert f"{slope(activation):.2g}" in " ".join(figures("predict-activation-choice")).replace("0.01.", "0.01")
    assert f"{slope(fnn.tanh) ** 10:.0e}" in figures("tanh-backward")
    assert abs(slope(fnn.sigmoid, 0 * z) - load(TASKS["predict-sigmoid-slope"].solution, "answer")()) < 1e-6
    loss = fnn.softmax_cross_entropy.forward(jnp.zeros((1, 10)), jnp.array([0]))[0]
    assert abs(loss - load(TASKS["predict-uniform-loss"].solution, "answer")()) < 1e-6
    neuron = fnn.LinearParams(jnp.array([[0.2], [0.8], [-0.5]]), jnp.array([2.0]))
    weighted = fnn.linear_forward(neuron, jnp.array([[1.0, 2.0, 3.0]]))[0]
    assert f"{float(weighted[0, 0]):.1f}" in TASKS["neuron-forward"].statement
    assert abs(fnn.sigmoid_forward(weighted)[0] - load(TASKS["predict-neuron"].solution, "answer")()) < 1e-6


STEPS = {
    "sgd-step": (fnn.sgd(0.1), (), (0.1,)),
    "momentum-step": (fnn.momentum(0.1, 0.9), ("v",), (0.1, 0.9)),
    "nesterov-step": (fnn.nesterov(0.1, 0.9), ("v",), (0.1, 0.9)),
    "adam-step": (fnn.adam(0.1), ("m", "s"), (0.1,)),
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_are_those_of_the_optimizers(name):
    optimizer, kept, settings = STEPS[name]
    params, first, gradient = np.random.default_rng(2).normal(size=(3, 4))
    moments = [first, np.abs(first)][: len(kept)]
    leaves, structure = jax.tree.flatten(optimizer.init(jnp.asarray(params)))
    slots = iter(moments)
    state = [jnp.asarray(next(slots)) if leaf.shape else jnp.asarray(2, leaf.dtype) for leaf in leaves]
    updates, _ = optimizer.update(jnp.asarray(gradient), jax.tree.unflatten(structure, state), jnp.asarray(params))
    step = 3 if name == "adam-step" else None
    mine = load(TASKS[name].solution, "step")(params, *moments, *([step] if step else []), gradient, *settings)
    np.testing.assert_allclose(mine[0] if kept else mine, params + updates, rtol=1e-5)


def test_the_archive_has_the_solutions_of_their_text():
    assert archive.solutions() == SOLUTIONS  # otherwise: python -m tests.practice.solutions


def test_the_archive_that_is_written_is_the_one_that_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "FILE", tmp_path / "solutions.bin")
    archive.FILE.write_bytes(archive.pack({"double": SOLUTIONS["relu-backward"]}))
    archive.solutions.cache_clear()
    try:
        assert archive.solutions() == {"double": SOLUTIONS["relu-backward"]}
    finally:
        archive.solutions.cache_clear()


def test_solutions_are_not_in_the_files_of_the_package():
    data = [file.read_bytes() for file in Path(practice.__file__).parent.rglob("*") if file.suffix in (".py", ".bin")]
    lines = {
        line.strip()
        for task in practice.tasks()
        for line in task.solution.splitlines()
        if len(line.strip()) > 20 and not line.startswith(("import", "def")) and not line.endswith("= params")
    }
    assert len(lines) > 50
    assert not [line for line in lines if any(line.encode() in text for text in data)]


OWN = r"""
from funcnn.practice.builders import batches, write
from funcnn.practice.task import Mistake

TASKS = (
    write(
        "double", "Twice", "Warming up", "y = 2 x for each entry of x (batch, features).", "forward(x)",
        inputs=batches(lambda r, n, f: (r.normal(size=(n, f)),)), hints=("Multiply.", "By a number.", "By 2."),
        fact="!", outputs=("y",), solution="def forward(x):\n    return 2 * x",
        mistakes=[
            Mistake("shape", "2 * x", "2 @ x", "This one raises."),
            Mistake("wrong_operand", "2 * x", "x**2", "y is twice x, not its square."),
        ],
    ),
)
"""


def test_own_tasks_from_a_folder(tmp_path, monkeypatch, capsys):
    own = tmp_path / "own"
    own.mkdir()
    (own / "own.py").write_text(OWN)
    tasks = catalogue.tasks(own)
    assert len(tasks) == len(TASKS) + 1
    assert grade_task(tasks[-1], "def forward(x):\n    return x * 2").ok
    result = grade_task(tasks[-1], "def forward(x):\n    return x ** 2")
    assert (result.cause, "twice" in result.message) == ("wrong_operand", True)
    monkeypatch.chdir(tmp_path)
    assert command.main(["--tasks", "own", "write"]) == 0
    assert command.main(["--tasks", "own", "hint", "double"]) == 0
    assert "hint 1 of 3: Multiply." in capsys.readouterr().out
    (own / "other.py").write_text(OWN)
    with pytest.raises(ValueError, match="names that are not taken, got double"):
        catalogue.tasks(f"{own}/.")
    (own / "other.py").write_text("TASKS = [1]")
    with pytest.raises(ValueError, match="a tuple TASKS"):
        catalogue.tasks(f"{own}/../own")


def test_an_own_task_may_have_words_and_its_mistakes_stand_in_its_solution():
    task = write(
        "direction", "Uphill", "Warming up", "The word for s, 'up' or 'down', and its sign.", "forward(word)",
        inputs=lambda random: ([("up",), ("down",)],), hints=("Look.",), fact="!", outputs=("turned", "sign"),
        example=("up",), solution="def forward(word):\n    return ('down', -1) if word == 'up' else ('up', 1)",
    )  # fmt: skip
    assert "for\n\n    word = up\n\nthe result is\n\n    turned = down\n    sign = -1" in task.statement
    assert grade_task(task, task.solution).ok
    result = grade_task(task, "def forward(word):\n    return ('down', -1)")
    assert (result.cause, result.message[:25]) == ("choice", "turned: 'down' isn't it. ")
    with pytest.raises(ValueError, match=r"expected text of the solution of direction, got '2 \* x'"):
        with_mistake(task, Mistake("scaled", "2 * x", "x", "Twice."))


def test_the_checker_explains_backward_passes_whatever_the_precision():
    wrong = "import numpy as np\ndef backward(z, da):\n    return np.where(z > 0, da * z * z, 0)"
    for is_x64 in (False, True):
        with enable_x64(is_x64):
            result = practice.grade("relu-backward", wrong)
        assert (result.ok, result.cause) == (False, "activation_derivative"), result
        assert "on paper" in result.message
        assert "hint" not in result.message


def test_files_hints_and_progress_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main([]) == 0
    assert len(list((tmp_path / "practice").glob("*.py"))) == len(TASKS)
    file = tmp_path / "practice" / "relu_backward.py"
    assert command.main(["grade", str(file), "--json"]) == 1
    text = capsys.readouterr().out
    assert json.loads(text[text.index("{") :])["relu-backward"]["cause"] == "unfinished"
    file.write_text("def backward(z, da):\n    return da * (z > 0)\n")
    assert command.main(["grade", str(file), "--junit", "out.xml"]) == 0
    assert 'failures="0"' in (tmp_path / "out.xml").read_text()
    assert command.main([]) == 0  # what is there stays
    assert "z > 0" in file.read_text()
    for arguments in (["hint", "relu-backward"], ["progress"], ["list"], ["solution", "relu-backward", "--yes"]):
        assert command.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "relu-backward, hint 1 of 3" in shown
    assert "1 of " in shown
    for _ in range(2):  # the second time there is no answer to keep
        assert command.main(["reset", "relu-backward"]) == 0
        assert "NotImplementedError" in file.read_text()
        assert "z > 0" in file.with_suffix(".py.before").read_text()
    for _ in range(3):
        assert command.main(["hint", "practice/sgd_step.py"]) == 0
    assert "practice solution sgd-step" in capsys.readouterr().out.splitlines()[-1]
    assert command.main(["grade", "relu-backward"]) == 1
    assert "stub isn't filled in" in capsys.readouterr().out
    for arguments in (
        ["report", "nowhere"],
        ["report", "practice/sgd_step.py"],
        ["grade", "relu-backward", "--junit", "nowhere/x.xml"],
    ):
        assert command.main(arguments) == 2
        assert f"found none at {arguments[-1]}" in capsys.readouterr().err
    assert command.main(["export", "--to", "practice/sgd_step.py"]) == 2
    assert "expected a folder, got the file practice/sgd_step.py" in capsys.readouterr().err
    assert command.main(["grade", "practice"]) == 2
    assert command.main(["hint", "relu-backwards"]) == 2
    assert "'relu-backward'" in capsys.readouterr().err


def test_paragraphs_of_statements_are_filled_as_a_whole():
    for task in TASKS.values():
        paragraphs = command.file_text(task).split('"""')[1].split("\n\n")
        for part in paragraphs[1:]:
            lines = part.strip("\n").splitlines()
            if not part.startswith(" "):
                following = [line.split()[0] for line in lines[1:]]
                widths = [len(line) + len(word) for line, word in zip(lines[:-1], following, strict=True)]
                assert all(width >= 100 for width in widths), task.name


def test_shapes_stand_beside_what_an_answer_raised_and_beside_another_shape():
    result = practice.grade("neuron-forward", "def forward(x, weights, bias):\n    return weights @ x + bias")
    assert result.message.endswith("Given: x of shape (4, 3), weights of shape (3,).")
    result = practice.grade("neuron-forward", "def forward(x, weights, bias):\n    return (x * weights).sum() + bias")
    assert result.message == "z: expected shape (4,), got (). Given: x of shape (4, 3), weights of shape (3,)."
    result = practice.grade("neuron-forward", "def forward(x, weights):\n    return x @ weights")
    assert result.message.endswith("Expected: def forward(x, weights, bias)")
    assert (
        practice.grade("predict-xor", "def answer():\n    return '3'").message == "answer: expected numbers, got str."
    )
    result = practice.grade("two-layer-network", "def gradients(params, x, y):\n    return params[0] @ x")
    assert "params of shapes ((5, 4), (4,), (4, 1), (1,)), x of shape (1, 5)" in result.message


def test_notebooks_and_a_report_of_a_class(tmp_path):
    for form in ("plain", "nbgrader", "otter"):
        files = teaching.export(tmp_path / form, practice.tasks(), form)
        assert len(files) == 7
        for file in files:
            cells = json.loads(file.read_text())["cells"]
            names = [cell["id"] for cell in cells]
            assert len(set(names)) == len(names)
            for cell in cells:
                if cell["cell_type"] == "code":
                    compile("".join(cell["source"]), str(file), "exec")
            if form == "otter":
                marks = ["".join(cell["source"]).split("\n")[0] for cell in cells if cell["cell_type"] == "raw"]
                question = ["QUESTION", "SOLUTION", "TESTS"]
                assert marks[1:3] == [f"# BEGIN {question[0]}", f"# BEGIN {question[1]}"]
                assert all(marks.count(f"# BEGIN {mark}") == marks.count(f"# END {mark}") > 4 for mark in question)
    student = tmp_path / "class" / "ada"
    student.mkdir(parents=True)
    (student / "sgd_step.py").write_text("def step(params, gradient, rate):\n    return params + rate * gradient\n")
    table, page = teaching.report(tmp_path / "class", practice.tasks())
    assert table.read_text().splitlines() == ["student,sgd-step", "ada,sign"]
    assert "<td>sign</td>" in page.read_text()


def test_saved_files_are_graded_and_shown(tmp_path, capsys):
    changes = [{(1, str(tmp_path / "b.py")), (1, str(tmp_path / "a.py")), (3, str(tmp_path / "gone.py"))}]
    assert [path.name for path in watching.paths(changes, 3)] == ["a.py", "b.py"]
    pytest.importorskip("rich")
    right = practice.Grade(True, None, "Right. [it] is kept.", 0.1, "printed [bold]text")
    watching.show("relu-backward", right, 1, 2, "practice/x.py")
    watching.show("relu-backward", right._replace(ok=False, cause="kink"), 1, 2, "practice/x.py")
    shown = capsys.readouterr().out
    for part in ("relu-backward: right", "printed [bold]text", "[it] is kept", "1 of 2 done", "Next: practice/x.py"):
        assert part in shown
    assert "not yet (kink)" in shown
    assert "practice hint relu-backward" in shown
