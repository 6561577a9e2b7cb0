"""Weights of PyTorch: its layouts, and what a mismatch says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from safetensors.numpy import save_file

import funcnn as fnn
from funcnn._numerics.precision import enable_x64
from tests.cases import WIDEST, largest_gap

RNG = np.random.default_rng(0)


def drawn(*shape):
    return RNG.normal(size=shape).astype(np.float32)


STACK = {
    "0.weight": drawn(6, 3, 3, 3), "0.bias": drawn(6),
    "1.weight": drawn(6), "1.bias": drawn(6), "1.running_mean": drawn(6), "1.running_var": drawn(6) ** 2 + 1,
    "1.num_batches_tracked": drawn(),
    "5.weight": drawn(2, 6 * 2 * 4), "5.bias": drawn(2),
}  # fmt: skip
MODEL = fnn.serial(
    fnn.conv2d(3, 6, 3, padding=((1, 1), (1, 1))), fnn.batch_norm(6), fnn.relu, fnn.max_pool2d(2), fnn.flatten,
    fnn.linear(6 * 2 * 4, 2),
)  # fmt: skip


def by_hand(x):
    """The same network in PyTorch's layout: channels in front of the positions."""
    z = lax.conv_general_dilated(x, STACK["0.weight"], (1, 1), ((1, 1), (1, 1)))
    per_channel = (
        STACK[f"1.{name}"].reshape(1, -1, 1, 1) for name in ("running_mean", "running_var", "weight", "bias")
    )
    mean, variance, scale, bias = per_channel
    z = (z + STACK["0.bias"].reshape(1, -1, 1, 1) - mean) / np.sqrt(variance + 1e-5) * scale + bias
    a = jnp.where(z > 0, z, jnp.zeros_like(z))
    pooled = a.reshape(*a.shape[:2], 2, 2, 4, 2).max(axis=(3, 5))
    return pooled.reshape(len(x), -1) @ STACK["5.weight"].T + STACK["5.bias"][None]


@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_a_convolutional_stack_computes_the_same(kind, save_torch, tmp_path):
    file = save_torch(STACK)
    if kind == "safetensors":
        file = tmp_path / "weights.safetensors"
        save_file(STACK, str(file))
    params, state = fnn.load_torch(file, MODEL)
    x = drawn(2, 3, 4, 8)
    y = fnn.predict(MODEL, params, state, jnp.moveaxis(jnp.asarray(x), 1, -1))
    assert largest_gap(y, by_hand(jnp.asarray(x))) < 1e-4


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_is_turned_around(groups, save_torch):
    weight, x = drawn(2, 3, 3, 3), drawn(1, 2, 4, 4)
    model = fnn.conv_transpose2d(2, 3 * groups, 3, stride=2, padding="VALID", groups=groups)
    params, state = fnn.load_torch(save_torch({"weight": weight, "bias": drawn(3 * groups)}), model)
    y = model.forward(params, state, jnp.moveaxis(jnp.asarray(x), 1, -1), train=False)[0]
    # PyTorch's definition: every entry of x adds its multiple of the kernel, to the outputs of its group.
    expected, every = np.zeros((1, 9, 9, 3 * groups), np.float32), np.arange(3 * groups)
    for i in range(4):
        for j in range(4):
            for inputs, outputs in zip(np.split(np.arange(2), groups), np.split(every, groups), strict=True):
                added = np.einsum("nc,cohw->nhwo", x[:, inputs, i, j], weight[inputs])
                expected[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3, outputs] += added
    assert largest_gap(y, expected + np.asarray(params.bias)) < 1e-4


GPT = fnn.gpt(7, 6, 4, 2, 2)


def gpt_tensors(*, linear):
    """GPT-2's weights by the names of Hugging Face; with ``linear`` transposed, as nanoGPT has them."""
    tensors = {"wte.weight": drawn(7, 4), "wpe.weight": drawn(6, 4)}
    for number in range(2):
        for norm in ("ln_1", "ln_2"):
            tensors |= {f"h.{number}.{norm}.weight": drawn(4), f"h.{number}.{norm}.bias": drawn(4)}
        for name, sizes in (("attn.c_attn", (4, 12)), ("attn.c_proj", (4, 4)), ("mlp.c_fc", (4, 16)),
                            ("mlp.c_proj", (16, 4))):  # fmt: skip
            weight = drawn(*sizes)
            tensors |= {f"h.{number}.{name}.weight": weight.T if linear else weight}
            tensors |= {f"h.{number}.{name}.bias": drawn(sizes[1])}
    return tensors | {"ln_f.weight": drawn(4), "ln_f.bias": drawn(4)}


@pytest.mark.parametrize("linear", [False, True], ids=["Conv1D", "Linear"])
def test_gpt_2_by_its_names(linear, save_torch):
    tensors = gpt_tensors(linear=linear)
    renamed = {f"transformer.{name}": value for name, value in tensors.items()} | {
        "lm_head.weight": tensors["wte.weight"]
    }
    params, state = fnn.load_torch(save_torch(renamed), GPT)
    table, positions, blocks, norm = params
    turn = np.transpose if linear else np.asarray
    assert largest_gap((table.table, positions.table), (tensors["wte.weight"], tensors["wpe.weight"])) == 0
    attention = blocks[0].inner[1]
    joint = turn(tensors["h.1.attn.c_attn.weight"])
    assert largest_gap(attention.key.kernel[1], joint[:, 4:8]) == 0
    assert largest_gap(attention.output.kernel[0], turn(tensors["h.0.attn.c_proj.weight"])) == 0
    assert largest_gap(blocks[1].inner[3].kernel[1], turn(tensors["h.1.mlp.c_proj.weight"])) == 0
    assert largest_gap(norm.scale, tensors["ln_f.weight"]) == 0
    like = jax.eval_shape(GPT.init, jax.random.key(0))
    assert jax.tree.structure((params, state)) == jax.tree.structure(like)
    assert GPT.forward(params, state, jnp.array([[1, 2]]), train=False)[0].shape == (1, 2, 7)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"module.lm_head.weight": drawn(7, 4)},
         r"expected module\.lm_head\.weight equal to module\.transformer\.wte\.weight"),
        ({"module.transformer.h.1.attn.rotary": drawn(4)},
         r"expected the tensors of GPT-2 alone, got module\.transformer\.h\.1\.attn\.rotary too"),
        ({"head.weight": drawn(4)}, r"expected the tensors of GPT-2 alone, got head\.weight too"),
    ],
    ids=["untied", "inside", "outside"],
)  # fmt: skip
def test_other_tensors_of_a_gpt_are_named(more, message, save_torch):
    tensors = {f"module.transformer.{name}": value for name, value in gpt_tensors(linear=False).items()}
    fnn.load_torch(save_torch(tensors), GPT)
    with pytest.raises(ValueError, match=message):
        fnn.load_torch(save_torch(tensors | more), GPT)


PLAIN = {"weight": drawn(4, 3), "bias": drawn(4)}
LINEARS = {"0.weight": drawn(4, 3), "0.bias": drawn(4), "2.weight": drawn(1, 4), "2.bias": drawn(1)}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"0.weight": drawn(4, 3)}, r"expected a tensor bias for layers\[0\] linear, got weight in module '0'"),
        ({"0.weight": drawn(3, 3), "0.bias": drawn(4)},
         r"weight that becomes an array of shape \(3, 4\) for layers\[0\] linear, got shape \(3, 3\) in module '0'"),
        ({"0.weight": drawn(4, 3), "0.bias": drawn(4)}, r"expected a module for layers\[2\] linear, got none left"),
        (LINEARS | {"4.weight": drawn(1)},
         r"expected the 2 layers of the model that have parameters, got 1 more modules in .*: 4"),
        (LINEARS | {"0.scale": drawn(1)}, r"the layer's tensors alone .* got scale too"),
    ],
    ids=["no bias", "shape", "too few", "too many", "another tensor"],
)  # fmt: skip
def test_every_mismatch_is_named(tensors, message, save_torch, as_for_users):
    with pytest.raises(ValueError, match=message):
        fnn.load_torch(save_torch(tensors), fnn.serial(fnn.linear(3, 4), fnn.tanh, fnn.linear(4, 1)))


def test_the_scale_of_an_rms_norm(save_torch):
    scale = drawn(3)
    params, _ = fnn.load_torch(save_torch({"norm.weight": scale}), fnn.rms_norm(3))
    assert largest_gap(params.scale, scale) == 0


@pytest.mark.parametrize(
    ("model", "tensors", "message"),
    [
        (fnn.rnn(3, 4), PLAIN, r"a layer whose layout in PyTorch is known, not RecurrentParams for rnn"),
        (
            fnn.linear(3, 4)._replace(init=lambda key: (fnn.linear(3, 4).init(key)[0], jnp.zeros(2))),
            PLAIN,
            "a state whose layout in PyTorch is known, not ",
        ),
        (fnn.conv2d(3, 4, 2), PLAIN | {"weight": drawn(4)}, r"of shape \(2, 2, 3, 4\) for conv2d, got shape \(4,\)"),
        (fnn.linear(3, 4), PLAIN | {"bias": np.arange(4)}, "bias of a floating dtype for linear, got int64"),
    ],
    ids=["layer", "state", "kernel of a vector", "integers"],
)
def test_what_has_no_place_in_a_layer_is_named(model, tensors, message, tmp_path, as_for_users):
    save_file(tensors, str(tmp_path / "weights.safetensors"))
    with pytest.raises(ValueError, match=rf"load_torch\(model\): expected .*{message}"):
        fnn.load_torch(tmp_path / "weights.safetensors", model)


def test_64_bits_are_refused_where_jax_has_none(tmp_path):
    save_file({name: array.astype(np.float64) for name, array in PLAIN.items()}, str(tmp_path / "wide.safetensors"))
    with enable_x64(False), pytest.raises(ValueError, match=r"at most 32 bits .*, got float64.*jax\.config"):
        fnn.load_torch(tmp_path / "wide.safetensors", fnn.linear(3, 4))


def test_a_missing_file_and_no_layer(tmp_path, as_for_users):
    with pytest.raises(FileNotFoundError, match=r"load_torch\(path\): expected an existing file"):
        fnn.load_torch(tmp_path / "none.pt", fnn.linear(3, 4))
    with pytest.raises(TypeError, match=r"load_torch\(model\): expected a layer"):
        fnn.load_torch(tmp_path / "none.pt", "linear")


def test_wide_weights_keep_their_digits(tmp_path):
    file = tmp_path / "wide.safetensors"
    kernel = RNG.normal(size=(4, 3))
    save_file({"weight": kernel.astype(WIDEST), "bias": np.zeros(4, WIDEST)}, str(file))
    params, _ = fnn.load_torch(file, fnn.linear(3, 4))
    assert largest_gap(params.kernel, kernel.T) == (0 if WIDEST == jnp.float64 else pytest.approx(0, abs=1e-6))
