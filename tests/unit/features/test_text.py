import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from product_classifier.core.errors import ArtifactError
from product_classifier.features.text import (
    PAD_ID,
    SPECIAL_TOKENS,
    UNKNOWN_ID,
    clean_text,
    compose_text,
    encode_texts,
    load_tokenizer,
    train_tokenizer,
    unknown_token_rate,
)

CATALOGUE = [
    compose_text(f"Chaise en bois n° {number}", f"Table de jardin, {number} cm, été")
    for number in range(60)
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(CATALOGUE, 300)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        (None, ""),
        ("", ""),
        (" \t\n ", ""),
        ("caf&eacute;", "café"),
        ("caf&amp;eacute;", "café"),
        ("caf&amp;amp;eacute;", "caf&eacute;"),
        ("&#233;t&#xe9;", "été"),
        ("Table<br/>basse", "table basse"),
        ('<p class="a">Lit</p><!-- x -->', "lit"),
        ("&lt;b&gt;Lit&lt;/b&gt;", "lit"),
        ("taille < 90 cm et > 50 cm", "taille 50 cm"),
        ("3 < 4", "3 < 4"),
        ("ＡＢＣ ①", "abc 1"),
        ("e\u0301te\u0301", "été"),
        ("ﬁn", "fin"),
        ("Prix : 12,50 € – 90x200 cm²", "prix : 12,50 € – 90x200 cm2"),
        ("Straße ÇA Œuvre", "straße ça œuvre"),
        ("nan", ""),
        ("  NaN ", ""),
        ("None", ""),
        ("null", ""),
        ("nan 2", "nan 2"),
        ("naan", "naan"),
        ("a\x00b\x07c\x1bd", "a b c d"),
        ("a\u00a0b\u2003c\u3000d", "a b c d"),
        ("a\u200bb", "a b"),
        ("cana\u00adpé d\u200d\u200ce bain\ufeff", "canapé de bain"),
        ("\ud800lit\udfff", "lit"),
        ("lit 😀", "lit 😀"),
        ("&#" + "9" * 5000 + "; lit", "\ufffd lit"),
        ("&amp;#" + "9" * 5000 + "; lit", "\ufffd lit"),
        ("&#0000065;", "a"),
        ("&#xD800;", "\ufffd"),
    ],
)
def test_clean_text(text: str | None, cleaned: str) -> None:
    assert clean_text(text) == cleaned


@pytest.mark.parametrize(
    "unit",
    [
        "<",
        "<a ",
        "</",
        "&",
        "&a",
        "&amp;",
        "&#1",
        "&#",
        "\u0300\u0316",
        " ",
        "a",
        "\x00",
        "é",
        "😀",
        ">",
    ],
    ids=ascii,
)
def test_cleaning_takes_linear_time(unit: str) -> None:
    text = "x" + unit * (600_000 // len(unit))
    started = time.process_time()
    clean_text(text)
    assert time.process_time() - started < 5  # quadratic would be minutes


def test_a_bounded_run_of_marks_survives() -> None:
    assert clean_text("e\u0302\u0301") == "\u1ebf"
    assert clean_text("a" + "\u0316" * 30) == "a" + "\u0316" * 30
    assert clean_text("a" + "\u0316" * 31 + "b") == "a" + "\u0316" * 30 + "b"


def test_compose_puts_each_field_behind_its_marker() -> None:
    assert compose_text("Lit", "Bois") == "[TITLE] lit [DESC] bois"
    assert compose_text("Lit", "nan") == "[TITLE] lit"
    assert compose_text(None, "Bois") == "[DESC] bois"
    assert compose_text(" ", "<br>") == ""


def test_tokenizer_is_the_same_in_every_process() -> None:
    program = (
        "import hashlib, json, sys\n"
        "from product_classifier.features.text import train_tokenizer\n"
        "texts = json.loads(sys.stdin.read())\n"
        "print(hashlib.sha256(train_tokenizer(texts, 400).to_str().encode()).hexdigest())\n"
    )
    texts = json.dumps(
        [*CATALOGUE, *(f"[TITLE] {a}{b}é {b}{a}" for a in "abcdefgh" for b in "ijklm")]
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            input=texts,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "random")
    }
    assert len(found) == 1


def test_encoding_pads_and_cuts_at_the_end(tokenizer: Tokenizer) -> None:
    long, short = CATALOGUE[0], compose_text("Lit", None)
    ids = encode_texts(tokenizer, [long, short, ""], 8)
    assert ids.shape == (3, 8)
    assert ids.dtype == np.int32
    full = tokenizer.encode(long, add_special_tokens=False).ids
    assert len(full) > 8
    assert ids[0].tolist() == full[:8]
    count = len(tokenizer.encode(short, add_special_tokens=False).ids)
    assert 0 < count < 8
    assert (ids[1, :count] != PAD_ID).all()
    assert (ids[1, count:] == PAD_ID).all()
    assert (ids[2] == PAD_ID).all()
    assert encode_texts(tokenizer, [], 8).shape == (0, 8)


@pytest.mark.parametrize(
    "typed",
    ["[PAD]", "[TITLE] [PAD]", "[UNK]", "[DESC]", "&#91;PAD&#93;", "&amp;#91;PAD&amp;#93;", "［ＰＡＤ］",
     "[P<b>AD]", "[P\u00adAD]", "[PAD\u200d]", "[pad]"],
)  # fmt: skip
def test_special_tokens_typed_by_a_customer_are_plain_text(
    tokenizer: Tokenizer, typed: str
) -> None:
    """Only our own marker may be a special token: an injected [PAD] would hide what follows."""
    wide = train_tokenizer([*CATALOGUE, *["[TITLE] [pad] [unk] [desc] [title]"] * 3], 400)
    ids = wide.encode(compose_text(f"{typed} lit", None), add_special_tokens=False).ids
    title = SPECIAL_TOKENS.index("[TITLE]")
    assert ids[0] == title
    assert not set(ids[1:]) & set(range(len(SPECIAL_TOKENS)))


def test_unknown_token_rate_counts_unseen_characters(tokenizer: Tokenizer) -> None:
    assert unknown_token_rate(tokenizer, CATALOGUE) == 0.0
    assert unknown_token_rate(tokenizer, []) == 0.0
    assert unknown_token_rate(tokenizer, [""]) == 0.0
    ids = tokenizer.encode("[TITLE] 漢字", add_special_tokens=False).ids
    expected = ids.count(UNKNOWN_ID) / len(ids)
    assert 0 < expected < 1
    assert unknown_token_rate(tokenizer, ["[TITLE] 漢字"]) == expected


@pytest.mark.parametrize("text", ["\ud800", "\x00", "😀" * 50, "\u0301", "漢字", "\U0010ffff"])
def test_any_text_can_be_encoded(tokenizer: Tokenizer, text: str) -> None:
    ids = encode_texts(tokenizer, [compose_text(text, text)], 12)
    assert ids.min() >= 0
    assert ids.max() < tokenizer.get_vocab_size()


def test_saved_tokenizer_encodes_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer_config.json"
    path.write_text(tokenizer.to_str(pretty=True))
    loaded = load_tokenizer(path)
    assert (encode_texts(loaded, CATALOGUE, 24) == encode_texts(tokenizer, CATALOGUE, 24)).all()


def test_a_file_that_is_no_tokenizer_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer_config.json"
    for content in ("", "{}", "\x00\x01"):
        path.write_text(content)
        with pytest.raises(ArtifactError, match="tokenizer"):
            load_tokenizer(path)
    swapped = train_tokenizer(CATALOGUE, 300).to_str().replace('"[PAD]"', '"[XXX]"')
    path.write_text(swapped)
    with pytest.raises(ArtifactError, match=r"\[PAD\].*Received: \[None, 1, 2, 3\]"):
        load_tokenizer(path)
    with pytest.raises(ArtifactError, match="tokenizer"):
        load_tokenizer(tmp_path / "missing.json")
