"""The picture of README.md and the site, wide and narrow: ``python docs/readme_picture.py`` draws it."""

from pathlib import Path

import jax
import matplotlib.pyplot as plt

import funcnn as fnn

FOLDER = Path(__file__).parent / "_static"


def draw() -> None:
    """Draw a network with its gradients, and the regions of another before and after training."""
    wide = plt.figure(figsize=(11.5, 3.7), facecolor="white", layout="constrained")
    draw_in(*wide.subfigures(1, 3, width_ratios=(1.35, 1, 1)))
    wide.savefig(FOLDER / "readme.png", dpi=130)
    narrow = plt.figure(figsize=(5, 4.9), facecolor="white", layout="constrained")
    above, below = narrow.subfigures(2, 1, height_ratios=(0.72, 1))
    draw_in(above, *below.subfigures(1, 2))
    narrow.savefig(FOLDER / "readme_narrow.png", dpi=150)


def draw_in(network, before, after) -> None:
    """Draw one part in each figure."""
    small = fnn.mlp((2, 2, 1), activation=fnn.sigmoid)
    params, state = small.init(jax.random.key(0))
    fnn.draw_network(small, params, state, [0.0, 1.0], target=[1.0], loss=fnn.mean_squared_error, figure=network)

    data = fnn.datasets.spirals(300, key=jax.random.key(1))
    model = fnn.mlp((2, 64, 64, 2), activation=fnn.tanh)
    start = model.init(jax.random.key(0))
    trained = fnn.fit(
        model, fnn.softmax_cross_entropy, fnn.adam(1e-2), data, epochs=600, key=jax.random.key(0), params=start[0],
        state=start[1],
    )  # fmt: skip
    for part, at, title in (
        (before, start, "before training"),
        (after, (trained.params, trained.state), "after 600 steps"),
    ):
        fnn.plot_decision_boundary(model, *at, data, figure=part)
        right_answers = fnn.accuracy(fnn.predict(model, *at, data.x), data.y)
        part.suptitle(f"{title}: {float(right_answers):.0%} right", fontsize=11)


if __name__ == "__main__":
    draw()
