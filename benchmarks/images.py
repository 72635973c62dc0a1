"""Measures the container images: sizes above the base image, and what a rebuild after a source change takes.

    .venv/bin/python benchmarks/images.py

Builds this checkout's images, prints a table, then builds twice from a copy of the sources: unchanged, and with one
line of our code changed. The copy and its images are removed.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from product_classifier.runtime.images import IMAGES, SOURCES, build_images, image_tag

ROOT = Path(__file__).resolve().parents[1]
PREFIX = "product-classifier"
COPY_PREFIX = "product-classifier-benchmark"
BASE = "python:3.13-slim-trixie"


def size(image: str) -> int:
    """Gives an image's unpacked size in bytes, its base's layers included."""
    command = ["docker", "image", "inspect", image]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(text)[0]["Size"]


def timed_build(root: Path, prefix: str, tag: str) -> float:
    """Builds all images and gives the wall seconds."""
    started = time.monotonic()
    build_images(root, prefix, tag)
    return time.monotonic() - started


def copy_sources(target: Path) -> None:
    """Copies what the images are made from, as git lists it."""
    command = ["git", "ls-files", "-z", "-c", "-o", "--exclude-standard", "--", *SOURCES]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def measure_rebuild() -> tuple[float, float]:
    """Gives the seconds of a build without a change and of one after a change of our code."""
    with tempfile.TemporaryDirectory(prefix="images-") as folder:
        root = Path(folder)
        copy_sources(root)
        try:
            build_images(root, COPY_PREFIX, "before")
            unchanged = timed_build(root, COPY_PREFIX, "before")
            with (root / "src" / "product_classifier" / "__init__.py").open("a") as code:
                code.write(f"# {time.time_ns()}\n")
            changed = timed_build(root, COPY_PREFIX, "after")
        finally:
            made = [f"{COPY_PREFIX}/{name}:{tag}" for name in IMAGES for tag in ("before", "after")]
            subprocess.run(["docker", "image", "rm", *made], check=False, capture_output=True)
    return unchanged, changed


def main() -> None:
    """Builds and prints."""
    # So that --help builds nothing.
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    tag = image_tag(ROOT)
    first = timed_build(ROOT, PREFIX, tag)
    base = size(BASE)
    unchanged, changed = measure_rebuild()
    print(f"\n| image | MB above {BASE} |\n| --- | --- |")
    for name in IMAGES:
        print(f"| {name} | {(size(f'{PREFIX}/{name}:{tag}') - base) / 1e6:.0f} |")
    print(f"\nthis build: {first:.0f} s; again without a change: {unchanged:.1f} s;", end=" ")
    print(f"after a change of our code: {changed:.1f} s")


if __name__ == "__main__":
    main()
