"""PyTorch's weights in models of funcnn: kernels transposed, names matched, and errors that name every mismatch."""

import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from funcnn._checks import check_is_layer
from funcnn._initialization import initial_shapes
from funcnn._torch_file import is_torch_file, read_torch_file
from funcnn.layers.convolution import ConvParams
from funcnn.layers.embedding import EmbeddingParams
from funcnn.layers.linear import LinearParams
from funcnn.layers.normalization import BatchNormState, NormalizationParams
from funcnn.layers.positions import PositionParams
from funcnn.layers.rms_normalization import RMSNormParams
from funcnn.layers.self_attention import AttentionParams
from funcnn.layers.traversal import PlacedLayer, init_leaves, leaf_layers, spec_of
from funcnn.types import Layer, Params, State
from funcnn.weights import read_safetensors


class Module(NamedTuple):
    """A module of PyTorch that has tensors: its name, and its tensors by their last names."""

    name: str
    tensors: dict[str, np.ndarray]


def load_torch(path: str | os.PathLike[str], model: Layer) -> tuple[Params, State]:
    """Read the parameters and running statistics of a model from a ``state_dict`` of PyTorch.

    Two layouts are known:

    - GPT-2's, with the names of Hugging Face (``wte.weight``, ``h.0.attn.c_attn.weight``, with or without
      ``transformer.`` in front, and what ``DataParallel`` and ``torch.compile`` add), for ``gpt(...)``. Its kernels may
      be those of Hugging Face's ``Conv1D`` or transposed, those of ``Linear`` (nanoGPT). An output ``lm_head.weight``
      has to be equal to ``wte.weight``.
    - Any chain of linear layers, convolutions, normalizations and embeddings: the modules of the file in their order
      are the layers of the model that have parameters, in theirs. A file of ``torch.save`` keeps the order in which the
      modules were defined; the names of a safetensors file are sorted, numbers by their size.

    PyTorch keeps the kernel of a linear layer as ``(out_features, in_features)``, that of a convolution as
    ``(out_channels, in_channels / groups, *window)``, that of a transposed convolution as
    ``(in_channels, out_channels / groups, *window)`` and flipped, and flattens images with the channels first; all of
    these are brought to funcnn's order. PyTorch isn't needed, and no code from the file runs.

    Args:
        path: a file of ``torch.save(module.state_dict(), path)`` or a safetensors file.
        model: the layer whose ``init`` returns trees of this structure. It is not executed.

    Returns:
        ``(params, state)``, in the file's dtypes.

    Raises:
        FileNotFoundError: the file doesn't exist.
        ValueError: the file is damaged, no state_dict or older than PyTorch 1.6; modules and layers differ in number,
            kind or shape, with the first difference by both names; a GPT-2 has other tensors or an output of its own;
            64-bit tensors where JAX's 64-bit types aren't enabled.
        TypeError: model isn't a layer.

    Example:
        >>> from funcnn.models import gpt
        >>> params, state = load_torch("pytorch_model.bin", gpt(50257, 1024, 768, 12, 12))  # doctest: +SKIP

    Source:
        Radford et al. 2019, as published by Hugging Face; the format of ``torch.save`` since PyTorch 1.6.
    """
    check_is_layer("load_torch(model)", model)
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"load_torch(path): expected an existing file, got {file}. Is the path right?")
    if is_torch_file(file):
        tensors = read_torch_file(file)
    else:
        tensors = dict(sorted(read_safetensors(file).items(), key=_natural))
    gpt = _gpt_modules(file, tensors)
    modules = iter(gpt if gpt is not None else _modules_in_order(tensors))
    counts = sum(bool(jax.tree.leaves(initial_shapes(leaf.layer))) for leaf in leaf_layers(model))
    converter = _Converter(file, modules)
    params, state = init_leaves(converter.leaf, model)
    left = [module.name for module in modules]
    if left:
        raise ValueError(
            f"load_torch(model): expected the {counts} layers of the model that have parameters, got {len(left)} more "
            f"modules in {file}: {', '.join(left[:4])}. Add their layers to the model."
        )
    return params, state


def _natural(item: tuple[str, Any]) -> list[tuple[bool, Any]]:
    """Return a key that sorts names with their numbers by size: layers.2 before layers.10."""
    return [
        (not part.isdigit(), int(part) if part.isdigit() else part) for part in re.split(r"(\d+)|\.", item[0]) if part
    ]


def _modules_in_order(tensors: dict[str, np.ndarray]) -> list[Module]:
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in tensors.items():
        module, _, field = name.rpartition(".")
        found.setdefault(module, {})[field] = tensor
    return [Module(name, fields) for name, fields in found.items()]


def _gpt_modules(file: Path, tensors: dict[str, np.ndarray]) -> list[Module] | None:
    """Return the modules of a GPT-2 in forward order, ``None`` where the names are others."""
    start = next((name.removesuffix("wte.weight") for name in tensors if name.endswith("wte.weight")), "")
    joint = tensors.get(f"{start}h.0.attn.c_attn.weight")
    if joint is None or f"{start}wte.weight" not in tensors:
        return None
    _check_tied(file, tensors, start)
    named = {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
    is_linear = joint.shape[0] > joint.shape[1]  # (3 features, features) in Linear, the other way round in Conv1D.

    def module(name: str) -> Module:
        fields = {field: named.pop(f"{name}.{field}") for field in ("weight", "bias") if f"{name}.{field}" in named}
        if name.rpartition(".")[2] in ("c_attn", "c_proj", "c_fc") and "weight" in fields and not is_linear:
            fields["weight"] = fields["weight"].T
        return Module(name, fields)

    def block(number: int) -> Iterator[Module]:
        yield module(f"h.{number}.ln_1")
        joint, out = module(f"h.{number}.attn.c_attn"), module(f"h.{number}.attn.c_proj")
        parts = {f"in_{field}": value for field, value in joint.tensors.items()}
        parts |= {f"out_{field}": value for field, value in out.tensors.items()}
        yield Module(f"h.{number}.attn", parts)
        yield from (module(f"h.{number}.{name}") for name in ("ln_2", "mlp.c_fc", "mlp.c_proj"))

    blocks = 1 + max(int(found[1]) for found in map(_BLOCK.match, named) if found)
    middle = [part for number in range(blocks) for part in block(number)]
    modules = [module("wte"), module("wpe"), *middle, module("ln_f")]
    unknown = [f"{start}{name}" for name in named if name != "lm_head.weight" and not _MASK.fullmatch(name)]
    unknown += [name for name in tensors if not name.startswith(start) and name != _output_name(start)]
    if unknown:
        raise ValueError(
            f"load_torch(model): expected the tensors of GPT-2 alone, got {', '.join(unknown[:4])} too in {file} "
            f"({len(unknown)} such in all). gpt(...) has no place for them: merge or remove them before saving."
        )
    return modules


_BLOCK = re.compile(r"h\.(\d+)\.")
_MASK = re.compile(r"h\.\d+\.attn\.(masked_)?bias")
"""The causal masks that Hugging Face's first versions saved."""


def _output_name(start: str) -> str:
    return f"{start.removesuffix('transformer.')}lm_head.weight"


def _check_tied(file: Path, tensors: dict[str, np.ndarray], start: str) -> None:
    """Raise where the output of a GPT-2 isn't its embedding."""
    output = tensors.get(_output_name(start))
    if output is not None and not np.array_equal(output, tensors[f"{start}wte.weight"]):
        raise ValueError(
            f"load_torch(model): expected {_output_name(start)} equal to {start}wte.weight, since the output of "
            f"gpt(...) is tied to its embedding, got another one in {file}. Tie the two in PyTorch before training."
        )


class _Converter:
    """Takes the next module of the file for every leaf layer that has parameters."""

    def __init__(self, file: Path, modules: Iterator[Module]):
        self.file, self.modules = file, modules
        self.channels = 0
        self.flattened = 0
        """The channels of images that were flattened since the last convolution."""

    def leaf(self, leaf: PlacedLayer) -> tuple[Params, State]:
        """Return the parameters and state of a leaf layer."""
        params, state = initial_shapes(leaf.layer)
        if not jax.tree.leaves((params, state)):
            if spec_of(leaf.layer).name == "flatten":
                self.flattened = self.channels
            return params, state
        module = next(self.modules, None)
        if module is None:
            raise ValueError(
                f"load_torch(model): expected a module for {leaf.name}, got none left in {self.file}. "
                "Build the model with the layers of the file alone."
            )
        with_tensors = _Tensors(self.file, leaf, module)
        converted = self._params(leaf, params, with_tensors), self._state(state, with_tensors)
        with_tensors.check_all_used()
        return converted

    def _params(self, leaf: PlacedLayer, params: Params, tensors: "_Tensors") -> Params:
        match params:
            case LinearParams(kernel, bias):
                kernel = tensors.get("weight", kernel, lambda weight: self._unflattened(weight.T))
                self.flattened = 0
                return LinearParams(kernel, tensors.get("bias", bias))
            case ConvParams(kernel, bias):
                self.channels = kernel.shape[-1]
                is_transposed = spec_of(leaf.layer).name == "conv_transpose2d"
                change = partial(_transposed_kernel, kernel.shape[-2]) if is_transposed else _convolution_kernel
                return ConvParams(tensors.get("weight", kernel, change), tensors.get("bias", bias))
            case NormalizationParams(scale, bias):
                return NormalizationParams(tensors.get("weight", scale), tensors.get("bias", bias))
            case RMSNormParams(scale):
                return RMSNormParams(tensors.get("weight", scale))
            case EmbeddingParams(table) | PositionParams(table):
                return type(params)(tensors.get("weight", table))
            case AttentionParams():
                return _attention(params, tensors)
            case _:
                raise tensors.error(
                    f"a layer whose layout in PyTorch is known, not {type(params).__name__}", "this one", _BY_HAND
                )

    def _unflattened(self, kernel: np.ndarray) -> np.ndarray:
        """Return the kernel after a flatten with its rows in funcnn's order, the channels last."""
        if not self.flattened or kernel.shape[0] % self.flattened:
            return kernel
        by_channel = kernel.reshape(self.flattened, -1, kernel.shape[1])
        return by_channel.swapaxes(0, 1).reshape(kernel.shape)

    def _state(self, state: State, tensors: "_Tensors") -> State:
        match state:
            case BatchNormState(mean, variance):
                tensors.ignore("num_batches_tracked")
                return BatchNormState(tensors.get("running_mean", mean), tensors.get("running_var", variance))
            case ():
                return ()
            case _:
                raise tensors.error(
                    f"a state whose layout in PyTorch is known, not {type(state).__name__}", "this one", _BY_HAND
                )


def _convolution_kernel(weight: np.ndarray) -> np.ndarray:
    return np.moveaxis(weight, (0, 1), (-1, -2))


def _transposed_kernel(in_of_group: int, weight: np.ndarray) -> np.ndarray:
    """Return the kernel flipped, from PyTorch's axes: all channels of x, and the channels of one group of y."""
    _, out_of_group, *window = weight.shape
    turned = np.flip(weight, tuple(range(2, weight.ndim)))
    by_group = turned.reshape(-1, in_of_group, out_of_group, *window)
    return np.moveaxis(by_group, (1, 0, 2), (-3, -2, -1)).reshape(*window, in_of_group, -1)


def _attention(params: AttentionParams, tensors: "_Tensors") -> AttentionParams:
    """Return query, key and value kernels from the joint one, side by side in that order, and the output's."""
    like = (params.query, params.key, params.value)
    kernels = [(part.kernel.shape[1], part.kernel) for part in like]
    joint = jax.ShapeDtypeStruct((like[0].kernel.shape[0], sum(size for size, _ in kernels)), like[0].kernel.dtype)
    cuts = np.cumsum([size for size, _ in kernels])[:-1]
    kernel = tensors.get("in_weight", joint, np.transpose)
    bias = tensors.get("in_bias", jax.ShapeDtypeStruct(joint.shape[1:], joint.dtype))
    parts = zip(jnp.split(kernel, cuts, axis=1), jnp.split(bias, cuts), strict=True)
    out = LinearParams(
        tensors.get("out_weight", params.output.kernel, np.transpose), tensors.get("out_bias", params.output.bias)
    )
    query, key, value = (LinearParams(*part) for part in parts)
    return AttentionParams(query, key, value, out)


_SAME_LAYERS = "Build the model with the layers that the modules of the file are, in their order."
_BY_HAND = "Convert its tensors by hand."


class _Tensors:
    """The tensors of a module, each checked against the array whose place it takes."""

    def __init__(self, file: Path, leaf: PlacedLayer, module: Module):
        self.file, self.leaf, self.module = file, leaf, module
        self.unused = set(module.tensors)

    def error(self, expected: str, got: str, advice: str = _SAME_LAYERS) -> ValueError:
        return ValueError(
            f"load_torch(model): expected {expected} for {self.leaf.name}, got {got} in module {self.module.name!r} of "
            f"{self.file}. {advice}"
        )

    def get(self, name: str, like: Any, change: Callable[[np.ndarray], np.ndarray] = lambda tensor: tensor) -> PyTree:
        """Return a tensor in funcnn's order."""
        if name not in self.module.tensors:
            raise self.error(f"a tensor {name}", ", ".join(sorted(self.module.tensors)) or "none")
        self.unused.discard(name)
        tensor = self.module.tensors[name]
        try:
            array = change(tensor)
        except ValueError:
            array = tensor
        if array.shape != like.shape:
            raise self.error(f"{name} that becomes an array of shape {like.shape}", f"shape {tensor.shape}")
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise self.error(f"{name} of a floating dtype", str(array.dtype), "Save module.float().state_dict().")
        if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
            raise self.error(
                f"{name} of at most 32 bits", str(array.dtype),
                "Enable 64-bit types, jax.config.update('jax_enable_x64', True), or save module.float().state_dict().",
            )  # fmt: skip
        return jnp.asarray(np.ascontiguousarray(array))

    def ignore(self, name: str) -> None:
        self.unused.discard(name)

    def check_all_used(self) -> None:
        if self.unused:
            raise self.error("the layer's tensors alone", f"{', '.join(sorted(self.unused))} too")
