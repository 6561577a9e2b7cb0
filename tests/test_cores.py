"""Members cut among the cores give what one call gives, whatever their number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnn import _cores
from funcnn.gradcheck.precision import enable_x64


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


def test_every_core_gets_a_part_of_the_same_size(monkeypatch):
    sizes = []
    monkeypatch.setattr(_cores.jax, "block_until_ready", lambda found: sizes.append(len(found["values"])) or found)
    _cores.on_every_core(_drawn, 2.0, jax.random.split(jax.random.key(0), 8))
    assert sizes == [3, 3, 3]


def test_settings_of_the_callers_context_hold():
    with enable_x64(True):
        found = _cores.on_every_core(_drawn, jnp.array(2.0, jnp.float64), jax.random.split(jax.random.key(0), 6))
    assert found["values"].dtype == jnp.float64


def test_traced_members_stay_in_one_program():
    keys = jax.random.split(jax.random.key(0), 6)
    np.testing.assert_allclose(
        jax.jit(lambda keys: _cores.on_every_core(_drawn, 2.0, keys)["values"])(keys), _drawn(2.0, keys)["values"],
        rtol=1e-6,
    )  # fmt: skip


def test_a_second_call_compiles_nothing():
    compiled = []
    keys = jax.random.split(jax.random.key(0), 6)
    _cores.on_every_core(_drawn, 2.0, keys)
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    _cores.on_every_core(_drawn, 2.0, keys)
    assert not compiled
    _cores.on_every_core(_drawn, 2.0, jax.random.split(jax.random.key(0), 12))
    assert compiled
