"""What one fresh process measures for ``first_check``: the first check of its name. It prints one line of JSON."""

import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas

import funcnn as fnn
from funcnn.pytest_plugin.cases import Sweep
from funcnn.pytest_plugin.fixture import Gradcheck

RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(RANDOM.normal(size=shape), jnp.float32)


def readme():
    """The README's example, its gradient mended."""

    def loss(params, x, y):
        return jnp.mean((x @ params["w"] + params["b"] - y) ** 2)

    def gradient(params, x, y):
        error = x @ params["w"] + params["b"] - y
        return {"w": 2 * x.T @ error / len(y), "b": 2 * error.mean()}

    x, y = jnp.array([[1.0, 2.0], [3.0, 5.0], [2.0, 0.0]]), jnp.array([1.0, 2.0, 3.0])
    params = {"w": jnp.array([0.5, 0.25]), "b": jnp.array(0.0)}
    jax.block_until_ready(jax.grad(loss)(params, x, y))
    return lambda: fnn.check_gradients(loss, gradient, params, x, y)


def model():
    """The digits network."""
    batch = fnn.Batch(normal(64, 64), jnp.asarray(RANDOM.integers(10, size=64)))
    network, loss = fnn.mlp((64, 128, 64, 10)), fnn.softmax_cross_entropy
    params, state = network.init(jax.random.key(0))
    jax.block_until_ready(fnn.autodiff_value_and_grad(network, loss)(params, state, batch))
    return lambda: fnn.check_model(network, loss, batch)


def while_loop():
    """A fixed point of tanh(0.3 w z + b), found by iteration; its rule solves the linear system."""

    def step(params, z):
        return jnp.tanh(0.3 * params["w"] @ z + params["b"])

    def solve(params, z):
        def goes_on(state):
            return (jnp.max(jnp.abs(state[0] - state[1])) > 1e-12) & (state[2] < 500)

        def go_on(state):
            return step(params, state[0]), state[0], state[2] + 1

        return jax.lax.while_loop(goes_on, go_on, (step(params, z), z, 0))[0]

    fixed_point = jax.custom_vjp(solve)

    def backward(residuals, dz):
        params, z = residuals
        jacobian = jax.jacobian(lambda z: step(params, z))(z)
        adjoint = jnp.linalg.solve(jnp.eye(len(z), dtype=z.dtype) - jacobian.T, dz)
        return jax.vjp(lambda params: step(params, z), params)[1](adjoint)[0], jnp.zeros_like(z)

    def forward(params, start):
        z = solve(params, start)
        return z, (params, z)

    fixed_point.defvjp(forward, backward)
    params = {"w": normal(4, 4), "b": normal(4)}
    return lambda: fnn.check_custom_vjp(fixed_point, params, jnp.zeros(4))


def pallas_kernel():
    """SiLU by a kernel that writes float32."""

    def kernel(x_ref, y_ref):
        y_ref[...] = x_ref[...] * jax.nn.sigmoid(x_ref[...])

    def run(x):
        return pallas.pallas_call(kernel, out_shape=jax.ShapeDtypeStruct(x.shape, jnp.float32), interpret=True)(x)

    silu = jax.custom_vjp(run)

    def backward(x, dy):
        share = jax.nn.sigmoid(x)
        return (dy * (share + x * share * (1 - share)),)

    silu.defvjp(lambda x: (run(x), x), backward)
    x = normal(4, 8)
    return lambda: fnn.check_custom_vjp(silu, x)


def sweep():
    """RMS norm by a kernel over blocks of two rows, swept over six shapes in two dtypes; its rule sums over rows."""

    def kernel(x_ref, scale_ref, y_ref):
        x = x_ref[...].astype(jnp.float32)
        y_ref[...] = (x * root(x) * scale_ref[...]).astype(y_ref.dtype)

    def root(x):
        return jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5)

    def plain(x, scale):
        return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5) * scale

    def run(x, scale):
        rows = x.reshape(-1, x.shape[-1])
        by_row = pallas.BlockSpec((2, rows.shape[1]), lambda block: (block, 0))
        whole = pallas.BlockSpec(scale.shape, lambda block: (0,))
        normalized = pallas.pallas_call(
            kernel, grid=(pallas.cdiv(len(rows), 2),), in_specs=[by_row, whole], out_specs=by_row,
            out_shape=jax.ShapeDtypeStruct(rows.shape, rows.dtype), interpret=True,
        )  # fmt: skip
        return normalized(rows, scale).reshape(x.shape)

    norm = jax.custom_vjp(run)

    def backward(kept, dy):
        x, scale, dy = (part.astype(jnp.float32) for part in (*kept, dy))
        n, g = x * root(x), dy * scale
        dx, dscale = root(x) * (g - n * (g * n).mean(-1, keepdims=True)), (dy * n).reshape(-1, len(scale)).sum(0)
        return dx.astype(kept[0].dtype), dscale.astype(kept[1].dtype)

    norm.defvjp(lambda x, scale: (run(x, scale), (x, scale)), backward)
    shapes = ((3, 8), (5, 7), (1, 6), (2, 3, 4), (4, 1, 5), (7, 2))
    fixture = Gradcheck(Sweep(shapes=shapes, dtypes=("float32", "bfloat16")))
    x, scale = normal(4, 6), normal(6)

    def check():
        report = fixture.rule(norm, x, scale, reference=plain)
        (record,) = fixture.records
        if (record["cases"], record["rejected"]) != (13, 0):
            raise RuntimeError(f"expected the given arguments and twelve cases, got {record}.")
        return report

    return check


CHECKS = {"readme": readme, "model": model, "while_loop": while_loop, "pallas": pallas_kernel, "sweep": sweep}


def main() -> None:
    jax.block_until_ready(jnp.zeros(()) + 1)
    check = CHECKS[sys.argv[1]]()
    started, cpu = time.perf_counter(), time.process_time()
    report = check()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    print(json.dumps({"ok": report.ok, "seconds": seconds, "cpu_seconds": cpu_seconds}))


if __name__ == "__main__":
    main()
