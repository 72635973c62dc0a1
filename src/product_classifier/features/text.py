"""From a title and a description to token ids. Used unchanged by training, batch scoring and serving."""

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from product_classifier.core.errors import ArtifactError

TEXT_VERSION = (
    1  # raise it with any change below: an older bundle must then be refused, not misread
)

PAD, UNKNOWN, TITLE, DESCRIPTION = "[PAD]", "[UNK]", "[TITLE]", "[DESC]"
SPECIAL_TOKENS = (PAD, UNKNOWN, TITLE, DESCRIPTION)
PAD_ID, UNKNOWN_ID = 0, 1

_TAG = re.compile(r"<[^<>]{0,2000}>")
_SPACE = re.compile(r"\s+")
# No character has so many digits; `html.unescape` raises ValueError from 4,301 on.
_HUGE_REFERENCE = re.compile(r"&#[0-9]{10,};?")
# Every combining mark is neither letter, digit nor space. NFKC sorts a run of them in quadratic time (80,000 took
# 7 s), so a run is cut as Unicode's stream-safe format does. Source: https://unicode.org/reports/tr15, section 13.
_LONG_RUN = re.compile(r"([^\w\s\x00-\x7f]{30})[^\w\s\x00-\x7f]+")
# Soft hyphen, zero-width joiners and marks of direction stand inside words; other control characters between them.
_INVISIBLE = str.maketrans("", "", "\u00ad\u200c\u200d\u200e\u200f\u2060\ufeff")
# What a spreadsheet or a join leaves where there is no text.
_EMPTY_WORDS = frozenset({"nan", "none", "null"})


def clean_text(text: str | None) -> str:
    """Normalises one field: entities decoded, tags dropped, NFKC, lower case, single spaces.

    Accents, digits and units stay: they tell types apart. Entities are decoded twice, because shops
    export `&amp;eacute;`. What a customer types never becomes a special token: those are upper case.
    """
    if not text:
        return ""
    decoded = _TAG.sub(" ", _unescape(_unescape(text))).translate(_INVISIBLE)
    plain = unicodedata.normalize("NFKC", _LONG_RUN.sub(r"\1", decoded)).lower()
    cleaned = _SPACE.sub(" ", "".join(c if c.isprintable() else " " for c in plain)).strip()
    return "" if cleaned in _EMPTY_WORDS else cleaned


def _unescape(text: str) -> str:
    return html.unescape(_HUGE_REFERENCE.sub("\ufffd", text))


def compose_text(title: str | None, description: str | None) -> str:
    """Joins the cleaned fields, each behind its marker; empty where both are empty."""
    parts = []
    if cleaned := clean_text(title):
        parts.append(f"{TITLE} {cleaned}")
    if cleaned := clean_text(description):
        parts.append(f"{DESCRIPTION} {cleaned}")
    return " ".join(parts)


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
    """Trains a byte-pair tokenizer on composed texts.

    The same texts give the same tokenizer, byte for byte: BPE breaks ties by order, not by hash.

    Args:
        texts: Results of `compose_text`.
        vocabulary_size: Tokens at most, special ones included.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.NFKC()
    # The start of a word is marked by a character, not by a word suffix: suffixed letters would get their
    # ids in hash order, another one in each process.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """Reads a bundle's tokenizer.

    Raises:
        ArtifactError: the file is no tokenizer, or its special tokens are not the first ones, in order.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ArtifactError(f"{path} is no tokenizer: {error}") from error
    found = [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS]
    if found != list(range(len(SPECIAL_TOKENS))):
        raise ArtifactError(f"{path}: {SPECIAL_TOKENS} must be tokens 0 to 3. Received: {found}.")
    return tokenizer


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> NDArray[np.int32]:
    """Turns composed texts into token ids.

    Returns:
        Shape `(len(texts), max_tokens)`, int32, cut or padded with 0 at the end. An empty text is all 0.
    """
    ids = np.full((len(texts), max_tokens), PAD_ID, dtype=np.int32)
    for row, encoding in enumerate(tokenizer.encode_batch(list(texts), add_special_tokens=False)):
        tokens = encoding.ids[:max_tokens]
        ids[row, : len(tokens)] = tokens
    return ids


def unknown_token_rate(tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """Share of tokens that the tokenizer has never seen, over all texts; 0 where there is no token."""
    seen = missed = 0
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        seen += len(encoding.ids)
        missed += sum(1 for token in encoding.ids if token == UNKNOWN_ID)
    return missed / seen if seen else 0.0
