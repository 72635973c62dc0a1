"""Generates a catalogue in the Rakuten layout: what a fresh clone runs on, without network.

Neither text nor photo alone tells every type: some titles are only brand and reference, some could
belong to any type of their family, some photos show a parcel. A product never has both an unclear
title and an unclear photo.
"""

import csv
import html
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from product_classifier.core.catalogue import LABEL_COLUMNS, PRODUCT_COLUMNS, Product
from product_classifier.core.params import SampleParams
from product_classifier.core.product_types import NAMES_FILE, rakuten_names
from product_classifier.core.progress import report_progress
from product_classifier.core.workspace import LABELS_FILE, TEST_FILE, TRAIN_FILE
from product_classifier.ingest.drawing import draw_photo, encode_photo

GENERATOR_VERSION = 1  # raise it with any change of what is generated: the probe carries it

# Products per type in the Rakuten France training set; the generated sizes keep these proportions.
RAKUTEN_COUNTS = {
    10: 3116, 40: 2508, 50: 1681, 60: 832, 1140: 2671, 1160: 3953, 1180: 764, 1280: 4870,
    1281: 2070, 1300: 5045, 1301: 807, 1302: 2491, 1320: 3241, 1560: 5073, 1920: 4303, 1940: 803,
    2060: 4993, 2220: 824, 2280: 4760, 2403: 4774, 2462: 1421, 2522: 4989, 2582: 2589, 2583: 10209,
    2585: 2496, 2705: 2761, 2905: 872,
}  # fmt: skip
_SMALLEST_CLASS = 20  # enough for train, validation and test to hold each type

_GENERIC_TITLES = 0.10
_FAMILY_TITLES = 0.08
_UNCLEAR_PHOTOS = 0.20
_MISSING_PHOTOS = 0.006
_RELISTED = 0.015  # the same product offered again: what the split must keep on one side
_LANGUAGES = {"fr": 0.81, "en": 0.12, "de": 0.07}
_EMPTY_DESCRIPTIONS = {"clear": 0.31, "family": 0.50, "generic": 0.50}


@dataclass(frozen=True)
class _Generated:
    product: Product
    code: int
    photo: bytes | None


@lru_cache(maxsize=1)
def _vocabulary() -> dict[str, Any]:
    content = resources.files("product_classifier.ingest.sample_data").joinpath("vocabulary.json")
    vocabulary: dict[str, Any] = json.loads(content.read_text(encoding="utf-8"))
    return vocabulary


@lru_cache(maxsize=32)
def _family(code: str) -> dict[str, Any]:
    families = _vocabulary()["families"].values()
    return next(family for family in families if code in family["types"])


def apportion(total: int, smallest: int) -> dict[int, int]:
    """Divides `total` products over the types as Rakuten has them, at least `smallest` each."""
    counts = {}
    left, weight = total, sum(RAKUTEN_COUNTS.values())
    # From the smallest type on, so that what a minimum takes is taken from the larger ones.
    for code, size in sorted(RAKUTEN_COUNTS.items(), key=lambda item: (item[1], item[0])):
        counts[code] = max(smallest, round(left * size / weight))
        left -= counts[code]
        weight -= size
    return counts


def _pick_language(rng: random.Random) -> str:
    return rng.choices(list(_LANGUAGES), list(_LANGUAGES.values()))[0]


def _title(code: str, clarity: str, language: str, rng: random.Random) -> str:
    vocabulary, family = _vocabulary(), _family(code)
    words = vocabulary["types"][code]
    reference = (
        f"{rng.choice('ABCDEFGHKLMNPRSTVX')}{rng.choice('ABDEGKLMRSTX')}-{rng.randrange(100, 9999)}"
    )
    nouns = {
        "family": family["nouns"],
        "clear": words["nouns"] if language == "fr" else words[language],
        "generic": [""],
    }
    patterns = (
        vocabulary["generic_titles"] if clarity == "generic" else vocabulary["titles"][language]
    )
    return str(rng.choice(patterns)).format(
        noun=rng.choice(nouns[clarity]),
        brand=rng.choice(family["brands"]),
        colour=rng.choice(vocabulary["colours"][language]),
        reference=reference,
    )


def _description(code: str, clarity: str, language: str, rng: random.Random) -> str:
    if rng.random() < _EMPTY_DESCRIPTIONS[clarity]:
        return ""
    boilerplate = _vocabulary()["boilerplate"][language]
    sentences = [rng.choice(boilerplate)]
    if clarity == "clear" and rng.random() < 0.75:
        # Details exist in French only: a shop's foreign offers often carry the French text.
        sentences = [
            rng.choice(_vocabulary()["types"][code]["details"]),
            *sentences[: rng.randrange(2)],
        ]
    return rng.choice((" ", " ", "<br />", "\n")).join(sentences)


def _escape(text: str, rng: random.Random) -> str:
    """Writes accents as HTML entities, as part of the real catalogue does, at times twice."""
    if rng.random() >= 0.12:
        return text
    entities = "".join(f"&#{ord(c)};" if ord(c) > 127 else c for c in text)
    return html.escape(entities, quote=False) if rng.random() < 0.2 else entities


def _clarity(rng: random.Random) -> tuple[str, bool]:
    draw = rng.random()
    if draw < _GENERIC_TITLES:
        return "generic", True
    if draw < _GENERIC_TITLES + _FAMILY_TITLES:
        return "family", True
    return "clear", rng.random() >= _UNCLEAR_PHOTOS / (1 - _GENERIC_TITLES - _FAMILY_TITLES)


def _generate_one(seed: int, row: int, code: int, ids: tuple[int, int]) -> _Generated:
    # A stream per product: one more product changes no other.
    rng = random.Random(f"{GENERATOR_VERSION}:{seed}:{row}")  # noqa: S311 - no secret
    clarity, clear_photo = _clarity(rng)
    language = _pick_language(rng)
    title = _escape(_title(str(code), clarity, language, rng), rng)
    description = _escape(_description(str(code), clarity, language, rng), rng)
    photo = None
    if clarity != "clear" or rng.random() >= _MISSING_PHOTOS:
        photo = encode_photo(draw_photo(str(code), rng, clear=clear_photo), rng)
    return _Generated(Product(row, title, description, *ids), code, photo)


def _relist(original: _Generated, row: int, ids: tuple[int, int]) -> _Generated:
    """Offers a product again: same photo, same words in another order of the title."""
    title = " ".join(reversed(original.product.title.split(" ")))
    return _Generated(
        Product(row, title, original.product.description, *ids), original.code, original.photo
    )


def generate(params: SampleParams) -> Iterator[tuple[Product, int, bytes | None]]:
    """Generates labelled products, then unlabelled ones: each with its code and photo, if any.

    The same parameters give the same bytes on one machine (another Pillow may encode otherwise).
    """
    rng = random.Random(f"{GENERATOR_VERSION}:{params.seed}")  # noqa: S311 - no secret
    codes: list[int] = []
    for total, smallest in (
        (params.products, min(_SMALLEST_CLASS, params.products // 27)),
        (params.unlabelled, 0),
    ):
        part = [
            code for code, count in sorted(apportion(total, smallest).items()) for _ in range(count)
        ]
        rng.shuffle(part)
        codes += part
    product_ids = rng.sample(range(100_000_000, 4_300_000_000), len(codes))
    image_ids = rng.sample(range(500_000_000, 1_330_000_000), len(codes))
    latest: dict[int, _Generated] = {}
    for row, code in enumerate(codes):
        ids = (product_ids[row], image_ids[row])
        if row < params.products and code in latest and rng.random() < _RELISTED:
            generated = _relist(latest[code], row, ids)
        else:
            generated = latest[code] = _generate_one(params.seed, row, code, ids)
        yield generated.product, code, generated.photo


def write_sample(folder: Path, params: SampleParams) -> None:
    """Writes the generated catalogue into an empty folder, in the Rakuten layout."""
    photos = {part: folder / "images" / part for part in ("image_train", "image_test")}
    for path in photos.values():
        path.mkdir(parents=True)
    labelled: list[Product] = []
    unlabelled: list[Product] = []
    labels: list[tuple[int, int]] = []
    with report_progress(
        "Generating the sample catalogue", params.products + params.unlabelled, "products"
    ) as progress:
        for product, code, photo in generate(params):
            is_labelled = product.row < params.products
            (labelled if is_labelled else unlabelled).append(product)
            if is_labelled:
                labels.append((product.row, code))
            if photo is not None:
                (
                    photos["image_train" if is_labelled else "image_test"] / product.photo_name
                ).write_bytes(photo)
            progress.advance()
    _write_csv(folder / TRAIN_FILE, PRODUCT_COLUMNS, [_as_row(product) for product in labelled])
    _write_csv(folder / LABELS_FILE, LABEL_COLUMNS, labels)
    _write_csv(folder / TEST_FILE, PRODUCT_COLUMNS, [_as_row(product) for product in unlabelled])
    write_names(folder)


def write_names(folder: Path) -> None:
    """Writes the names of the 27 Rakuten types."""
    names = {code: name.model_dump() for code, name in rakuten_names().items()}
    text = json.dumps(names, ensure_ascii=False, indent=1)
    (folder / NAMES_FILE).write_text(text + "\n", encoding="utf-8")


def _as_row(product: Product) -> tuple[int, str, str, int, int]:
    return product.row, product.title, product.description, product.product_id, product.image_id


def _write_csv(path: Path, columns: tuple[str, ...], rows: list[Any]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
