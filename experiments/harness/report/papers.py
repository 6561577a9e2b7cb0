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
}
"""By words of ``Claim.source``."""


def paper_address(source: str) -> str:
    """Return the address of the paper that a claim's source names, or an empty string.

    Example:
        >>> paper_address("Glorot and Bengio 2010, section 4.2")
        'https://proceedings.mlr.press/v9/glorot10a.html'
    """
    return next((address for words, address in ADDRESSES.items() if words in source), "")
