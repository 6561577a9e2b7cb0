"""Ensembles: many networks that differ by their random key alone, trained at once and asked together."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from funcnn._checks import (
    check_callable,
    check_is_layer,
    check_same_tree,
    numeric_array,
    positive_integer,
)
from funcnn._cores import on_every_core
from funcnn._draw import drawn, shapes_of
from funcnn._memoise import memoised
from funcnn.backprop import manual_value_and_grad
from funcnn.training import Trained, predict, train
from funcnn.training.input import check_recipe, checked_data, samples_a_step
from funcnn.types import Batch, GradFn, Layer, Loss, Params, State


def train_ensemble(
    members: int,
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    data: Batch | tuple[Any, Any],
    *,
    epochs: int,
    batch_size: int | None = None,
    key: PRNGKeyArray,
    grad: Callable[[Layer, Loss], GradFn] = manual_value_and_grad,
) -> Trained:
    """Train many networks at once: ``jax.vmap`` of ``train`` over keys, compiled as one program. On a CPU each core
    runs it for its share of them.

    Member i is, up to rounding, the network that ``train`` gives for ``jax.random.split(key, members)[i]``: each has
    initial parameters, shuffles and dropout masks of its own, all see the same data. A second call with an equal model,
    loss, optimizer and shapes compiles nothing. Memory grows with the members; the data are there once.

    Args:
        members: how many networks.
        model, loss, optimizer, data, epochs, batch_size, grad: as for ``train``.
        key: random key, split into one for each member.

    Returns:
        What ``train`` returns, every array with the members as its first axis: ``history.loss`` is
        ``(members, epochs)``. Member i alone is ``jax.tree.map(lambda leaf: leaf[i], trained)``.

    Raises:
        ValueError, TypeError: members isn't a positive integer; as ``evaluate`` for the data and as ``train`` for the
            rest.

    Example:
        >>> from funcnn.losses import sigmoid_cross_entropy
        >>> from funcnn.models import mlp
        >>> from funcnn.optimizers import adam
        >>> x = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        >>> xor = (x, jnp.array([[0.0], [1.0], [1.0], [0.0]]))
        >>> trained = train_ensemble(
        ...     100, mlp((2, 4, 1)), sigmoid_cross_entropy, adam(0.1), xor, epochs=100, key=jax.random.key(0)
        ... )
        >>> trained.history.loss.shape
        (100, 100)
        >>> solved = trained.history.loss[:, -1] < 0.1
        >>> bool(solved.any()), bool(solved.all())  # with four hidden units it depends on the key
        (True, False)

    Source:
        Hansen and Salamon, "Neural network ensembles", 1990; Lakshminarayanan, Pritzel and Blundell, "Simple and
        scalable predictive uncertainty estimation using deep ensembles", 2017, section 2.4.
    """
    members = positive_integer("train_ensemble(members)", members)
    epochs = positive_integer("train_ensemble(epochs)", epochs)
    check_recipe("train_ensemble", model, loss, optimizer, key, grad)
    # Under jit train can't read values: those of the data are checked here, beside the outputs of one more network.
    params, state = drawn(model, key)
    batch = checked_data("train_ensemble(data)", model, loss, params, state, data)
    size = samples_a_step("train_ensemble", batch_size, len(batch.x))
    run = _members_training(model, loss, optimizer, epochs, size, grad)
    return on_every_core(run, batch, jax.random.split(key, members))


def mean_over_members(predictions: Float[Array, "members ..."]) -> Float[Array, "..."]:
    """The mean over the first axis, Σᵢ predictions[i] / members.

    Example:
        >>> print(mean_over_members(jnp.array([[[1.0]], [[4.0]]])))
        [[2.5]]
    """
    return predictions.mean(axis=0)


def predict_ensemble(
    model: Layer,
    params: Params,
    state: State,
    x: ArrayLike,
    *,
    average: Callable[[Array], Array] = mean_over_members,
) -> Array:
    """What the members say together: the mean of their predictions, y = Σᵢ yᵢ / members.

    The model's outputs are averaged as they are. For a model that gives logits that is their mean, whose softmax isn't
    the mean of the members' probabilities; to average those, as Lakshminarayanan et al. do, pass
    ``average=lambda logits: jax.nn.softmax(logits).mean(axis=0)``.

    Args:
        model: any layer.
        params, state: of all members, as ``train_ensemble`` returns them.
        x: features, ``(batch, ...)``, the same for every member.
        average: from the stacked predictions, ``(members, batch, ...)``, to what is returned; also
            ``partial(jnp.std, axis=0)`` for their spread, or ``jnp.asarray`` for all of them.

    Returns:
        y, ``(batch, ...)``, unless ``average`` gives something else.

    Raises:
        ValueError, TypeError: features that don't fit the model; parameters or a state of another model, of one member,
            or of differently many; an average that isn't a function.

    Example:
        >>> from funcnn.layers.linear import LinearParams, linear
        >>> params = LinearParams(kernel=jnp.array([[[1.0]], [[3.0]]]), bias=jnp.zeros((2, 1)))
        >>> print(predict_ensemble(linear(1, 1), params, (), jnp.array([[10.0]])))
        [[20.]]

    Source:
        Hansen and Salamon 1990; Lakshminarayanan, Pritzel and Blundell 2017, section 2.4.
    """
    check_is_layer("predict_ensemble(model)", model)
    check_callable("predict_ensemble(average)", average, "It gets the predictions, (members, batch, ...).")
    _check_members(model, params, state)
    return average(_members_prediction(model)(params, state, numeric_array("predict_ensemble(x)", x)))


@memoised
def _members_training(model, loss, optimizer, epochs, batch_size, grad) -> jax.stages.Wrapped:
    def run(batch, key):
        return train(model, loss, optimizer, batch, epochs=epochs, batch_size=batch_size, key=key, grad=grad)

    return jax.jit(jax.vmap(run, in_axes=(None, 0)))


@memoised
def _members_prediction(model) -> Callable[[Params, State, Array], Array]:
    return jax.jit(jax.vmap(partial(predict, model), in_axes=(0, 0, None)))


def _check_members(model: Layer, params: Params, state: State) -> None:
    """Refuse trees that aren't the model's with one and the same number of members before every shape."""
    leaves = jax.tree.leaves((params, state))
    if not leaves:
        raise ValueError(
            "predict_ensemble(params): expected arrays with the members as their first axis, got none. "
            "Without parameters all members are one: use predict."
        )
    members = jnp.shape(leaves[0])[:1] or (1,)
    stacked = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(members + leaf.shape, leaf.dtype),
        shapes_of(model),
    )
    for name, tree, like in zip(("params", "state"), (params, state), stacked, strict=True):
        check_same_tree(f"predict_ensemble({name})", tree, like, "what train_ensemble returns", dtypes=False)
