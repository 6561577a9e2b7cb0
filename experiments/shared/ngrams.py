"""N-gram models of tokens, interpolated by Witten and Bell's rule."""

from typing import NamedTuple

import numpy as np


class NGrams(NamedTuple):
    """The runs of one length that a text holds, as sorted codes, with the number of times each of them occurs."""

    codes: np.ndarray
    counts: np.ndarray

    def count(self, codes: np.ndarray) -> np.ndarray:
        """Return how often runs occur."""
        places = np.searchsorted(self.codes, codes).clip(0, len(self.codes) - 1)
        return np.where(self.codes[places] == codes, self.counts[places], 0)


class NGramCounts(NamedTuple):
    """Counts for every length up to the longest.

    Fields:
        runs: the runs of 1, 2, … tokens.
        contexts: the runs of 0, 1, … tokens that a token follows, with the number of times one does.
        kinds: the same contexts, with the number of different tokens that follow.
    """

    vocabulary_size: int
    runs: tuple[NGrams, ...]
    contexts: tuple[NGrams, ...]
    kinds: tuple[NGrams, ...]


def encode_runs(tokens: np.ndarray, length: int, vocabulary_size: int) -> np.ndarray:
    """Return the codes of the runs of ``length`` tokens along the last axis, numbers with the tokens as digits."""
    count = tokens.shape[-1] - length + 1
    codes = np.zeros((*tokens.shape[:-1], count), np.int64)
    for place in range(length):
        codes = codes * vocabulary_size + tokens[..., place : place + count]
    return codes


def count_ngrams(tokens: np.ndarray, vocabulary_size: int, longest: int) -> NGramCounts:
    """Count the runs of 1 to ``longest`` tokens in a text."""
    if longest * np.log2(vocabulary_size) >= 63:
        raise ValueError(
            f"count_ngrams(longest): expected runs with codes below 2⁶³, got {longest} tokens of {vocabulary_size} "
            "kinds. Count shorter runs."
        )
    runs, contexts, kinds = [], [], []
    for length in range(1, longest + 1):
        codes, counts = np.unique(encode_runs(tokens, length, vocabulary_size), return_counts=True)
        # Codes are sorted, so runs with one context are neighbours.
        context, first, different = np.unique(codes // vocabulary_size, return_index=True, return_counts=True)
        runs.append(NGrams(codes, counts))
        contexts.append(NGrams(context, np.add.reduceat(counts, first)))
        kinds.append(NGrams(context, different))
    return NGramCounts(vocabulary_size, tuple(runs), tuple(contexts), tuple(kinds))


def ngram_losses(counts: NGramCounts, windows: np.ndarray, order: int) -> np.ndarray:
    """Return −ln P of every token but the first of each window, given the tokens of the window before it.

    With h for the last ``order`` − 1 tokens, h' for h without its first token, N for counts and T(h) for the number of
    different tokens that follow h::

        P(c | h) = (N(h c) + T(h) P(c | h')) / (N(h) + T(h)),    P(c) from P = 1/V

    A token near the beginning of a window has fewer tokens before it, and a shorter h.

    Args:
        counts: of the training text.
        windows: tokens, ``(windows, time)``.
        order: the longest run, context and token together.

    Returns:
        The losses in nats, ``(windows, time − 1)``.

    Source:
        Witten and Bell, "The zero-frequency problem", 1991; Chen and Goodman 1999, section 2.5.
    """
    probability = np.full((len(windows), windows.shape[1] - 1), 1 / counts.vocabulary_size)
    for length in range(1, order + 1):
        codes = encode_runs(windows, length, counts.vocabulary_size)
        if length == 1:
            codes = codes[:, 1:]
        known = codes // counts.vocabulary_size
        seen, kinds = counts.contexts[length - 1].count(known), counts.kinds[length - 1].count(known)
        before = probability[:, probability.shape[1] - codes.shape[1] :]
        mixed = (counts.runs[length - 1].count(codes) + kinds * before) / np.maximum(seen + kinds, 1)
        probability[:, probability.shape[1] - codes.shape[1] :] = np.where(seen > 0, mixed, before)
    return -np.log(probability)
