"""The eight stories at the head of the report: a question, one picture, one finding with its figures, and advice.

A finding is a sentence with places for measured estimates, so that it holds whatever the measurement gives.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.harness.claims import SUPERSCRIPTS, format_number
from experiments.harness.store import Record


class Story(NamedTuple):
    """A question and where its answer is.

    Fields:
        name: its anchor in the report.
        experiment, part, figure: the picture, by the experiment's name, the part's title and the figure's index.
        panels: the indices of the panels that are shown; all if none is given.
        finding: one sentence. ``{claim-name}`` stands for the claim's estimate, ``{claim-name:%}`` for it as a share,
            ``{claim-name:power}`` for ten to its power.
        claims: the names of the claims that bear on the question; those of the finding are among them.
        advice: what to do about it.
        exercises: names of ``funcnn.practice.tasks()``.
        papers: the sources of the topic's claims; where its claims have none, a paper on the question.
    """

    name: str
    question: str
    experiment: str
    part: str
    figure: int
    finding: str
    claims: tuple[str, ...]
    advice: str
    exercises: tuple[str, ...]
    papers: tuple[str, ...]
    panels: tuple[int, ...] = ()


class ShownStory(NamedTuple):
    """A story with what was measured: the figure's record, the finding's sentence, and the claims' results."""

    story: Story
    title: str
    figure: Record
    finding: str
    results: tuple[Record, ...]


STORIES = (
    Story(
        name="story-xor", question="Why does XOR need a hidden layer, and how many units?",
        experiment="perceptron", part="A hidden layer", figure=0,
        finding="A single neuron learns XOR from {neuron-fails-xor:%} of its random starts, four sigmoid units in a "
        "hidden layer from {four-hidden-units-learn-xor:%}; with two units {two-hidden-units-rarely-stick:%} of the "
        "starts get stuck.",
        claims=("neuron-fails-xor", "four-hidden-units-learn-xor", "two-hidden-units-rarely-stick"),
        advice="Take more hidden units than the task needs, and train from several starts before you say that a "
        "network cannot learn something.",
        exercises=("neuron-forward", "two-layer-forward"),
        papers=(
            "Rumelhart, Hinton and Williams 1986, Nature 323, p. 535",
            "Rumelhart, Hinton and Williams 1986, Parallel distributed processing 1, chapter 8",
        ),
    ),
    Story(
        name="story-sigmoid", question="Does the sigmoid make gradients vanish?",
        experiment="vanishing", part="Through two to fifty layers", figure=0,
        finding="Through ten sigmoid layers a gradient shrinks to {ten-sigmoids-xavier:power} of its size with "
        "Xavier's initialization, to {ten-sigmoids-chapter:power} with kernels 0.01·N(0, 1) and to "
        "{ten-sigmoids-large:power} with N(0, 1); through fifty ReLU layers with kernels 0.01·N(0, 1) to "
        "{relu-alone:power}.",
        claims=("ten-sigmoids-xavier", "ten-sigmoids-chapter", "ten-sigmoids-large", "relu-alone"),
        advice="Choose the initialization with the activation: He's for ReLU, Xavier's for tanh. Look at the gradient "
        "of every layer before training, with fnn.plot_signals.",
        exercises=("sigmoid-backward", "he-scale"),
        papers=("Glorot and Bengio 2010, section 4.2",),
    ),
    Story(
        name="story-relu", question="When do ReLU units die, and do they come back?",
        experiment="activations_dying", part="Dying units", figure=0,
        finding="At a learning rate that suits the network {death-rare:%} of the units die, at ten times that rate "
        "{death-by-rate:%}; of dead units {dead-first-layer:%} come back in the first hidden layer and "
        "{dead-second-layer:%} in the second.",
        claims=("death-rare", "death-by-rate", "dead-first-layer", "dead-second-layer"),
        advice="Lower the learning rate before you change the activation, and count dead units during training: "
        "fnn.fit(monitor=True) does.",
        exercises=("relu-backward", "leaky-relu-backward"),
        papers=("Lu, Shin, Su and Karniadakis, Dying ReLU and initialization, 2019",),
    ),
    Story(
        name="story-optimizers", question="Which optimizer is the fastest?",
        experiment="optimizers", part="Five surfaces, each optimizer at its best rate", figure=0, panels=(0, 1, 3),
        finding="With the best rate for each, Adam is the fastest of three from {optimizers-adam-fastest:%} of the "
        "starts on five surfaces, momentum takes {optimizers-momentum-ravine} times the steps of plain descent in a "
        "narrow ravine, and Adam reaches the goals at rates over {optimizers-adam-robust} more decades.",
        claims=("optimizers-adam-fastest", "optimizers-momentum-ravine", "optimizers-adam-robust"),
        advice="Compare optimizers at each one's own best learning rate. Take Adam where there is no time to search.",
        exercises=("momentum-step", "adam-step"),
        papers=("Kingma and Ba, Adam, a method for stochastic optimization, 2015",),
    ),
    Story(
        name="story-scaling", question="What do unscaled inputs cost?",
        experiment="scaling_inputs", part="Accuracy and speed", figure=0,
        finding="At each one's best learning rate, standardised inputs add {scaling-must-population:points} points of "
        "test accuracy on incomes and ages, {scaling-must-wine:points} on wine and {scaling-must-cancer:points} on "
        "breast cancer; with Adam still {scaling-adam:points} on average.",
        claims=("scaling-must-population", "scaling-must-wine", "scaling-must-cancer", "scaling-adam"),
        advice="Standardise every feature by the mean and the deviation of the training data: fnn.standard_scaler.",
        exercises=("linear-backward",),
        papers=("LeCun, Bottou, Orr and Müller, Efficient BackProp, 2012",),
    ),
    Story(
        name="story-softmax", question="Are softmax's outputs chances that can be read one by one?",
        experiment="softmax", part="Several labels at once", figure=0,
        finding="They are one distribution, which adds up to 1: of pictures with two digits softmax gives more than "
        "one half to both in {softmax_read_as_independent:%}, and sigmoids name the whole set of digits in "
        "{joint_labels:points} points more of the pictures.",
        claims=("softmax_read_as_independent", "joint_labels"),
        advice="Where several labels can hold at once, give each a sigmoid: fnn.sigmoid_cross_entropy.",
        exercises=("softmax-forward", "softmax-jacobian"),
        papers=("Bridle, Probabilistic interpretation of feedforward classification network outputs, 1990",),
    ),
    Story(
        name="story-squared-error", question="Why not squared error for classes?",
        experiment="classification_loss", part="The gradient by the error", figure=0,
        finding="Through a sigmoid that is surely wrong, squared error pushes {classification-squared-error-small} "
        "times as hard as cross-entropy: from saturated wrong weights it takes "
        "{classification-recovery-saturated} times as many steps at the same rate, from wrong weights "
        "{classification-recovery-best-rate} times as many with the best rate for each.",
        claims=(
            "classification-squared-error-small", "classification-recovery-saturated",
            "classification-recovery-best-rate",
        ),
        advice="Use cross-entropy on logits, fnn.softmax_cross_entropy. Where squared error is given, search its "
        "learning rate anew.",
        exercises=("mean-squared-error-backward", "softmax-cross-entropy-backward"),
        papers=("Hui and Belkin 2021, Evaluation of neural architectures trained with square loss vs cross-entropy",),
    ),
    Story(
        name="story-deep", question="What makes a network of thirty layers learn?",
        experiment="remedies", part="One remedy at a time, and together", figure=0,
        finding="Of its training samples a plain sigmoid network gets {remedies-none:%} right, with Xavier's "
        "initialization {remedies-xavier:%}, with clipped gradients {remedies-clipping:%}, with batch normalization "
        "{remedies-batch-norm:%}, with skip connections {remedies-skip:%}, and ReLU with all remedies "
        "{remedies-together:%}.",
        claims=(
            "remedies-none", "remedies-xavier", "remedies-clipping", "remedies-batch-norm", "remedies-skip",
            "remedies-together",
        ),
        advice="Add skip connections or batch normalization first: fnn.skip, fnn.batch_norm. Clipping keeps a training "
        "finite, and does not make it learn.",
        exercises=("batch-norm-backward", "skip-backward", "clip-by-global-norm"),
        papers=(
            "Ba, Kiros and Hinton, Layer normalization, 2016",
            "Ioffe and Szegedy, Batch normalization, 2015",
            "He, Zhang, Ren and Sun, Deep residual learning for image recognition, 2016",
        ),
    ),
)  # fmt: skip


class _Estimate(NamedTuple):
    value: float

    def __format__(self, form: str) -> str:
        if form == "%":
            return f"{self.value:.1%}".replace(".0%", "%")
        if form == "points":
            return f"{100 * self.value:.1f}".removesuffix(".0").replace("-", "−")
        if form == "power":
            return "10" + str(round(self.value)).translate(SUPERSCRIPTS)
        return format_number(float(f"{self.value:.3g}"))


def shown_stories(records: Sequence[Record]) -> list[ShownStory]:
    """Return the stories whose picture and claims are measured, in their order."""
    by_name = {record["name"]: record for record in records}
    shown = (_shown(story, by_name) for story in STORIES)
    return [story for story in shown if story is not None]


def _shown(story: Story, records: Mapping[str, Record]) -> ShownStory | None:
    record = records.get(story.experiment)
    parts: list[dict[str, Any]] = record["parts"] if record else []
    results = {one["name"]: one for part in parts for one in part.get("findings", ())}
    figures = [part["figures"] for part in parts if part["title"] == story.part and "figures" in part]
    if record is None or not figures or not set(story.claims) <= set(results):
        return None
    figure = figures[0][story.figure]
    chosen = story.panels or range(len(figure["panels"]))
    return ShownStory(
        story, record["title"], figure | {"panels": [figure["panels"][index] for index in chosen]},
        story.finding.format(**{name: _Estimate(results[name]["estimate"]) for name in story.claims}),
        tuple(results[name] for name in story.claims),
    )  # fmt: skip
