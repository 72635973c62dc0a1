"""What is observed of one product: on real decoded products, and the same wherever it is looked at."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from drifting import make_rows
from product_classifier.core.bundle import Preprocessing
from product_classifier.core.errors import DataValidationError
from product_classifier.features.language import LANGUAGES, detect_language
from product_classifier.features.text import encode_texts, train_tokenizer
from product_classifier.modeling.drift import Answered
from product_classifier.modeling.observation import Observation, observe
from product_classifier.modeling.observation_table import (
    COLUMNS,
    format_table,
    parse_table,
    read_table,
)
from product_classifier.modeling.predictor import DecodedProduct, ProductInput, decode_product

PREPROCESSING = Preprocessing(
    max_tokens=16, image_size=64, crop=True, text_version=1, image_version=1
)
TITLE = "Chaise de jardin pliante en bois, couleur naturelle"
TOKENS = np.array([5, 6, 7, 1, 0, 0], dtype=np.int32)


def noise(width: int, height: int, level: int = 60) -> Image.Image:
    pixels = np.random.default_rng(0).integers(level, level + 120, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))


def encode(photo: Image.Image, quality: int = 95) -> bytes:
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def look(
    title: str | None = TITLE, description: str | None = None, photo: bytes | None = None
) -> Observation:
    return observe(decode_product(ProductInput(title, description, photo), PREPROCESSING), TOKENS)


def test_text_is_observed_as_cleaned() -> None:
    found = look("  Chaise <b>Pliante</b>&nbsp;", "En&eacute;e")

    assert found.text_length == len("chaise pliante") + len("enée")
    assert (found.has_title, found.has_description, found.has_photo) == (True, True, False)
    assert (found.brightness, found.sharpness, found.aspect) == (None, None, None)


@pytest.mark.parametrize(
    ("title", "description", "present"),
    [
        ("", "une chaise", (False, True)),
        ("chaise", None, (True, False)),
        ("nan", " ", (False, False)),
        ("[DESC] chaise [TITLE] ", "", (True, False)),  # typed markers are no markers
    ],
)
def test_fields_are_told_apart(title: str, description: str | None, present: object) -> None:
    found = look(title, description)

    assert (found.has_title, found.has_description) == present


def test_language_is_the_titles_and_otherwise_the_descriptions() -> None:
    english = "A folding wooden garden chair with two cushions, ready to use this summer"

    assert look(TITLE, english).language == "fr"
    assert look(english, TITLE).language == "en"
    assert look(None, english).language == "en"
    assert look(None, None).language is None
    assert detect_language("Klappstuhl aus Holz für den Garten, mit Kissen") == "de"
    assert set(LANGUAGES) >= {"fr", "en", "de"}


def test_unknown_tokens_are_those_that_the_network_reads() -> None:
    tokenizer = train_tokenizer(["[TITLE] chaise bois"] * 4, 60)
    tokens = encode_texts(tokenizer, ["[TITLE] chaise 椅", ""], 16)
    decoded = DecodedProduct("[TITLE] chaise 椅", None)
    seen = int((tokens[0] != 0).sum())

    assert observe(decoded, tokens[0]).unknown_token_rate == 1 / seen
    assert observe(decoded, tokens[:1]).unknown_token_rate == 1 / seen
    assert observe(DecodedProduct("", None), tokens[1]).unknown_token_rate is None


def test_brightness_is_the_mean_luma_of_the_pixels() -> None:
    photo = decode_product(ProductInput(photo=encode(noise(200, 200))), PREPROCESSING)
    assert photo.pixels is not None
    exact = np.asarray(Image.fromarray(photo.pixels).convert("L"), dtype=float).mean()

    found = observe(photo, TOKENS).brightness
    assert found == pytest.approx(exact, abs=1)
    half = look(photo=encode(Image.eval(noise(200, 200), lambda level: level // 2))).brightness
    assert half == pytest.approx(exact / 2, abs=2)


def test_blur_lowers_sharpness() -> None:
    sharp = look(photo=encode(noise(64, 64))).sharpness
    blurred = look(photo=encode(noise(64, 64).filter(ImageFilter.GaussianBlur(3)))).sharpness

    assert sharp is not None
    assert blurred is not None
    assert blurred < 0.5 * sharp


def test_aspect_is_that_of_the_photo_as_it_came() -> None:
    white = Image.new("RGB", (300, 200), "white")
    white.paste(noise(50, 150), (100, 20))  # cropping leaves a narrow product

    assert look(photo=encode(white)).aspect == 1.5
    turned = Image.new("RGB", (300, 200), "red")
    exif = turned.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", exif=exif)
    assert look(photo=buffer.getvalue()).aspect == pytest.approx(2 / 3)


def test_a_photo_that_cannot_be_used_is_none() -> None:
    found = look(photo=b"no photo")

    assert (found.has_photo, found.aspect, found.brightness) == (False, None, None)


def test_observation_holds_no_words() -> None:
    found = dataclasses.asdict(look(TITLE, "bois"))

    assert [name for name, value in found.items() if isinstance(value, str)] == ["language"]


def test_table_gives_back_what_was_written(tmp_path: Path) -> None:
    rows = make_rows(200, seed=0, without_photo=0.5)
    rows.append(Answered(look("", None), None, None))
    (tmp_path / "rows.csv").write_text(format_table(rows))

    assert read_table(tmp_path / "rows.csv") == rows
    times = [str(index) for index in range(len(rows))]
    text = format_table(rows, {"time": times})
    assert parse_table(text) == rows
    assert text.splitlines()[0] == ",".join(("time", *COLUMNS))
    assert text.splitlines()[3].startswith("2,")


@pytest.mark.parametrize("text", ["a,b\n1,2\n", format_table(make_rows(1, 0)).replace("0.", "x.")])
def test_other_tables_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataValidationError, match="can't be read"):
        parse_table(text)
    with pytest.raises(DataValidationError, match="can't be read"):
        read_table(tmp_path / "none.csv")
