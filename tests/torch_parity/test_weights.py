"""``fnn.load_torch`` on files that PyTorch wrote: the forward passes are equal."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import funcnn as fnn
from tests.torch_parity import networks
from tests.torch_parity.tensors import arrays

RNG = np.random.default_rng(11)
PAIR = ((1, 1), (1, 1))

STACKS = {
    "linear": (
        nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 2)),
        fnn.serial(fnn.linear(3, 5), fnn.tanh, fnn.linear(5, 4), fnn.gelu, fnn.linear(4, 2)),
        (4, 3),
    ),
    "normalized": (
        nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.SiLU(), nn.BatchNorm1d(6), nn.Linear(6, 4),
                      nn.RMSNorm(4, eps=1e-5), nn.GroupNorm(2, 4)),
        fnn.serial(fnn.linear(3, 6), fnn.layer_norm(6), fnn.silu, fnn.batch_norm(6), fnn.linear(6, 4),
                   fnn.rms_norm(4), fnn.group_norm(4, 2)),
        (4, 3),
    ),
    "convolutional": (
        nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
                      nn.Conv2d(6, 4, 3, padding=1, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 2 * 3, 5),
                      nn.ReLU(), nn.Linear(5, 2)),
        fnn.serial(fnn.conv2d(3, 6, 3), fnn.batch_norm(6), fnn.relu, fnn.max_pool2d(2), fnn.conv2d(6, 4, 3, groups=2),
                   fnn.relu, fnn.flatten, fnn.linear(4 * 2 * 3, 5), fnn.relu, fnn.linear(5, 2)),
        (2, 3, 4, 6),
    ),
    "of sequences": (
        nn.Sequential(nn.Conv1d(2, 4, 3, stride=2, dilation=2), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(),
                      nn.Linear(12, 2)),
        fnn.serial(fnn.conv1d(2, 4, 3, stride=2, dilation=2, padding="VALID"), fnn.group_norm(4, 2), fnn.relu,
                   fnn.flatten, fnn.linear(12, 2)),
        (2, 2, 9),
    ),
    "transposed": (
        nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(3, 2, 4, stride=2, padding=1),
                      nn.Flatten(), nn.Linear(2 * 8 * 6, 3)),
        fnn.serial(fnn.conv2d(1, 3, 3), fnn.relu, fnn.conv_transpose2d(3, 2, 4, stride=2, padding=((2, 2), (2, 2))),
                   fnn.flatten, fnn.linear(2 * 8 * 6, 3)),
        (2, 1, 4, 3),
    ),
}  # fmt: skip
"""PyTorch's module, funcnn's model, and the shape of x with the channels as the second axis."""


def drawn(module, seed=0):
    """Return the module in float64, nothing at its default, its running variances positive, ready for prediction."""
    generator = torch.Generator().manual_seed(seed)
    module.double().eval()
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.2, 0.9, generator=generator).mul_(torch.sign(torch.rand(tensor.shape) - 0.4))
        for name, buffer in module.named_buffers():
            if name.endswith("running_var"):
                buffer.abs_()
    return module


def predictions(name, file):
    """Return the predictions of a stack by PyTorch, and by funcnn with the weights of the file."""
    module, model, shape = STACKS[name]
    x = RNG.normal(size=shape)
    theirs = arrays(module(torch.from_numpy(x)))
    params, state = fnn.load_torch(file, model)
    return fnn.predict(model, params, state, jnp.moveaxis(jnp.asarray(x), 1, -1)), theirs


@pytest.mark.parametrize("name", STACKS)
def test_stacks(name, tmp_path, parity):
    torch.save(drawn(STACKS[name][0]).state_dict(), tmp_path / "weights.pt")
    ours, theirs = predictions(name, tmp_path / "weights.pt")
    parity(f"load_torch: {name}", {"forward": ours}, {"forward": theirs})


@pytest.mark.parametrize("name", STACKS)
def test_stacks_from_safetensors(name, tmp_path, parity):
    save_file(drawn(STACKS[name][0]).state_dict(), tmp_path / "weights.safetensors")
    ours, theirs = predictions(name, tmp_path / "weights.safetensors")
    parity(f"load_torch, safetensors: {name}", {"forward": ours}, {"forward": theirs})


def wrapped(name):
    return lambda module: {f"{name}{key}": value for key, value in module.state_dict().items()}


def with_buffers(module):
    """Return what Hugging Face's first files of GPT-2 have besides: the masks, and no ``transformer.`` in front."""
    tensors = {key.removeprefix("transformer."): value for key, value in module.state_dict().items()}
    mask = torch.tril(torch.ones(8, 8)).view(1, 1, 8, 8)
    return {key: value for key, value in tensors.items() if key != "lm_head.weight"} | {
        f"h.{number}.attn.{name}": value
        for number in range(2) for name, value in (("bias", mask), ("masked_bias", torch.tensor(-1e4)))
    }  # fmt: skip


def nano_checkpoint(module):
    """Return a checkpoint as nanoGPT writes it: the model, the optimizer and settings, in one dictionary."""
    optimizer = torch.optim.AdamW(module.parameters())
    networks.train(module, optimizer, torch.zeros(1, 3, dtype=int), torch.zeros(1, 3, dtype=int), steps=1)
    settings = {"n_layer": 2, "bias": True, "betas": (0.9, 0.95), "out_dir": "out", "best": torch.tensor(1.5)}
    return {"model": wrapped("_orig_mod.")(module), "optimizer": optimizer.state_dict(), "model_args": settings}


@pytest.mark.parametrize("linear", [networks.Conv1D, nn.Linear])
@pytest.mark.parametrize(
    "content", [nn.Module.state_dict, wrapped("module."), with_buffers, nano_checkpoint],
    ids=["state_dict", "in DataParallel", "with buffers", "nanoGPT's checkpoint"],
)  # fmt: skip
def test_gpt_2(linear, content, tmp_path, parity, request):
    sizes = (11, 8, 12, 3, 2)
    module, model = networks.drawn(networks.GPT(*sizes, linear=linear)), fnn.gpt(*sizes)
    torch.save(content(module), tmp_path / "gpt.pt")
    tokens = RNG.integers(0, 11, (3, 7))
    ours = fnn.predict(model, *fnn.load_torch(tmp_path / "gpt.pt", model), jnp.asarray(tokens))
    theirs = {"forward": arrays(module(torch.from_numpy(tokens)))}
    parity(f"load_torch: GPT-2, {request.node.callspec.id}", {"forward": ours}, theirs)


def test_an_untied_output_is_named(tmp_path):
    module = networks.drawn(networks.GPT(11, 8, 12, 3, 2))
    tensors = module.state_dict()
    torch.save(tensors | {"lm_head.weight": tensors["lm_head.weight"] + 1}, tmp_path / "gpt.pt")
    with pytest.raises(ValueError, match=r"expected lm_head\.weight .*equal to .*wte\.weight"):
        fnn.load_torch(tmp_path / "gpt.pt", fnn.gpt(11, 8, 12, 3, 2))


def test_another_tensor_in_a_gpt_is_named(tmp_path):
    tensors = networks.GPT(11, 8, 12, 3, 2).state_dict()
    torch.save(tensors | {"transformer.h.0.attn.c_attn.lora_a": torch.ones(2)}, tmp_path / "gpt.pt")
    with pytest.raises(ValueError, match=r"transformer\.h\.0\.attn\.c_attn\.lora_a"):
        fnn.load_torch(tmp_path / "gpt.pt", fnn.gpt(11, 8, 12, 3, 2))


LINEAR = fnn.linear(3, 4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_dtypes(dtype, tmp_path):
    module = drawn(nn.Linear(3, 4)).to(dtype)
    torch.save(module.state_dict(), tmp_path / "linear.pt")
    params, _ = fnn.load_torch(tmp_path / "linear.pt", LINEAR)
    assert str(params.kernel.dtype) == str(dtype).removeprefix("torch.")
    np.testing.assert_array_equal(np.asarray(params.kernel, np.float64), arrays(module.weight.double()).T)


def shared_storage():
    both = torch.arange(20, dtype=torch.float64)
    return {"weight": both[:12].view(4, 3), "bias": both[14:18]}


def transposed_view():
    return {"weight": torch.arange(12, dtype=torch.float64).view(3, 4).T, "bias": torch.ones((), dtype=float).expand(4)}


def parameters():
    return dict(drawn(nn.Linear(3, 4)).named_parameters())


@pytest.mark.parametrize("content", [shared_storage, transposed_view, parameters])
def test_views_and_parameters(content, tmp_path):
    tensors = content()
    torch.save(tensors, tmp_path / "linear.pt")
    params, _ = fnn.load_torch(tmp_path / "linear.pt", LINEAR)
    np.testing.assert_array_equal(params.kernel, arrays(tensors["weight"]).T)
    np.testing.assert_array_equal(params.bias, arrays(tensors["bias"]))


def test_a_whole_module_is_refused(tmp_path):
    torch.save(nn.Linear(3, 4), tmp_path / "module.pt")
    with pytest.raises(ValueError, match=r"Linear is no part of a state_dict"):
        fnn.load_torch(tmp_path / "module.pt", LINEAR)


def test_the_format_before_1_6_is_named(tmp_path):
    torch.save(nn.Linear(3, 4).state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"PyTorch before 1\.6"):
        fnn.load_torch(tmp_path / "old.pt", LINEAR)
