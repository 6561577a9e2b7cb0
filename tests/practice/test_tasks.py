"""Every exercise: its solution is right, its stub and planted code are not, and mistakes have their own cause."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from funcnn import practice
from funcnn.practice import command, teaching
from funcnn.practice.grading import _judge_values
from funcnn.practice.process import Array, Reply
from funcnn.practice.task import load, with_mistake

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


FORWARDS = {
    "sigmoid-backward": (lambda z: jax.nn.sigmoid(z), lambda z: jax.nn.sigmoid(z)),
    "tanh-backward": (jnp.tanh, jnp.tanh),
    "relu-backward": (jax.nn.relu, lambda z: z),
    "softmax-backward": (jax.nn.softmax, jax.nn.softmax),
    "skip-backward": (lambda z: z + jnp.tanh(z), lambda z: z),
}


def test_solutions_are_what_autodiff_gives():
    random = np.random.default_rng(1)
    z, dy = random.normal(size=(2, 4, 3))
    for name, (forward, kept) in FORWARDS.items():
        (expected,) = jax.vjp(forward, jnp.asarray(z))[1](jnp.asarray(dy))
        np.testing.assert_allclose(load(TASKS[name].solution, "backward")(np.asarray(kept(z)), dy), expected, rtol=1e-5)
    labels = random.integers(0, 3, size=4)
    for name, loss, target in (
        ("mean-squared-error-backward", fnn.mean_squared_error, dy),
        ("softmax-cross-entropy-backward", fnn.softmax_cross_entropy, labels),
    ):
        expected = jax.grad(lambda z, loss=loss, target=target: loss.forward(z, jnp.asarray(target))[0])(jnp.asarray(z))
        np.testing.assert_allclose(load(TASKS[name].solution, "backward")(z, target), expected, rtol=1e-5)


def test_network_and_batch_norm_are_what_autodiff_gives():
    (params, x, y) = TASKS["two-layer-network"].inputs(np.random.default_rng(3))[0][0]

    def loss(params):
        w1, b1, w2, b2 = params
        p = jax.nn.sigmoid(jax.nn.relu(x @ w1 + b1[None]) @ w2 + b2[None])
        return -jnp.mean(y * jnp.log(p) + (1 - y) * jnp.log(1 - p))

    for mine, right in zip(
        load(TASKS["two-layer-network"].solution, "gradients")(params, x, y), jax.grad(loss)(params), strict=True
    ):
        np.testing.assert_allclose(mine, right, rtol=1e-5)
    x, scale, dy, epsilon = TASKS["batch-norm-backward"].inputs(np.random.default_rng(3))[0][0]

    def normalized(x, scale):
        return scale[None] * (x - x.mean(0, keepdims=True)) / jnp.sqrt(x.var(0, keepdims=True) + epsilon)

    dx, dscale = jax.vjp(normalized, jnp.asarray(x), jnp.asarray(scale))[1](jnp.asarray(dy))
    mine = load(TASKS["batch-norm-backward"].solution, "backward")(x, scale, dy, epsilon)
    np.testing.assert_allclose(mine[0], dx, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(mine[1], dscale, rtol=1e-5)


def test_files_hints_and_progress_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main([]) == 0
    assert len(list((tmp_path / "practice").glob("*.py"))) == len(TASKS)
    file = tmp_path / "practice" / "relu_backward.py"
    assert command.main(["grade", str(file), "--json"]) == 1
    text = capsys.readouterr().out
    assert json.loads(text[text.index("{") :])["relu-backward"]["cause"] == "raised"
    file.write_text("def backward(z, da):\n    return da * (z > 0)\n")
    assert command.main(["grade", str(file), "--junit", "out.xml"]) == 0
    assert 'failures="0"' in (tmp_path / "out.xml").read_text()
    assert command.main([]) == 0  # what is there stays
    assert "z > 0" in file.read_text()
    for arguments in (["hint", "relu-backward"], ["progress"], ["list"], ["solution", "relu-backward", "--yes"]):
        assert command.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "Hint 1 of 3" in shown
    assert "1 of " in shown
    assert command.main(["reset", "relu-backward"]) == 0
    assert "NotImplementedError" in file.read_text()
    assert command.main(["hint", "relu-backwards"]) == 2
    assert "'relu-backward'" in capsys.readouterr().err


def test_notebooks_and_a_report_of_a_class(tmp_path):
    for nbgrader in (False, True):
        files = teaching.export(tmp_path / f"notebooks-{nbgrader}", nbgrader=nbgrader)
        assert len(files) == 7
        for file in files:
            for cell in json.loads(file.read_text())["cells"]:
                if cell["cell_type"] == "code":
                    compile("".join(cell["source"]), str(file), "exec")
    student = tmp_path / "class" / "ada"
    student.mkdir(parents=True)
    (student / "sgd_step.py").write_text("def step(params, gradient, rate):\n    return params + rate * gradient\n")
    table, page = teaching.report(tmp_path / "class")
    assert table.read_text().splitlines() == ["student,sgd-step", "ada,sign"]
    assert "<td>sign</td>" in page.read_text()
