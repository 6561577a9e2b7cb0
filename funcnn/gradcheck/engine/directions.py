"""Directions in the space of the parameters, and the loss along them."""

from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from funcnn._numerics.arrays import max_abs
from funcnn._numerics.precision import like_devices
from funcnn._numerics.program import (
    Program,
    bind,
    called_jaxprs,
    compile_programs,
    equations,
    evaluate_calls,
    evaluate_jaxpr,
    is_inlined,
    primitive_names,
)
from funcnn.gradcheck.engine.precision import Comparison
from funcnn.gradcheck.engine.slopes import Slope, measure_slopes

_CHUNK = 4_000_000


def slopes_along(
    comparison: Comparison,
    directions: Sequence[list[np.ndarray]],
    *,
    is_frozen: bool = True,
    enough: float | np.ndarray = 0.0,
) -> list[Slope | None]:
    """Return the slope of the loss along each direction; ``None`` where the loss has no values.

    A loss that can be traced is compiled once for all steps and directions.

    Args:
        comparison: the loss.
        directions: for each direction an array for each leaf of the parameters.
        is_frozen: whether everything behind ``stop_gradient`` is held fixed, as in a gradient.
        enough: the error at which the measurement stops, one or one for each direction.
    """
    enough = np.broadcast_to(enough, len(directions))
    size = sum(np.size(leaf) for leaf in jax.tree.leaves(comparison.gradients.params))
    chunk, slopes = max(1, _CHUNK // max(size, 1)), []
    for start in range(0, len(directions), chunk):
        some = directions[start : start + chunk]
        try:
            slopes += measure_slopes(
                losses_along(comparison, some, is_frozen),
                comparison.spacing,
                enough[start : start + chunk],
                comparison.resolution,
            )
        except Exception:  # the caller's loss may reject other parameters, probabilities above 1 for example
            slopes += [None] * len(some)
    return slopes


def slope_along(comparison: Comparison, direction: list[np.ndarray], **options) -> Slope | None:
    """Return the slope of the loss along one direction, as ``slopes_along``."""
    return slopes_along(comparison, [direction], **options)[0]


def has_stop_gradient(comparison: Comparison) -> bool:
    """Whether the loss holds values by ``stop_gradient``."""
    return comparison.program is not None and "stop_gradient" in primitive_names(comparison.program.jaxpr)


def losses_along(
    comparison: Comparison, directions: Sequence[list[np.ndarray]], is_frozen: bool = True
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function from distances to the loss at each distance along each direction."""
    leaves, structure = jax.tree.flatten(comparison.gradients.params)
    steps = [
        np.stack([np.asarray(direction[number]) for direction in directions]).astype(np.asarray(leaf).dtype)
        for number, leaf in enumerate(leaves)
    ]
    program, calls = comparison.program, comparison.gradients.calls
    freezes = is_frozen and has_stop_gradient(comparison)
    if program is not None and not (freezes and _freezes_in_a_branch(program)):
        losses = compile_programs(_frozen_losses if freezes else _plain_losses, [program])

        def compiled(distances):
            calls["loss"] += len(distances) * len(directions)
            return np.stack([np.asarray(losses(leaves, steps, distance)) for distance in distances])

        return compiled
    frozen = _frozen_loss(program)(program.jaxpr.consts, leaves) if program is not None else None

    def loss(moved):
        if frozen is None:
            return comparison.gradients.loss(jax.tree.unflatten(structure, moved))
        calls["loss"] += 1
        return frozen(moved)

    def one_by_one(distances):
        numbers = range(len(directions))
        values = [
            [loss(_moved(leaves, steps, number, distance)) for number in numbers] for distance in distances
        ]  # fmt: skip
        return np.array([[float(np.real(value)) for value in row] for row in values])

    return one_by_one


def _moved(leaves, steps, number, distance):
    return [_add(leaf, distance * step[number]) for leaf, step in zip(leaves, steps, strict=True)]


def _add(leaf, step):
    """Return the sum, by NumPy because JAX would compile a program for every shape; on the leaf's devices."""
    moved = np.asarray((np.asarray(leaf) + step).astype(leaf.dtype))
    return like_devices(moved, leaf) if isinstance(leaf, jax.Array) else moved


def _plain_losses(program: Program):
    return _mapped(lambda constants, leaves: lambda moved: evaluate_calls(program.jaxpr, constants, moved)[0])


def _frozen_losses(program: Program):
    return _mapped(_frozen_loss(program))


def _mapped(loss_from: Callable[..., Callable]):
    """The losses along every direction, one after the other: a kernel may have no batched form."""

    def losses(constants, leaves, steps, distance):
        loss = loss_from(constants[0], leaves)
        return jax.lax.map(lambda step: jnp.real(loss(_moved_leaves(leaves, step, distance))), steps)

    return losses


def _frozen_loss(program: Program):
    """From constants and parameters to the loss with everything behind ``stop_gradient`` held at its value there."""
    holders = {id(equation) for equation in _holders(program)}

    def loss_from(constants, leaves):
        held: dict = {}
        jaxpr = program.jaxpr.replace(consts=list(constants))

        def hold(equation, arguments, place):
            if id(equation) in holders:
                return None
            outputs = bind(equation, arguments)
            if equation.primitive.name == "stop_gradient":
                held[place] = outputs
            return outputs

        def reuse(equation, arguments, place):
            return held.get(place) or (None if id(equation) in holders else bind(equation, arguments))

        evaluate_jaxpr(jaxpr, leaves, hold, (), lambda value: value)
        return lambda moved: evaluate_jaxpr(jaxpr, moved, reuse, (), lambda value: value)[0]

    return loss_from


def _moved_leaves(leaves, step, distance):
    return [(leaf + distance * part).astype(leaf.dtype) for leaf, part in zip(leaves, step, strict=True)]


def _holders(program) -> list:
    """Return the equations that JAX opens and that have a ``stop_gradient`` inside."""
    return [
        equation
        for equation in equations(program.jaxpr)
        if is_inlined(equation) and any("stop_gradient" in primitive_names(part) for part in called_jaxprs(equation))
    ]


def _freezes_in_a_branch(program) -> bool:
    """Whether a branch, which is chosen by its values, has a ``stop_gradient`` inside."""
    return "cond" in {equation.primitive.name for equation in _holders(program)}


def random_direction(comparison: Comparison, random, leaves: Iterable[int]) -> list[np.ndarray]:
    """Return normal numbers of the size of each parameter for some leaves, and zeros for the others."""
    params = [np.asarray(leaf) for leaf in jax.tree.leaves(comparison.gradients.params)]
    direction = [np.zeros(param.shape, np.complex128 if np.iscomplexobj(param) else np.float64) for param in params]
    for number in leaves:
        drawn = random.standard_normal(params[number].shape, np.float32)
        if np.iscomplexobj(params[number]):
            drawn = drawn + 1j * random.standard_normal(params[number].shape, np.float32)
        direction[number] = np.asarray(drawn * typical_size(params[number]))
    return direction


def direction_of_differences(comparison: Comparison, shapes: Sequence, differences: dict) -> list[np.ndarray]:
    """Return the conjugate of the differences, no entry larger than a parameter, and zeros for the other leaves."""
    params = [np.asarray(leaf) for leaf in jax.tree.leaves(comparison.gradients.params)]
    peak = max(float(np.max(np.abs(difference), initial=0.0)) for difference in differences.values())
    size = max(typical_size(params[number]) for number in differences)
    return [
        np.asarray(np.conj(differences[number]) / peak * size) if number in differences else np.zeros_like(like)
        for number, like in enumerate(shapes)
    ]


def align_signs(direction: list[np.ndarray], gradient: list[np.ndarray]) -> list[np.ndarray]:
    """Return a direction with the signs of a gradient, so that its terms don't cancel."""

    def align(steps, slopes):
        if not np.iscomplexobj(slopes) and np.isfinite(slopes).all():
            return np.where(slopes, np.copysign(steps, slopes), steps)
        sizes = np.abs(slopes)
        known = np.isfinite(sizes) & (sizes > 0)
        signs = np.divide(np.conj(slopes), sizes, out=np.ones_like(slopes), where=known)
        return np.asarray(np.where(known, np.abs(steps) * signs, steps))

    return [align(steps, slopes) for steps, slopes in zip(direction, gradient, strict=True)]


def typical_size(param: np.ndarray) -> float:
    """Return the root mean square of a parameter; 1 where that is no use as a step."""
    peak = max_abs(param)
    if not peak or not np.isfinite(param).all():
        return 1.0
    return peak * float(np.linalg.norm(param / peak)) / param.size**0.5


def predicted_slope(gradient: list[np.ndarray], direction: list[np.ndarray]) -> tuple[float, float]:
    """Return the slope along a direction, Σ Re(g d) by JAX's convention for complex numbers, and Σ |g d|."""
    pairs = zip(gradient, direction, strict=True)
    # A gradient of another shape is wrong already.
    products = [np.real(slope * step) for slope, step in pairs if step.any() and slope.shape == step.shape]
    return sum((float(p.sum()) for p in products), 0.0), sum((float(np.abs(p).sum()) for p in products), 0.0)
