"""Why this answer: what each branch did to it, and the words that mattered most.

By occlusion: a word is taken out, the text branch and the fusion run again with the photo's features kept, and the
predicted code's confidence drops or it does not. Runs in one thread of its own and makes way for requests.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from product_classifier.features.text import DESCRIPTION, TITLE, clean_text
from product_classifier.modeling.fusion import FloatArray
from product_classifier.modeling.predictor import ProductInput
from product_classifier.serve.live_model import LiveModel, Scored

BUDGET_SECONDS = 2.0
MAX_WORDS = 10
MAX_WAITING = 4  # explanations that wait for the one thread
_BLOCK = 16  # texts that the text branch takes at once: a few milliseconds
_PAUSE_SECONDS = 0.005
_TINY = 1e-12  # a probability of 0 has no logarithm

BUSY = "Too many explanations are being made. Ask for this one again."
TOO_SLOW = f"The explanation took longer than {BUDGET_SECONDS:g} s."
NOTHING_TO_EXPLAIN = "There was neither text nor a usable photo."


class NoExplanation(Exception):
    """There is no explanation; the message says why."""


@dataclass(frozen=True)
class BranchEffect:
    """What one modality did to the predicted code."""

    confidence_without: float
    confidence_change: float  # above 0: the modality speaks for the code
    log_probability_change: float


@dataclass(frozen=True)
class WordEffect:
    """What one word did to the predicted code."""

    word: str
    field: str  # designation or description
    drop: float  # confidence that is lost without it; below 0: it spoke against the code


@dataclass(frozen=True)
class Explanation:
    """Effects on the predicted code's confidence."""

    modalities: dict[str, BranchEffect]
    words: list[WordEffect]


class Explainer:
    """Explains answers, one at a time, within the time that is left for each."""

    def __init__(
        self, engine_waiting: Callable[[], int], budget_seconds: float = BUDGET_SECONDS
    ) -> None:
        """Makes an explainer.

        Args:
            engine_waiting: Tells how many products wait for the engine: while any does, this one pauses.
            budget_seconds: Wall time of one explanation, waiting included.
        """
        self._waiting, self._budget = engine_waiting, budget_seconds
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="explaining")
        self._taken = 0

    async def explain(self, model: LiveModel, product: ProductInput, scored: Scored) -> Explanation:
        """Explains an answer with the model that gave it.

        Raises:
            NoExplanation: no time, no room, or nothing to explain.
        """
        if scored.prediction.modalities == "nothing":
            raise NoExplanation(NOTHING_TO_EXPLAIN)
        if self._taken > MAX_WAITING:
            raise NoExplanation(BUSY)
        deadline = time.monotonic() + self._budget
        self._taken += 1
        work = self._pool.submit(self._explain, model, product, scored, deadline)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(work), self._budget)
        except TimeoutError:
            raise NoExplanation(TOO_SLOW) from None
        finally:
            work.cancel()
            self._taken -= 1

    def stop(self) -> None:
        """Ends the thread after the block that it works on."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _explain(
        self, model: LiveModel, product: ProductInput, scored: Scored, deadline: float
    ) -> Explanation:
        column = model.predictor.labels.codes.index(scored.prediction.code)
        modalities = _branch_effects(model, scored, column)
        # Every word is a token or more: what stands behind so many words is never read.
        limit = model.manifest.preprocessing.max_tokens
        title = clean_text(product.title).split()[: limit + 1]
        description = clean_text(product.description).split()[: limit + 1]
        texts = _without_each(title, description, limit)
        words = [("designation", word) for word in title]
        words += [("description", word) for word in description]
        drops: list[float] = []
        for start in range(0, len(texts), _BLOCK):
            self._make_way(deadline)
            probabilities = _fuse(model, texts[start : start + _BLOCK], scored, scored.has_image)
            drops += (scored.prediction.confidence - probabilities[:, column]).tolist()
        effects = [
            WordEffect(word, field, round(drop, 6))
            for (field, word), drop in zip(words[: len(drops)], drops, strict=True)
        ]
        effects.sort(key=lambda effect: -effect.drop)
        return Explanation(modalities, effects[:MAX_WORDS])

    def _make_way(self, deadline: float) -> None:
        while True:
            if time.monotonic() > deadline:
                raise NoExplanation(TOO_SLOW)
            if not self._waiting():
                return
            time.sleep(_PAUSE_SECONDS)


def _fuse(model: LiveModel, texts: Sequence[str], scored: Scored, has_image: bool) -> FloatArray:
    count = len(texts)
    features = np.repeat(scored.features, count, axis=0)  # (1, F) -> (N, F)
    return model.predictor.fuse(texts, features, np.full(count, has_image))


def _branch_effects(model: LiveModel, scored: Scored, column: int) -> dict[str, BranchEffect]:
    """Leaves one modality out at a time; where it was the only one, the classes' shares are what is left."""
    whole = scored.prediction.confidence
    without = {}
    if scored.text:
        without["text"] = _fuse(model, [""], scored, scored.has_image)
    if scored.has_image:
        without["image"] = _fuse(model, [scored.text], scored, False)
    effects = {}
    for name, probabilities in without.items():
        left = float(probabilities[0, column])
        change = float(np.log(max(whole, _TINY)) - np.log(max(left, _TINY)))
        effects[name] = BranchEffect(round(left, 6), round(whole - left, 6), round(change, 6))
    return effects


def _without_each(title: list[str], description: list[str], limit: int) -> list[str]:
    """Composes a text without its first word, without its second, and so on, as `compose_text` does."""
    texts = []
    for index in range(min(limit, len(title) + len(description))):
        left = index - len(title)
        if left < 0:
            texts.append(join_words(title[:index] + title[index + 1 :], description))
        else:
            texts.append(join_words(title, description[:left] + description[left + 1 :]))
    return texts


def join_words(title: Sequence[str], description: Sequence[str]) -> str:
    """Joins cleaned words behind their markers. Cleaning them again could change them: `nan` alone is empty."""
    parts = []
    if title:
        parts.append(" ".join((TITLE, *title)))
    if description:
        parts.append(" ".join((DESCRIPTION, *description)))
    return " ".join(parts)
