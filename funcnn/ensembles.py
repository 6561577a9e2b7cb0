"""Ensembles: networks that differ only in their random key, trained together and averaged."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from funcnn._checks import check_callable, check_is_layer, numeric_array, positive_integer
from funcnn._cores import on_every_core
from funcnn._initialization import initial_shapes, initialize
from funcnn._memoise import memoised
from funcnn._tree_checks import check_same_tree
from funcnn.backprop import manual_value_and_grad
from funcnn.training import Trained, predict, train
from funcnn.training.input import check_setup, check_targets, checked_batch, checked_batch_size
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
    """Train several networks at once: ``jax.vmap`` of ``train`` over keys, compiled as one program.

    Member i is, up to rounding, the network that ``train`` returns for ``jax.random.split(key, members)[i]``. Each
    member has its own initial parameters, shuffles and dropout masks; the data are the same for all. On a CPU the
    members are distributed over the cores. A second call with an equal model, loss, optimizer and shapes compiles
    nothing. Memory grows with the number of members, but the data are stored once.

    Args:
        members: the number of networks.
        model, loss, optimizer, data, epochs, batch_size, grad: as for ``train``.
        key: a random key, which is split into one for each member.

    Returns:
        The result of ``train`` with the members as the first axis of every array: ``history.loss`` is
        ``(members, epochs)``. Member i is ``jax.tree.map(lambda leaf: leaf[i], trained)``.

    Raises:
        ValueError, TypeError: members isn't a positive integer; otherwise as ``evaluate`` for the data and as ``train``
            for the other arguments.

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
        >>> bool(solved.any()), bool(solved.all())  # four hidden units suffice for some keys only
        (True, False)

    Source:
        Hansen and Salamon, "Neural network ensembles", 1990; Lakshminarayanan, Pritzel and Blundell, "Simple and
        scalable predictive uncertainty estimation using deep ensembles", 2017, section 2.4.
    """
    members = positive_integer("train_ensemble(members)", members)
    epochs = positive_integer("train_ensemble(epochs)", epochs)
    check_setup("train_ensemble", model, loss, optimizer, key, grad)
    # Under jit, train can't check the values of the data. They are checked here, with the outputs of one more network.
    params, state = initial_shapes(model)
    batch = checked_batch("train_ensemble(data)", model, loss, params, state, data)
    params, state = initialize(model, key)
    check_targets("train_ensemble(data)", model, loss, params, state, batch)
    size = checked_batch_size("train_ensemble", batch_size, len(batch.x))
    run = _members_training(model, loss, optimizer, epochs, size, grad)
    return on_every_core(run, batch, jax.random.split(key, members))


def mean_over_members(predictions: Float[Array, "members ..."]) -> Float[Array, "..."]:
    """Return the mean over the first axis, the members: y = Σᵢ yᵢ / members.

    Args:
        predictions: yᵢ, ``(members, ...)``, floating.

    Returns:
        y, of the shape of one member's prediction.

    Example:
        >>> print(mean_over_members(jnp.array([[[1.0]], [[4.0]]])))
        [[2.5]]

    Source:
        Hansen and Salamon 1990.
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
    """Return the mean of the members' predictions, y = Σᵢ yᵢ / members.

    The model's outputs are averaged without a transformation. If they are logits, the softmax of their mean isn't the
    mean of the members' probabilities. To average the probabilities, as Lakshminarayanan et al. do, pass
    ``average=lambda logits: jax.nn.softmax(logits).mean(axis=0)``.

    Args:
        model: any layer.
        params, state: those of all members, as ``train_ensemble`` returns them.
        x: features, ``(batch, ...)``, the same for every member.
        average: a function of the stacked predictions, ``(members, batch, ...)``. ``partial(jnp.std, axis=0)`` returns
            their standard deviation, ``jnp.asarray`` all of them.

    Returns:
        y, ``(batch, ...)``, or the result of ``average``.

    Raises:
        ValueError, TypeError: the features don't fit the model; params or state belong to another model, to a single
            member, or to different numbers of members; average isn't a function.

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
    """Raise unless the trees are the model's with the same number of members as the first axis of every leaf."""
    leaves = jax.tree.leaves((params, state))
    if not leaves:
        raise ValueError(
            "predict_ensemble(params): expected arrays with the members as their first axis, got none. "
            "Without parameters all members are equal: use predict."
        )
    members = jnp.shape(leaves[0])[:1] or (1,)
    stacked = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(members + leaf.shape, leaf.dtype),
        initial_shapes(model),
    )
    for name, tree, like in zip(("params", "state"), (params, state), stacked, strict=True):
        check_same_tree(f"predict_ensemble({name})", tree, like, "what train_ensemble returns", dtypes=False)
