"""Causes of convolutions, from ``kernel_flipped`` to ``lost_path``.

Each is another way in which the entries of the input, the kernel and the incoming gradient meet.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from funcnn.gradcheck.explanation.iterations import change_parts
from funcnn.gradcheck.explanation.location import describe_operation
from funcnn.gradcheck.explanation.search import Change, Mutation, Replacement
from funcnn.gradcheck.explanation.situation import Situation
from funcnn.gradcheck.explanation.tape import Edge
from funcnn.gradcheck.report import Cause

_MOST_KERNEL = 50
_MOST_TAPS = 27
_OPERANDS = ("input", "kernel")
_Wrong = tuple[Cause, str, "_Form"]


class _Form(NamedTuple):
    """How the entries of the input, the kernel and the result of a convolution meet, for each spatial axis.

    Fields:
        strides, dilations, padding: of the windows; the padding before the first entry alone.
        apart: the distance of the input's entries, as in a transposed convolution.
        start, between: where its gradient is read there, and how far apart.
        is_repeated: its entries are repeated where zeros stand between them.
        is_flipped: the kernel is reversed along its spatial axes.
        is_exchanged: its channels are exchanged.
        of_groups, filters: the input's channels and the filters of each group.
        without: the taps that are left out.
        summed: an array and its axis along which the sum stands everywhere: 0 the input, 1 the kernel, 2 the gradient.
    """

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: tuple[int, ...]
    apart: tuple[int, ...]
    start: tuple[int, ...]
    between: tuple[int, ...]
    of_groups: tuple[tuple[int, ...], ...]
    filters: tuple[tuple[int, ...], ...]
    is_repeated: bool = False
    is_flipped: bool = False
    is_exchanged: bool = False
    without: frozenset[tuple[int, ...]] = frozenset()
    summed: tuple[int, int] | None = None


def generate_convolutions(situation: Situation) -> Iterator[Mutation]:
    """Yield the convolutions of the loss with another stride, dilation, padding, kernel or group on the way back."""
    tape = situation.tape
    for place in (1, 0):
        edges = [edge for edge in situation.edges if edge.place == place and _is_usual(edge, tape)]
        groups = [[edge] for edge in edges] + ([edges] if len(edges) > 1 else [])
        of_edge = {id(edge): _by_text(edge, tape) for edge in edges}
        for group in groups:
            where = f"the gradient of the {_OPERANDS[place]} of {describe_operation(group[0].step)}"
            if len(group) > 1:
                where += f", as of {len(group)} convolutions,"
            forms = [of_edge[id(edge)] for edge in group]
            for text in [text for text in forms[0] if all(text in of_one for of_one in forms)]:
                cause = forms[0][text][0]
                chosen = [of_one[text][1] for of_one in forms]

                def change(number, d, group=group, chosen=chosen):
                    edge = group[number]
                    operands = [tape.values[source] for source in edge.step.inputs]
                    return _gradient(edge.step, operands, d, chosen[number], edge.place)

                detail = f"{where} is taken by hand {text}"
                if len(group) == 1:
                    part = change(0, tape.cotangents[group[0].step.outputs[0]])
                    yield Change(cause, detail, {group[0].source: part - group[0].part})
                else:
                    yield Replacement(cause, detail, change_parts(tape, group, change))


def is_convolution(edge: Edge) -> bool:
    """Whether a use is by a convolution."""
    return edge.step.name == "conv_general_dilated"


def specifications(step) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return the axes of the input, the kernel and the result of a convolution: two of channels, then the spatial."""
    numbers = step.parameters["dimension_numbers"]
    return numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec


def _is_usual(edge: Edge, tape) -> bool:
    if not is_convolution(edge) or edge.step.parameters["batch_group_count"] != 1:
        return False
    kernel = np.shape(tape.values[edge.step.inputs[1]])
    return bool(np.prod([kernel[axis] for axis in specifications(edge.step)[1][2:]]) <= _MOST_KERNEL)


def _by_text(edge, tape) -> dict[str, tuple[Cause, _Form]]:
    """Return the wrong forms of a convolution that are different, by their words."""
    shapes = [np.shape(tape.values[number]) for number in edge.step.inputs]
    right = _right_form(edge.step, shapes)
    kernel = tuple(shapes[1][axis] for axis in specifications(edge.step)[1])
    found: dict[str, tuple[Cause, _Form]] = {}
    families = (_arranged, _moved, _spread, _grouped, _summed, _without_taps)
    for cause, text, form in itertools.chain(*(family(right, kernel, edge) for family in families)):
        if form != right and all(form != other for _, other in found.values()):
            found[text] = cause, form
    return found


def _right_form(step, shapes) -> _Form:
    parameters = step.parameters
    groups, spatial = parameters["feature_group_count"], len(parameters["window_strides"])
    channels = shapes[0][specifications(step)[0][1]] // groups
    filters = shapes[1][specifications(step)[1][0]] // groups
    apart = tuple(parameters["lhs_dilation"])
    return _Form(
        strides=tuple(parameters["window_strides"]),
        dilations=tuple(parameters["rhs_dilation"]),
        padding=tuple(low for low, _ in parameters["padding"]),
        apart=apart,
        start=(0,) * spatial,
        between=apart,
        of_groups=tuple(tuple(range(channels * group, channels * (group + 1))) for group in range(groups)),
        filters=tuple(tuple(range(filters * group, filters * (group + 1))) for group in range(groups)),
    )


def _arranged(right: _Form, kernel, edge) -> Iterator[_Wrong]:
    """Yield the kernel in another order, and other strides and dilations."""
    ones = (1,) * len(right.strides)
    words = "with the kernel not flipped: " if edge.place == 0 else ""
    yield "kernel_flipped", f"{words}reversed along the spatial axes", right._replace(is_flipped=True)
    if edge.place == 0 and kernel[0] == kernel[1] * len(right.filters) and kernel[1] == len(right.filters[0]):
        for is_flipped in (False, True):
            text = "with the kernel's channels not exchanged" + ", and not flipped" * is_flipped
            yield "transposed", text, right._replace(is_exchanged=True, is_flipped=is_flipped)
    # The input's gradient is put back at other entries, the kernel's is a product with other ones.
    of_dilation: Cause = "shifted" if edge.place == 0 else "wrong_operand"
    near = tuple(low // size for low, size in zip(right.padding, right.dilations, strict=True))
    yield "wrong_operand", "with the stride left out", right._replace(strides=ones)
    yield of_dilation, "with the dilation left out", right._replace(dilations=ones)
    yield of_dilation, "with the dilation left out, in the padding too", right._replace(dilations=ones, padding=near)
    yield (
        "wrong_operand",
        "with the stride taken for a dilation",
        right._replace(strides=right.dilations, dilations=right.strides),
    )


def _moved(right: _Form, kernel, edge) -> Iterator[_Wrong]:
    """Yield another padding."""
    padding = edge.step.parameters["padding"]
    for move in itertools.product((0, 1, -1), repeat=len(padding)):
        for text, steps in (("", (1,) * len(padding)), (" times the dilation", right.dilations)):
            lows = [low + one * step for low, one, step in zip(right.padding, move, steps, strict=True)]
            words = f"with the padding off by {', '.join(map(str, move))}{text}"
            yield "shifted", words, right._replace(padding=tuple(lows))
    for text, lows in (
        ("without the padding", [0 for _ in padding]),
        ("with the padding of the other side", [high for _, high in padding]),
        ("with the padding half at each side", [(low + high) // 2 for low, high in padding]),
        ("with all of the padding in front", [low + high for low, high in padding]),
    ):
        yield "shifted", text, right._replace(padding=tuple(lows))


def _spread(right: _Form, kernel, edge) -> Iterator[_Wrong]:
    """Yield an input with zeros between its entries, as of a transposed convolution, read and put back otherwise."""
    ones = (1,) * len(right.apart)
    if right.apart == ones:
        return
    if edge.place == 0:
        yield "wrong_operand", "without the stride: from neighbouring entries", right._replace(between=ones)
        for start in range(1, max(right.apart)):
            starts = tuple(min(start, size - 1) for size in right.apart)
            text = f"from the zeros between the entries, {start} further"
            yield "shifted", text, right._replace(start=starts)
    else:
        text = "with the entries repeated where zeros stand between them"
        yield "wrong_operand", text, right._replace(is_repeated=True)
        yield "wrong_operand", "without the stride: with no zeros between the entries", right._replace(apart=ones)


def _grouped(right: _Form, kernel, edge) -> Iterator[_Wrong]:
    """Yield groups of other channels and filters."""
    groups = right.of_groups
    if len(groups) == 1:
        return
    for text, order in (
        ("next", [*groups[1:], groups[0]]),
        ("previous", [groups[-1], *groups[:-1]]),
        ("opposite", [*groups[::-1]]),
        ("first", [groups[0]] * len(groups)),
    ):
        yield "wrong_operand", f"with the channels of the {text} group", right._replace(of_groups=tuple(order))
    apart = tuple(tuple(range(n, sum(map(len, groups)), len(groups))) for n in range(len(groups)))
    every = tuple(tuple(range(n, sum(map(len, right.filters)), len(groups))) for n in range(len(groups)))
    for text, form in (
        ("filters", right._replace(filters=every)),
        ("channels", right._replace(of_groups=apart)),
        ("filters and channels", right._replace(filters=every, of_groups=apart)),
    ):
        yield "wrong_operand", f"with every {len(groups)}th of the {text} in a group, not neighbours", form


def _summed(right: _Form, kernel, edge) -> Iterator[_Wrong]:
    """Yield sums over channels that the gradient has each alone."""
    if len(right.of_groups) > 1 or edge.place == 1:
        yield "wrong_axis", "with the sum of the input over its channels", right._replace(summed=(0, 1))
    yield "wrong_axis", "with the sum of the incoming gradient over its channels", right._replace(summed=(2, 1))
    if edge.place == 0:
        yield "wrong_axis", "with the sum of the kernel over its filters", right._replace(summed=(1, 0))
        yield "wrong_axis", "with the sum of the kernel over its channels", right._replace(summed=(1, 1))


def _without_taps(right: _Form, kernel, edge) -> Iterator[_Wrong]:
    """Yield some taps of the kernel left out, or alone."""
    sizes = kernel[2:]
    taps = list(itertools.product(*map(range, sizes)))
    if len(taps) == 1 or edge.place == 1:
        return
    for axis, entry in ((axis, entry) for axis, size in enumerate(sizes) for entry in range(size)):
        some = frozenset(tap for tap in taps if tap[axis] == entry)
        if 0 < len(some) < len(taps):
            words = f"the taps {entry} of axis {axis} of the kernel"
            yield "lost_path", f"without {words}", right._replace(without=some)
            yield "lost_path", f"with {words} alone", right._replace(without=frozenset(taps) - some)
    for tap in taps if len(taps) <= _MOST_TAPS and len(sizes) > 1 else ():
        yield "lost_path", f"without the tap {tap} of the kernel", right._replace(without=frozenset([tap]))
        yield "lost_path", f"with the tap {tap} of the kernel alone", right._replace(without=frozenset(taps) - {tap})


def _gradient(step, operands, d, form: _Form, place) -> np.ndarray:
    """Return the gradient of one operand if the entries meet as a form says; what lies outside is nothing."""
    specs = specifications(step)
    arrays = [np.transpose(a, spec) for a, spec in zip((*operands, d), specs, strict=True)]
    if form.summed is not None:
        number, axis = form.summed
        arrays[number] = np.broadcast_to(arrays[number].sum(axis=axis, keepdims=True), arrays[number].shape)
    x, kernel, d = arrays
    spatial = tuple(range(2, x.ndim))
    if form.is_flipped:
        kernel = np.flip(kernel, spatial)
    sizes = [
        stride * d.shape[axis] + dilation * kernel.shape[axis] + abs(pad) + apart * x.shape[axis]
        for axis, stride, dilation, pad, apart in zip(
            spatial, form.strides, form.dilations, form.padding, form.apart, strict=True
        )
    ]
    wide = _spread_out(x, form, sizes)
    found = np.zeros_like(kernel) if place else np.zeros_like(wide)
    for channels, filters in zip(form.of_groups, form.filters, strict=True):
        for tap in np.ndindex(kernel.shape[2:]):
            if tap in form.without:
                continue
            window = _window(form, sizes, tap, d.shape[2:])
            ours = list(filters)
            where: Any = (slice(None), list(channels), *window)
            weights: Any = kernel[(ours, slice(None), *tap)]
            if place:
                summed = (0, *spatial)
                found[(ours, slice(None), *tap)] += np.tensordot(d[:, ours], wide[where], axes=(summed, summed))
            else:
                weights = weights.T if form.is_exchanged else weights
                found[where] += np.einsum("no...,oi->ni...", d[:, ours], weights)
    if place:
        found = np.flip(found, spatial) if form.is_flipped else found
        return np.transpose(found, np.argsort(specs[1]))
    inner = [
        slice(size + start, size + start + between * (count - 1) + 1, between)
        for size, start, between, count in zip(sizes, form.start, form.between, x.shape[2:], strict=True)
    ]
    return np.transpose(found[(slice(None), slice(None), *inner)], np.argsort(specs[0]))


def _spread_out(x, form: _Form, sizes) -> np.ndarray:
    """Return the input with zeros, or its own entries, between its entries, and with wide margins."""
    if form.is_repeated:
        for axis, apart in enumerate(form.apart, start=2):
            x = np.repeat(x, apart, axis)
        return np.pad(x, [(0, 0), (0, 0), *((size, size) for size in sizes)])
    lengths = [apart * (count - 1) + 1 for apart, count in zip(form.apart, x.shape[2:], strict=True)]
    wide = np.zeros((*x.shape[:2], *(length + 2 * size for length, size in zip(lengths, sizes, strict=True))), x.dtype)
    inner = [slice(size, size + length, apart) for size, length, apart in zip(sizes, lengths, form.apart, strict=True)]
    wide[(slice(None), slice(None), *inner)] = x
    return wide


def _window(form: _Form, sizes, tap: Sequence[int], counts) -> list[slice]:
    """Return the entries that a tap of the kernel meets."""
    starts = [
        size + dilation * at - pad
        for size, dilation, at, pad in zip(sizes, form.dilations, tap, form.padding, strict=True)
    ]
    return [
        slice(start, start + stride * (count - 1) + 1, stride)
        for start, stride, count in zip(starts, form.strides, counts, strict=True)
    ]
