"""Optimizers written by hand as optax gradient transformations: ``init(params)``, ``update(gradients, state, params)``.

Signatures, state fields and semantics are those of optax, so every optimizer composes with ``optax.chain``,
``optax.masked`` and other transformations. ``update`` returns *updates*, which include the minus sign: the new
parameters are ``optax.apply_updates(params, updates)``, the sum of both.

In every equation g is the gradient, p the parameter, u its update, α the learning rate and t = 1, 2, … the step. A
quantity on the left of an arrow starts at 0 unless stated otherwise. Products, squares and roots are elementwise.
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
