"""What is the same run: single changes are refused by name, and what changes no number resumes bit by bit."""

import functools
import json
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnn as fnn
from funcnn._numerics.precision import enable_x64
from funcnn.training.program import held_settings, program_digest
from tests.training.runs import X, Y, batches, bits, run, stream
from tests.training.test_checkpoints import change_description

NUMPY = (np.asarray(X, np.float64), np.asarray(Y, np.float64))  # of the precision of each run


def weighted(weight):
    weights = jnp.full((1, 1), weight, X.dtype)

    def forward(prediction, target):
        return (weights * (prediction - target) ** 2).mean(), (prediction, target)

    return fnn.Loss(forward, lambda residuals, dloss: dloss * 2 * weights * (residuals[0] - residuals[1]) / X.shape[0])


def doubled_backward():
    plain = fnn.mean_squared_error
    return fnn.Loss(plain.forward, lambda residuals, dloss: plain.backward(residuals, 2 * dloss))


def later(rate):
    return fnn.sgd(optax.join_schedules([optax.constant_schedule(0.01), optax.constant_schedule(rate)], [1000]))


def masked(least):
    """Decay for the arrays with at least as many axes."""
    mask = lambda tree: jax.tree.map(lambda leaf: leaf.ndim >= least, tree)  # noqa: E731
    return optax.chain(optax.add_decayed_weights(1e-3, mask), fnn.sgd(0.01))


def with_dropout(rate):
    return {"model": fnn.mlp((3, 8, 1), fnn.tanh, normalization=fnn.batch_norm, dropout=rate)}


OTHER_STREAM = [*batches()[:1], *batches()[2:], batches()[1]]

CHANGES = [
    ({}, {"optimizer": fnn.adam(0.010005)}, "learning rate 0.01 in the checkpoint, 0.010005 here"),
    ({}, {"optimizer": fnn.adam(0.01, b1=0.9001)}, "b1 0.9 in the checkpoint, 0.9001 here"),
    ({}, {"optimizer": fnn.adam(0.01, b2=0.9991)}, "b2 0.999 in the checkpoint, 0.9991 here"),
    ({}, {"optimizer": fnn.adam(0.01, eps=1.1e-8)}, "eps 1e-08 in the checkpoint, 1.1e-08 here"),
    ({}, {"optimizer": fnn.adam(optax.constant_schedule(0.01))}, "learning rate|optimizer|opt_state"),
    ({}, {"loss": doubled_backward()}, "function .* in the checkpoint, .* here|the loss's backward pass differs"),
    ({}, {"grad": fnn.autodiff_value_and_grad}, "gradient function manual_value_and_grad in the checkpoint, autodiff"),
    ({}, {"data": (X.at[3, 1].add(1e-6), Y)}, "the values of data.x are others"),
    ({}, {"data": (X, Y.at[3, 0].add(1e-6))}, "the values of data.y are others"),
    ({}, {"key": jax.random.key(1)}, "another key than in the checkpoint"),
    ({}, {"batch_size": 4}, "batch_size 8 in the checkpoint, 4 here"),
    ({}, {"accumulate": 2}, "accumulate 1 in the checkpoint, 2 here"),
    ({}, {"monitor": True}, "monitor 0 in the checkpoint, 15 here"),
    ({}, {"validation": (X, Y)}, "validation.x none in the checkpoint"),
    ({}, with_dropout(0.1001), r"model dropout\(rate=0.1\) in the checkpoint, dropout\(rate=0.1001\) here"),
    ({}, {"precision": "highest"}, "jax_default_matmul_precision none in the checkpoint, highest here"),
    ({}, {"threefry": False}, "jax_threefry_partitionable True in the checkpoint, False here"),
    ({"x64": False, "data": NUMPY}, {"x64": True, "data": NUMPY}, "jax_enable_x64 False in the checkpoint, True here"),
    ({"optimizer": later(0.01)}, {"optimizer": later(0.001)}, r"value \(2\) 0.01 in the checkpoint, 0.001 here"),
    ({"optimizer": masked(1)}, {"optimizer": masked(2)}, "least 1 in the checkpoint, 2 here"),
    ({"loss": weighted(1.0)}, {"loss": weighted(1.0001)}, "weights 1.0 in the checkpoint, 1.000"),
    ({"data": batches(), "batch_size": None}, {"data": OTHER_STREAM, "batch_size": None}, "the stream's batches"),
    ({"validation": batches()}, {"validation": OTHER_STREAM}, "the values of validation.batches are others"),
]


def run_in(folder, epochs, *, precision=None, threefry=True, x64=None, **changes):
    with (
        jax.default_matmul_precision(precision), jax.threefry_partitionable(threefry),
        enable_x64(jax.config.jax_enable_x64 if x64 is None else x64),
    ):  # fmt: skip
        return run(epochs=epochs, checkpoints=folder, **changes)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a run of one epoch."""
    folder = tmp_path_factory.mktemp("same") / "base"
    run_in(folder, 1)
    return folder


@pytest.mark.parametrize(("before", "changes", "words"), CHANGES)
def test_a_single_change_is_refused_by_name(base, tmp_path, before, changes, words):
    folder = base
    if before:
        folder = tmp_path / "run"
        run_in(folder, 1, **before)
    kept = sorted(path.name for path in folder.iterdir())
    with pytest.raises(fnn.CheckpointError, match=f"of another: ({words})"):
        run_in(folder, 2, **before | changes)
    assert sorted(path.name for path in folder.iterdir()) == kept


def renamed():
    """The same loss under other names."""
    return fnn.Loss(
        lambda p, t: fnn.mean_squared_error.forward(p, t), lambda r, d: fnn.mean_squared_error.backward(r, d)
    )


def test_what_changes_no_number_resumes_bit_by_bit(tmp_path):
    """Each epoch is another call, with something else that is given or left out."""
    saved = fnn.Checkpoints(tmp_path / "run")
    harmless = [
        {},
        {"callbacks": [lambda progress: None]},
        {"callbacks": [fnn.JSONLines(tmp_path / "log.jsonl")]},
        {"callbacks": [fnn.TensorBoard(tmp_path / "board")]},
        {"progress": True},
        {"data": NUMPY},
        {"loss": renamed()},
        {"optimizer": fnn.adam(learning_rate=0.01, b2=0.999)},
        {"checkpoints": saved._replace(keep=1)},
        {"checkpoints": saved._replace(damaged="previous")},
        {"checkpoints": saved._replace(on_difference="restart")},
    ]
    for number, changes in enumerate(harmless, 1):
        resumed = run(**{"epochs": number, "checkpoints": saved} | changes)
    assert bits(resumed) == bits(run(epochs=len(harmless)))


def test_the_first_batch_of_a_stream_is_compared_after_the_last_epoch(tmp_path):
    stream(epochs=2, checkpoints=tmp_path / "run")
    resumed = stream(epochs=3, checkpoints=tmp_path / "run")
    assert bits(resumed) == bits(stream(epochs=3))


def test_another_run_begins_anew_beside_the_first_where_asked(tmp_path):
    run(epochs=1, checkpoints=tmp_path / "run")
    restarts = fnn.Checkpoints(tmp_path / "run", on_difference="restart")
    for _ in range(2):  # the second call finds its own checkpoints
        with pytest.warns(UserWarning, match=r"learning rate 0.01 .* goes on to the next folder, run-2"):
            other = run(epochs=1, checkpoints=restarts, optimizer=fnn.adam(0.02))
    assert bits(other) == bits(run(epochs=1, optimizer=fnn.adam(0.02)))
    assert {path.name for path in tmp_path.iterdir()} == {"run", "run-2"}


def test_other_versions_are_a_warning(tmp_path, monkeypatch):
    run(epochs=1, checkpoints=tmp_path)
    monkeypatch.setattr(jax, "__version__", "0.0.1")
    with pytest.warns(UserWarning, match=r"jax .*, got jax 0\.0\.1.*its bits may differ"):
        run(epochs=2, checkpoints=tmp_path)


def test_another_version_may_trace_the_same_functions_to_another_program(tmp_path):
    run(epochs=1, checkpoints=tmp_path)
    first, second = (tmp_path / f"{step:012d}" for step in (3, 6))
    change_description(first, lambda description: description["programs"].update(loss="another program"))
    with pytest.raises(fnn.CheckpointError, match="of another: the loss's forward pass differs"):
        run(epochs=2, checkpoints=tmp_path)
    change_description(first, lambda description: description["versions"].update(jax="0.0.1"))
    with pytest.warns(UserWarning, match=r"jax 0\.0\.1, got jax"):
        resumed = run(epochs=2, checkpoints=tmp_path)
    assert bits(resumed) == bits(run(epochs=2))
    change_description(second, lambda description: description["versions"].update(jax="0.0.1"))
    with pytest.raises(fnn.CheckpointError, match=r"of another: learning rate 0\.01 in the checkpoint, 0.02 here"):
        run(epochs=2, checkpoints=tmp_path, optimizer=fnn.adam(0.02))


def test_batches_that_do_not_fit_the_loss_of_this_run_are_named(tmp_path, as_for_users):
    labelled = [(x, np.zeros(len(x), int)) for x, _ in batches()]
    changes = {"model": fnn.mlp((3, 2)), "checkpoints": tmp_path}
    stream(data=labelled, loss=fnn.softmax_cross_entropy, epochs=1, **changes)
    values = [(x, np.zeros((len(x), 2), x.dtype)) for x, _ in batches()]
    with pytest.raises(fnn.CheckpointError, match="of another: its batches don't fit this model: mean_squared_error"):
        stream(data=values, epochs=2, **changes)


def test_a_copy_of_the_sources_has_an_unknown_version(tmp_path, monkeypatch):
    def not_installed(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", not_installed)
    run(epochs=1, checkpoints=tmp_path)
    about = json.loads((tmp_path / "000000000003" / "about" / "metadata").read_text())
    assert about["versions"] == {"jax": jax.__version__, "funcnn": "unknown", "device": jax.default_backend()}


def test_digests_hold_constants_and_no_names():
    table = np.arange(3.0)
    x = jnp.ones(3)

    def scaled(factors, size):
        return lambda values: jax.jit(lambda inner: inner * jnp.asarray(factors, inner.dtype) + size)(values)

    def other_name(values):
        return scaled(table, 0.5)(values)

    assert program_digest(scaled(table, 0.5), x) == program_digest(other_name, x)
    others = [scaled(table + 1e-6, 0.5), scaled(table, 0.50001), lambda values: values]
    assert len({program_digest(each, x) for each in [scaled(table, 0.5), *others]}) == 4
    assert held_settings(scaled(table, 0.5)) == {"size": 0.5}


def test_digests_hold_no_addresses_of_functions():
    def reduced(combine):
        return lambda x: jax.lax.reduce(x, jnp.zeros((), x.dtype), combine, (0,))

    def larger(factor):
        return reduced(lambda a, b: jnp.maximum(a, b * jnp.asarray(factor, b.dtype)))

    x = jnp.ones(3)
    assert program_digest(larger(1.5), x) == program_digest(larger(1.5), x)
    assert program_digest(larger(1.5), x) != program_digest(larger(1.6), x)


class Schedule:
    """A schedule as some write it: its settings are attributes, and its method is passed on."""

    def __init__(self, rate):
        self.rate = rate
        self.kind = None

    def at(self, step):
        return self.rate


def test_settings_are_found_wherever_a_function_holds_them():
    def scaled(step, rate, by=1.0):
        return by * rate

    def unfinished():
        def function(step):
            return late, early

        early = 0.25
        yield function
        late = None

    compiled = jax.jit(functools.partial(scaled, rate=0.125))
    assert held_settings(functools.partial(scaled, 3, rate=0.5, by=2.0)) == {"rate": 0.5, "by": 2.0}
    assert held_settings(compiled) == {"rate": 0.125}
    assert held_settings(Schedule(0.75).at) == {"rate": 0.75}
    assert held_settings(next(unfinished())) == {"early": 0.25}
    table = {"small": 1, "large": {"decay": 0.9}}
    assert held_settings(lambda step: table) == {"small": 1, "decay": 0.9}
