"""Checks every photo and packs the good ones into shards: a new photo changes one of them."""

import os
import warnings
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageStat

from product_classifier.core.errors import ProductClassifierError
from product_classifier.core.files import sha256_bytes
from product_classifier.core.params import ValidationParams
from product_classifier.core.progress import report_progress
from product_classifier.features.images import decode_photo
from product_classifier.features.photos import SHARD_PREFIX, PhotoStore, shard_of, write_shard
from product_classifier.ingest.faults import Findings, Offender
from product_classifier.ingest.tables import ProductTable

_MAX_THREADS = 8


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """What the split and the reference statistics need to know of a good photo."""

    sha256: str
    brightness: float  # mean luma (ITU-R 601-2) of the upright photo, 0 to 255


@dataclass(frozen=True, slots=True)
class _Examined:
    name: str
    content: bytes = b""
    facts: PhotoFacts | None = None
    problem: str = ""


def _examine(photos: PhotoStore, name: str) -> _Examined:
    try:
        content = photos.read(name)
        if content is None:
            return _Examined(name, problem="missing")
        picture = decode_photo(content)
    except ProductClassifierError as error:
        return _Examined(name, problem=str(error))
    except Exception as error:  # zlib and others raise errors of their own on damaged archives
        return _Examined(name, problem=f"{type(error).__name__}: {error}")
    return _Examined(name, content, PhotoFacts(sha256_bytes(content), _brightness(picture)))


def _brightness(picture: Image.Image) -> float:
    # Every fourth pixel in both directions, averaged in its block: 16 times fewer pixels to
    # convert.
    small = picture.reduce(4) if min(picture.size) >= 64 else picture
    return round(ImageStat.Stat(small.convert("L")).mean[0], 2)


def publish_photos(
    tables: Iterable[ProductTable],
    photos: PhotoStore,
    folder: Path,
    shards: int,
    findings: Findings,
) -> dict[str, PhotoFacts]:
    """Writes all products' photos into `folder` as shards; equal photos give equal bytes.

    A missing or broken photo is left out and becomes a warning: readers see no photo there.

    Returns:
        Facts by file name, for the good photos only.
    """
    tables = list(tables)
    names = sorted({product.photo_name for table in tables for product in table.products})
    by_shard: dict[int, list[str]] = defaultdict(list)
    for name in names:
        by_shard[shard_of(name, shards)].append(name)
    folder.mkdir(parents=True)
    facts: dict[str, PhotoFacts] = {}
    problems: dict[str, str] = {}
    threads = min(_MAX_THREADS, os.cpu_count() or 1)
    # Decoding sets warning filters per photo, which is not safe between threads: what they leave
    # is undone here.
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(threads) as pool,
        report_progress("Checking photos", len(names), "photos") as progress,
    ):
        for shard, members in sorted(by_shard.items()):
            contents: dict[str, bytes] = {}
            for examined in pool.map(lambda name: _examine(photos, name), members):
                progress.advance()
                if examined.facts is None:
                    problems[examined.name] = examined.problem
                    continue
                contents[examined.name] = examined.content
                facts[examined.name] = examined.facts
            if contents:
                write_shard(folder / f"{SHARD_PREFIX}{shard:02x}.zip", contents)
    _note_problems(tables, problems, findings)
    return facts


def _note_problems(
    tables: list[ProductTable], problems: dict[str, str], findings: Findings
) -> None:
    for table in tables:
        for product, line in zip(table.products, table.lines, strict=True):
            problem = problems.get(product.photo_name)
            if problem == "missing":
                offender = Offender(table.name, line, "imageid", product.photo_name)
                findings.warn("missing photo", "Products whose photo is missing.", offender)
            elif problem is not None:
                offender = Offender(table.name, line, "imageid", f"{product.photo_name}: {problem}")
                findings.warn("broken photo", "Products whose photo can't be used.", offender)


def check_bad_photos(products: int, params: ValidationParams, findings: Findings) -> None:
    """Makes bad photos a fault where they are more than `max_bad_photos_fraction` of all."""
    checks = ("missing photo", "broken photo")
    found = [finding for finding in findings.warnings if finding.check in checks]
    bad = sum(finding.count for finding in found)
    if products and bad / products > params.max_bad_photos_fraction:
        allowed = (
            f"{bad} of {products} photos are bad, allowed is {params.max_bad_photos_fraction:.1%}"
        )
        for finding in found:
            findings.turn_into_fault(finding.check, f"{finding.message.rstrip('.')}: {allowed}.")
