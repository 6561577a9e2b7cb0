"""``python -m funcnn gradcheck``: a check from the command line, the one place where names become functions."""

import contextlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import jax
import tyro

from funcnn import losses
from funcnn._numerics.precision import enable_x64
from funcnn._untraceable import LIBRARIES
from funcnn.gradcheck.check import check_gradients
from funcnn.gradcheck.layers import check_model
from funcnn.gradcheck.process import FAILED, run_apart, work
from funcnn.gradcheck.report import GradientReport
from funcnn.layers import activations, normalization, rms_normalization
from funcnn.models import mlp
from funcnn.types import Batch, Layer, Loss, LossSpec

PROGRAM = "python -m funcnn"


def _constructors(module: ModuleType, required: list[str]) -> dict[str, Callable[..., Layer]]:
    """Return the public functions of a module or a package that make a layer from these arguments, by name."""
    found: dict[str, Callable[..., Layer]] = {}
    for name, value in sorted(vars(module).items()):
        if inspect.isfunction(value) and f"{value.__module__}.".startswith(f"{module.__name__}."):
            signature = inspect.signature(value)
            needed = [given.name for given in signature.parameters.values() if given.default is given.empty]
            if signature.return_annotation is Layer and needed == required:
                found[name] = value
    return found


def _activations() -> dict[str, Layer]:
    """Return the public activations by name; those with settings at their defaults."""
    values = {name: value for name, value in vars(activations).items() if isinstance(value, Layer)}
    made = {name: constructor() for name, constructor in _constructors(activations, []).items()}
    return dict(sorted((values | made).items()))


_ACTIVATIONS = _activations()
_LOSSES = {name: value for name, value in sorted(vars(losses).items()) if isinstance(value, Loss)}
_NORMALIZATIONS = {"none": None} | {
    name.removesuffix("_norm"): constructor
    for module in (normalization, rms_normalization)
    for name, constructor in _constructors(module, ["features"]).items()
}
if TYPE_CHECKING:
    Activation: TypeAlias = str
    Losses: TypeAlias = str
    Normalization: TypeAlias = str
else:
    Normalization = tyro.extras.literal_type_from_choices(list(_NORMALIZATIONS))
    Activation = tyro.extras.literal_type_from_choices(list(_ACTIVATIONS))
    Losses = tyro.extras.literal_type_from_choices(list(_LOSSES))


def _shown(metavar: str, default: str) -> Any:
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=default)


@dataclass(frozen=True, kw_only=True)
class GradcheckSettings:
    """Check a gradient written by hand: your own, FILE.py:NAME, or that of one of funcnn's models, --sizes.

    The exit status is 0 where the gradient is right, 1 where it is wrong, 2 where the call is.
    """

    target: Annotated[tyro.conf.Positional[str | None], _shown("FILE.py:NAME", "")] = None
    """A function without arguments that returns (loss_fn, grad_fn, params), or with a tuple of further arguments of
    both, (loss_fn, grad_fn, params, args)."""
    sizes: Annotated[str | None, _shown("INT,INT,…", "(such as 784,300,10)")] = None
    """A multi-layer perceptron: the input's features, the units of each hidden layer, the outputs."""
    activation: Activation = "relu"
    """The activation of its hidden layers."""
    output: Annotated[Activation | None, tyro.conf.arg(help_behavior_hint="(default: what fits the loss)")] = None
    """The activation of its output."""
    loss: Losses = "softmax_cross_entropy"
    """The loss; targets are drawn to fit it."""
    normalization: Normalization = "none"
    """The normalization before every hidden activation."""
    skip: bool = False
    """Give every hidden block a skip connection."""
    dropout: float = 0.0
    """The probability to drop a hidden unit, in [0, 1)."""
    batch_size: int = 32
    """Samples, drawn at random."""
    dtype: Literal["float32", "float64"] = "float32"
    """The dtype of parameters and data; values are compared in float64 either way."""
    seed: int = 0
    """Where every random key begins."""
    json: bool = False
    """Print the report as JSON and nothing else."""
    html: Annotated[Path | None, _shown("PATH", "")] = None
    """Write the report as a page, too."""


class WrongCall(Exception):  # noqa: N818 - the caller's mistake, which never leaves main
    """A wrong call; the message is a sentence for the user."""


def main(arguments: Sequence[str], *, apart: bool = False) -> int:
    """Run the command line.

    Args:
        arguments: what stands after ``python -m funcnn``; none for the help.
        apart: whether a caller's file is run in a process of its own, which it may end.

    Returns:
        The exit status: 0 for a right gradient, 1 for a wrong one, 2 for a wrong call.

    Example:
        >>> main(["gradcheck", "a_file_without_a_name.py"])
        2
    """
    _, *options = arguments or ("gradcheck", "--help")
    try:
        # Not as a subcommand: for an unknown option tyro refers to the help of the program, which has no options.
        settings = tyro.cli(
            GradcheckSettings,
            prog=f"{PROGRAM} gradcheck",
            args=options,
            config=(tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff),
        )
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2
    if apart and settings.target is not None:
        return run_apart(arguments, settings.target)
    try:
        return run(settings)
    except WrongCall as error:
        print(f"{PROGRAM} gradcheck: {error}", file=sys.stderr)
        return 2


def run(settings: GradcheckSettings) -> int:
    """Check what the settings name and show the report; returns the exit status."""
    if (settings.target is None) == (settings.sizes is None):
        came = "neither" if settings.target is None else f"{settings.target} and --sizes {settings.sizes}"
        raise WrongCall(
            f"expected either FILE.py:NAME, your own gradient, or --sizes, one of funcnn's models, got {came}. "
            f"{PROGRAM} gradcheck --help shows both."
        )
    if settings.html is not None and not settings.html.parent.is_dir():
        raise WrongCall(f"--html: expected a file in an existing folder, got {settings.html}. Make the folder first.")
    process = os.getpid()
    # With --json, standard output is the report's alone, whatever the caller's code prints, under jit too.
    with contextlib.redirect_stdout(sys.stderr):
        report = _of_model(settings) if settings.target is None else _of_file(settings.target, settings)
        jax.effects_barrier()
    if os.getpid() != process:  # The file has forked: the report is that of the first process.
        os._exit(FAILED)
    if settings.html is not None:
        try:
            report.to_html(settings.html)
        except ModuleNotFoundError as error:
            raise WrongCall(f"--html: {error}") from error
        except OSError as error:
            raise WrongCall(f"--html: expected a file that can be written, got {error}. Name another one.") from error
    print(report.to_json(indent=2) if settings.json else report)
    return 0 if report.ok else 1


def _of_model(settings: GradcheckSettings) -> GradientReport:
    sizes = _sizes(str(settings.sizes))
    if settings.batch_size < 1:
        raise WrongCall(f"--batch-size: expected a positive integer, got {settings.batch_size}. Pass 1 or more.")
    loss = _LOSSES[settings.loss]
    if loss.spec.targets == "classes" and sizes[-1] < 2:
        raise WrongCall(
            f"--loss {settings.loss}: expected an output for each of two classes or more, got {sizes[-1]} in --sizes "
            f"{settings.sizes}. For a single output take --loss sigmoid_cross_entropy."
        )
    try:
        with enable_x64(settings.dtype == "float64"):
            model = mlp(
                sizes,
                _ACTIVATIONS[settings.activation],
                _fitting_output(loss.spec) if settings.output is None else _ACTIVATIONS[settings.output],
                normalization=_NORMALIZATIONS[settings.normalization],
                skip=settings.skip,
                dropout=settings.dropout,
            )
            data_key, check_key = jax.random.split(jax.random.key(settings.seed))
            batch = _drawn(settings, loss.spec, sizes, data_key)
            return check_model(model, loss, batch, key=check_key)
    except (ValueError, TypeError, OverflowError) as error:
        raise WrongCall(str(error)) from error


def _sizes(given: str) -> tuple[int, ...]:
    parts = given.split(",")
    if len(parts) < 2 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise WrongCall(
            f"--sizes: expected at least two positive integers with commas between them, got {given!r}. "
            "784 features, a hidden layer of 300 and 10 outputs are --sizes 784,300,10."
        )
    return tuple(map(int, parts))


def _fitting_output(spec: LossSpec) -> Layer:
    """Return the output layer that a loss expects: probabilities of classes, of independent outputs, or any number."""
    if spec.prediction == "log_probabilities":
        return activations.log_softmax
    if spec.prediction != "probabilities":
        return activations.identity
    return activations.softmax if spec.targets == "classes" else activations.sigmoid


def _drawn(settings: GradcheckSettings, spec: LossSpec, sizes: tuple[int, ...], key: jax.Array) -> Batch:
    x_key, y_key = jax.random.split(key)
    shape = (settings.batch_size, sizes[-1])
    x = jax.random.normal(x_key, (settings.batch_size, sizes[0]), settings.dtype)
    if spec.prediction == "log_probabilities":
        return Batch(x, jax.nn.softmax(jax.random.normal(y_key, shape, settings.dtype)))
    if spec.targets == "classes":
        return Batch(x, jax.random.randint(y_key, shape[:1], 0, sizes[-1]))
    if spec.targets in ("binary", "signs"):
        bits = jax.random.bernoulli(y_key, 0.5, shape).astype(settings.dtype)
        return Batch(x, bits if spec.targets == "binary" else 2 * bits - 1)
    return Batch(x, jax.random.normal(y_key, shape, settings.dtype))


def _of_file(target: str, settings: GradcheckSettings) -> GradientReport:
    given = {field.name for field in fields(settings) if getattr(settings, field.name) != field.default}
    if misplaced := given - {"target", "json", "html"}:
        options = ", ".join("--" + name.replace("_", "-") for name in sorted(misplaced))
        raise WrongCall(f"{options}: expected together with --sizes, got with {target}. Leave one of them out.")
    file, _, name = target.rpartition(":")
    path = Path(file).resolve()
    if not file.endswith(".py") or not name.isidentifier():
        raise WrongCall(f"expected FILE.py:NAME, got {target}. NAME is a function in FILE.py, as in mine.py:case.")
    if not path.is_file():
        raise WrongCall(f"{target}: expected an existing file, got {path}. Is the path right, seen from {Path.cwd()}?")
    try:
        with _loaded(path) as module:
            loss_fn, grad_fn, params, args = _case(target, module, name)
            return check_gradients(loss_fn, grad_fn, params, *args)
    except WrongCall:
        raise
    # A file that ends the program would end this one with its own status, which would pass for the check's.
    except (Exception, SystemExit) as error:
        place = _place(error, path.parent)
        if place:
            raise WrongCall(f"{place}: {type(error).__name__}: {error}") from error
        if isinstance(error, ValueError | TypeError):
            raise WrongCall(f"{target}: {error}") from error
        raise


@contextlib.contextmanager
def _loaded(path: Path) -> Iterator[ModuleType]:
    """The file as a module, which may import its siblings; afterwards none of them is left behind."""
    modules, search = set(sys.modules), list(sys.path)
    name = f"_gradcheck_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look a class's module up.
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path[:] = search
        for added in set(sys.modules) - modules:
            if _is_own(getattr(sys.modules[added], "__file__", None), path.parent):
                del sys.modules[added]


def _is_own(file: str | None, folder: Path) -> bool:
    """Whether a file is the caller's: in the folder, and neither Python's, nor installed, nor funcnn's."""
    above = Path(file).parents if file else ()
    return folder in above and not any(other in above for other in LIBRARIES)


def _case(target: str, module: ModuleType, name: str) -> tuple[Callable, Callable, Any, tuple]:
    """Loss, gradient, parameters and further arguments, as the caller's function returns them."""
    made = getattr(module, name, None)
    if not callable(made):
        functions = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        there = f"none of that name; the file defines {', '.join(functions) or 'nothing'}"
        came = f"a value of type {type(made).__name__}" if hasattr(module, name) else there
        raise WrongCall(
            f"{target}: expected a function without arguments, got {came}. "
            "Name one that returns (loss_fn, grad_fn, params, args)."
        )
    try:
        inspect.signature(made).bind()
    except TypeError as error:
        raise WrongCall(
            f"{target}: expected a function without arguments, got {name}{inspect.signature(made)}. "
            "Let it make its data itself and return (loss_fn, grad_fn, params, args)."
        ) from error
    case = made()
    expected = f"{target}: expected (loss_fn, grad_fn, params) or (loss_fn, grad_fn, params, args)"
    if not isinstance(case, tuple | list) or len(case) not in (3, 4):
        came = f"{len(case)} values" if isinstance(case, tuple | list) else f"a value of type {type(case).__name__}"
        raise WrongCall(f"{expected}, got {came}. What the functions take after params goes into the tuple args.")
    loss_fn, grad_fn, params, args = (*case, ())[:4]
    for role, value in (("loss_fn", loss_fn), ("grad_fn", grad_fn)):
        if not callable(value):
            raise WrongCall(f"{expected}, got a {role} of type {type(value).__name__}. Return the function itself.")
    if not isinstance(args, tuple):
        raise WrongCall(f"{expected} with args a tuple, got one of type {type(args).__name__}. A single one is (x,).")
    return loss_fn, grad_fn, params, args


def _place(error: BaseException, folder: Path) -> str | None:
    """The innermost line of the caller's own code that an exception came through."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_own(frame.filename, folder)]
    return f"{own[-1].filename}:{own[-1].lineno}, in {own[-1].name}" if own else None


if __name__ == "__main__":  # the process that ``run_apart`` starts
    work(Path(sys.argv[1]), lambda: main(sys.argv[2:]))
