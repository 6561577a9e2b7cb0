"""Members cut among the cores give what one call gives, whatever their number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnn import _cores
from funcnn._numerics.precision import enable_x64

on_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="threads share the cores of a CPU alone")


@jax.jit
def _drawn(scale, keys):
    return jax.vmap(lambda key: {"values": scale * jax.random.normal(key, (3,)), "key": jax.random.split(key)[0]})(keys)


@pytest.fixture(autouse=True)
def three_cores(monkeypatch):
    monkeypatch.setattr(_cores.os, "sched_getaffinity", lambda process: {0, 1, 2}, raising=False)


@pytest.mark.parametrize("members", [1, 2, 7, 9])
def test_parts_are_put_together_in_order(members):
    keys = jax.random.split(jax.random.key(0), members)
    found, expected = _cores.on_every_core(_drawn, 2.0, keys), _drawn(2.0, keys)
    np.testing.assert_allclose(found["values"], expected["values"], rtol=1e-6)
    assert (found["key"] == expected["key"]).all()


@on_cpu
@pytest.mark.parametrize(("members", "parts"), [(8, [3, 3, 3]), (4, [2, 2]), (2, [1, 1])])
def test_parts_have_one_size_and_none_is_of_copies_alone(monkeypatch, members, parts):
    sizes = []
    monkeypatch.setattr(_cores.jax, "block_until_ready", lambda found: sizes.append(len(found["values"])) or found)
    _cores.on_every_core(_drawn, 2.0, jax.random.split(jax.random.key(0), members))
    assert sizes == parts


def test_settings_of_the_callers_context_hold():
    other = not jax.config.read("jax_enable_x64")
    with enable_x64(other):
        dtype = jnp.result_type(float)
        found = _cores.on_every_core(_drawn, jnp.array(2.0), jax.random.split(jax.random.key(0), 6))
    assert found["values"].dtype == dtype == (jnp.float64 if other else jnp.float32)


@on_cpu
def test_an_error_of_a_part_is_raised(monkeypatch):
    def fails(found):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(_cores.jax, "block_until_ready", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        _cores.on_every_core(_drawn, 2.0, jax.random.split(jax.random.key(0), 6))


def test_traced_members_stay_in_one_program():
    keys = jax.random.split(jax.random.key(0), 6)
    np.testing.assert_allclose(
        jax.jit(lambda keys: _cores.on_every_core(_drawn, 2.0, keys)["values"])(keys), _drawn(2.0, keys)["values"],
        rtol=1e-6,
    )  # fmt: skip


def test_what_is_shared_may_be_traced():
    keys = jax.random.split(jax.random.key(0), 6)

    def total(scale):
        return _cores.on_every_core(_drawn, scale, keys)["values"].sum()

    np.testing.assert_allclose(jax.grad(total)(2.0), total(1.0), rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(total)(jnp.array([1.0, 2.0])), [total(1.0), total(2.0)], rtol=1e-5)


def test_what_lies_on_several_devices_is_one_program(monkeypatch):
    class Elsewhere:
        platform = "cpu"

    keys = jax.random.split(jax.random.key(0), 6)
    assert _cores._cores_for(keys) == (3 if jax.default_backend() == "cpu" else 1)
    monkeypatch.setattr(type(jnp.zeros(1)), "devices", lambda array: {Elsewhere(), Elsewhere()})
    assert _cores._cores_for(jnp.zeros(1), keys) == 1


def test_a_second_call_compiles_nothing(caplog):
    def compiled(members):
        caplog.clear()
        with jax.log_compiles():
            _cores.on_every_core(_drawn, 2.0, members)
        return [said for said in caplog.messages if said.startswith("Compiling")]

    keys = jax.random.split(jax.random.key(0), 6)
    _cores.on_every_core(_drawn, 2.0, keys)
    assert not compiled(keys)
    assert compiled(jax.random.split(jax.random.key(0), 12))
