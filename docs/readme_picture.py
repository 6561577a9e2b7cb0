"""The picture of README.md, docs/_static/readme.png: ``python docs/readme_picture.py`` draws it anew."""

from pathlib import Path

import jax
import matplotlib.pyplot as plt

import funcnn as fnn

FILE = Path(__file__).parent / "_static" / "readme.png"


def draw() -> None:
    """Draw a network with its gradients, and the regions of another before and after training."""
    figure = plt.figure(figsize=(13.2, 4.3), facecolor="white", layout="constrained")
    left, middle, right = figure.subfigures(1, 3, width_ratios=(1.5, 1, 1))

    small = fnn.mlp((2, 2, 1), activation=fnn.sigmoid)
    params, state = small.init(jax.random.key(0))
    fnn.draw_network(small, params, state, [0.0, 1.0], target=[1.0], loss=fnn.mean_squared_error, figure=left)

    data = fnn.datasets.spirals(300, key=jax.random.key(1))
    model = fnn.mlp((2, 64, 64, 2), activation=fnn.tanh)
    start = model.init(jax.random.key(0))
    trained = fnn.fit(
        model, fnn.softmax_cross_entropy, fnn.adam(1e-2), data, epochs=600, key=jax.random.key(0), params=start[0],
        state=start[1],
    )  # fmt: skip
    for part, at, title in (
        (middle, start, "before training"),
        (right, (trained.params, trained.state), "after 600 steps"),
    ):
        fnn.plot_decision_boundary(model, *at, data, figure=part)
        right_answers = fnn.accuracy(fnn.predict(model, *at, data.x), data.y)
        part.suptitle(f"{title}: {float(right_answers):.0%} right", fontsize=11)
    figure.savefig(FILE, dpi=110)


if __name__ == "__main__":
    draw()
