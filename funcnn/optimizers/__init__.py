"""Optimizers by hand, on optax's contract: pure ``init(params)`` and ``update(gradients, state, params)``.

Signatures, state fields and semantics are optax's, so each composes with ``optax.chain``, ``optax.masked`` and the
rest; only the arithmetic is written here. ``update`` returns *updates*, which carry the minus sign: the new parameters
are ``optax.apply_updates(params, updates)``, their sum.

In every equation g is the gradient, p the parameter, u its update, α the learning rate and t = 1, 2, … the step; what
an arrow updates starts at 0 unless told otherwise. Products, squares and roots are taken entry by entry.
"""

from funcnn.optimizers.adaptive import adagrad as adagrad, rmsprop as rmsprop
from funcnn.optimizers.descent import momentum as momentum, nesterov as nesterov, sgd as sgd
from funcnn.optimizers.moments import (
    adam as adam,
    adamax as adamax,
    adamw as adamw,
    lion as lion,
    nadam as nadam,
)
from funcnn.optimizers.transformations import (
    add_decayed_weights as add_decayed_weights,
    clip_by_global_norm as clip_by_global_norm,
    clip_by_value as clip_by_value,
)
