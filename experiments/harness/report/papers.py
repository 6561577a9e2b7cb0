"""Addresses of the papers whose claims are measured."""

ADDRESSES = {
    "Baur and Strassen 1983": "https://doi.org/10.1016/0304-3975(83)90110-X",
    "Rumelhart, Hinton and Williams 1986, Nature": "https://doi.org/10.1038/323533a0",
    "Parallel distributed processing 1": "https://mitpress.mit.edu/9780262680530/",
    "Glorot and Bengio 2010": "https://proceedings.mlr.press/v9/glorot10a.html",
    "Layer normalization, 2016": "https://arxiv.org/abs/1607.06450",
    "Hui and Belkin 2021": "https://arxiv.org/abs/2006.07322",
    "On calibration of modern neural networks": "https://arxiv.org/abs/1706.04599",
    "Barron, Universal approximation bounds": "https://doi.org/10.1109/18.256500",
    "Telgarsky, Benefits of depth": "https://arxiv.org/abs/1602.04485",
    "Alain and Bengio, Understanding intermediate layers": "https://arxiv.org/abs/1610.01644",
    "Greydanus, Scaling down deep learning": "https://arxiv.org/abs/2011.14439",
    "Backpropagation applied to handwritten zip code recognition": "https://doi.org/10.1162/neco.1989.1.4.541",
    "Gradient-based learning applied to document recognition": "https://doi.org/10.1109/5.726791",
    "Azulay and Weiss, Why do deep convolutional networks": "https://arxiv.org/abs/1805.12177",
    "Learning long-term dependencies with gradient descent": "https://doi.org/10.1109/72.279181",
    "Hochreiter and Schmidhuber, Long short-term memory": "https://doi.org/10.1162/neco.1997.9.8.1735",
    "On the difficulty of training recurrent neural networks": "https://arxiv.org/abs/1211.5063",
    "Exact solutions to the nonlinear dynamics of learning": "https://arxiv.org/abs/1312.6120",
    "Empirical evaluation of gated recurrent neural networks": "https://arxiv.org/abs/1412.3555",
    "Recurrent orthogonal networks and long-memory tasks": "https://arxiv.org/abs/1602.06662",
    "Can recurrent neural networks warp time": "https://arxiv.org/abs/1804.11188",
    "Vaswani et al., Attention is all you need": "https://arxiv.org/abs/1706.03762",
    "Using fast weights to attend to the recent past": "https://arxiv.org/abs/1610.06258",
    "Transformer language models without positional encodings": "https://arxiv.org/abs/2203.16634",
    "In-context learning and induction heads": "https://arxiv.org/abs/2209.11895",
    "A mathematical framework for transformer circuits": "https://transformer-circuits.pub/2021/framework/index.html",
    "Chen and Goodman, An empirical study of smoothing": "https://doi.org/10.1006/csla.1999.0128",
    "Using the output embedding to improve language models": "https://arxiv.org/abs/1608.05859",
    "Kaplan et al., Scaling laws for neural language models": "https://arxiv.org/abs/2001.08361",
    "Dying ReLU and initialization": "https://arxiv.org/abs/1903.06733",
    "Adam, a method for stochastic optimization": "https://arxiv.org/abs/1412.6980",
    "Efficient BackProp": "https://doi.org/10.1007/978-3-642-35289-8_3",
    "Bridle, Probabilistic interpretation": "https://doi.org/10.1007/978-3-642-76153-9_28",
    "Batch normalization, 2015": "https://arxiv.org/abs/1502.03167",
    "Deep residual learning for image recognition": "https://arxiv.org/abs/1512.03385",
}
"""By words of ``Claim.source`` and of ``Story.papers``."""

WITHOUT_ADDRESS = {
    "Lang and Witbrock, Learning to tell two spirals apart, 1988": "The proceedings of the 1988 Connectionist Models "
    "Summer School, a printed book, have no DOI and no publisher's page for the paper.",
}
"""The sources without an address, each with the reason."""


def paper_address(source: str) -> str:
    """Return the address of the paper that a source names, or an empty string.

    Example:
        >>> paper_address("Glorot and Bengio 2010, section 4.2")
        'https://proceedings.mlr.press/v9/glorot10a.html'
    """
    return next((address for words, address in ADDRESSES.items() if words in source), "")
