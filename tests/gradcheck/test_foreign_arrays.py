"""PyTorch's tensors and Flax's modules in a check, with small classes in their place."""

import copy
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from tests.cases import WIDEST

pytestmark = [
    pytest.mark.skipif(jnp.float64 != WIDEST, reason="the checker judges in float64 whatever JAX is set to"),
    pytest.mark.usefixtures("torch"),
]
BFLOAT16, INT16 = object(), object()


class Tensor:
    """An array that is no array of NumPy or JAX, with the methods of ``torch.Tensor`` that a check calls."""

    device = "cpu"

    def __init__(self, array, requires_grad=False):
        self.array, self.requires_grad = array, requires_grad

    @property
    def dtype(self):
        return BFLOAT16 if self.array.dtype == jnp.bfloat16 else self.array.dtype

    def detach(self):
        return Tensor(self.array)

    def numpy(self):
        if self.requires_grad or self.dtype is BFLOAT16:
            raise RuntimeError("PyTorch refuses both")
        return self.array

    def view(self, dtype):
        return Tensor(self.array.view({BFLOAT16: jnp.bfloat16, INT16: np.int16}[dtype]))

    def requires_grad_(self, requires_grad):
        self.requires_grad = requires_grad
        return self

    def is_floating_point(self):
        return bool(jnp.issubdtype(self.array.dtype, jnp.floating))

    def is_complex(self):
        return np.iscomplexobj(self.array)

    def unchanged(self):
        return copy.copy(self)

    cpu = resolve_conj = resolve_neg = contiguous = unchanged


@pytest.fixture
def torch(monkeypatch):
    module = types.ModuleType("torch")
    module.Tensor, module.bfloat16, module.int16 = Tensor, BFLOAT16, INT16
    module.as_tensor = lambda array, device: Tensor(array)
    monkeypatch.setitem(sys.modules, "torch", module)


def test_the_caller_gets_tensors_as_its_own_and_the_report_has_their_dtype():
    params = {"w": Tensor(np.arange(1.0, 4.0), requires_grad=True), "count": Tensor(np.arange(2))}
    x = Tensor(np.array([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]]))

    def loss(params, x):
        assert all(isinstance(tensor, Tensor) for tensor in (params["w"], params["count"], x))
        assert (params["w"].requires_grad, x.requires_grad) == (True, False)
        return Tensor(np.square(x.array @ params["w"].array).sum(), requires_grad=True)

    def gradient(factor):
        return lambda params, x: {"w": Tensor(factor * x.array.T @ (x.array @ params["w"].array)), "count": None}

    report = fnn.check_gradients(loss, gradient(2.0), params, x)
    assert report.ok, str(report)
    assert [(leaf.path, leaf.dtype) for leaf in report.leaves] == [("['w']", "float64")]
    assert [leaf.path for leaf in report.not_compared] == ["['count']"]
    report = fnn.check_gradients(loss, gradient(1.0), params, x)
    assert not report.ok


def test_none_is_a_gradient_of_zeros_where_the_loss_does_not_depend_on_a_tensor():
    params = [Tensor(np.arange(1.0, 4.0), requires_grad=True), Tensor(np.ones(2), requires_grad=True)]

    def loss(params):
        return Tensor(np.square(params[0].array).sum())

    def depends(params):
        return Tensor(np.square(params[0].array).sum() + params[1].array.sum())

    def gradient(params):
        return [Tensor(2 * params[0].array), None]

    assert fnn.check_gradients(loss, gradient, params).ok
    assert [leaf.ok for leaf in fnn.check_gradients(depends, gradient, params).leaves] == [True, False]


def test_complex_gradients_are_by_pytorch_s_convention():
    """PyTorch's is the conjugate of JAX's."""
    z = Tensor(np.array([1 + 2j, -3j]), requires_grad=True)

    def loss(z):
        return Tensor(np.square(np.abs(z.array)).sum())

    assert fnn.check_gradients(loss, lambda z: Tensor(2 * z.array), z).ok
    assert not fnn.check_gradients(loss, lambda z: Tensor(2 * z.array.conj()), z).ok


def test_tensors_of_bfloat16_stay_so_for_the_caller():
    w = Tensor(np.array([1.0, 2.0, -0.5], jnp.bfloat16), requires_grad=True)
    seen = []

    def loss(w):
        seen.append((w.dtype, w.requires_grad))
        return Tensor(np.square(w.array.astype(np.float64)).sum())

    def gradient(factor):
        return lambda w: Tensor((factor * w.array.astype(np.float64)).astype(w.array.dtype))

    report = fnn.check_gradients(loss, gradient(2.0), w)
    assert report.ok, str(report)
    assert report.leaves[0].dtype == "bfloat16"
    assert seen[0] == (BFLOAT16, True)
    assert not fnn.check_gradients(loss, gradient(1.0), w).ok


def test_a_module_is_not_its_parameters():
    class Module:
        def named_parameters(self):
            return iter(())

    with pytest.raises(TypeError, match=r"got <.*Module .*Pass dict\(module\.named_parameters\(\)\)"):
        fnn.check_gradients(lambda module: 0.0, lambda module: None, Module())


class Variable:
    """A variable of a Flax module, such as a statistic of its batch norm."""

    def __init__(self, value):
        self.value = value


class Param(Variable):
    """A variable that is a parameter."""


class Module:
    """A Flax module: its variables are its attributes."""

    __module__ = "flax.nnx.module"

    def __init__(self, **variables):
        self.__dict__.update(variables)


class State(Module):
    """What ``nnx.grad`` returns: the variables of a module by name."""

    __module__ = "flax.nnx.statelib"


def _with_names(kind, key):
    def flatten(node):
        return [(key(name), value) for name, value in vars(node).items()], tuple(vars(node))

    jax.tree_util.register_pytree_with_keys(
        kind, flatten, lambda names, values: kind(**dict(zip(names, values, strict=True)))
    )


for kind in (Variable, Param):
    _with_names(kind, jax.tree_util.GetAttrKey)
_with_names(Module, jax.tree_util.GetAttrKey)
_with_names(State, jax.tree_util.DictKey)


def test_gradients_of_a_flax_module_are_a_state_of_the_same_names(monkeypatch):
    nnx = types.ModuleType("flax.nnx")
    nnx.Variable, nnx.Param = Variable, Param
    monkeypatch.setitem(sys.modules, "flax.nnx", nnx)
    module = Module(kernel=Param(jnp.arange(1.0, 4.0)), mean=Variable(jnp.ones(3)))

    def loss(module):
        return ((module.kernel.value - module.mean.value) ** 2).sum()

    def gradient(factor, name="kernel"):
        return lambda module: State(**{name: Param(factor * (module.kernel.value - module.mean.value))})

    report = fnn.check_gradients(loss, gradient(2.0), module)
    assert report.verdict == "agrees", str(report)
    assert len(report.leaves) == 1
    assert [tuple(leaf) for leaf in report.not_compared] == [(".mean", "Variable", "no parameter of the module")]
    assert fnn.check_gradients(loss, gradient(1.0), module).leaves[0].cause == "scaled"
    with pytest.raises(ValueError, match="expected the tree structure of the floating parameters"):
        fnn.check_gradients(loss, gradient(2.0, "bias"), module)
    parameters = Module(kernel=Param(jnp.arange(1.0, 4.0)))
    report = fnn.check_gradients(lambda m: (m.kernel.value**2).sum(),
                                 lambda m: State(kernel=Param(2 * m.kernel.value)), parameters)  # fmt: skip
    assert report.verdict == "agrees", str(report)
