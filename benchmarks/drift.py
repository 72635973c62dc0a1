"""What drift costs a request, and whether it finds what it should in a real catalogue.

    python benchmarks/drift.py --bundle models/champion
    python benchmarks/drift.py --bundle models/champion --catalogue data/raw

Cost: processor time of observing a product and taking it into the window, as a share of the processor time of that
product's whole request. The request goes through the real app, token and all, with and without photo. At most 1 %.

With `--catalogue` (what `ingest` published) products of the test split are scored; windows of 500 of them are drawn
without change, with half the titles in another language, with photos half as bright, and with one class at 40 %.
"""

import argparse
import io
import os
import platform
import random
import secrets
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient
from PIL import Image

from product_classifier.core.bundle import read_manifest
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.modeling.observation import observe, warm_up
from product_classifier.modeling.predictor import ProductInput
from product_classifier.serve.app import create_app
from product_classifier.serve.drift import DriftMonitor
from product_classifier.serve.live_model import LiveModel, Scored
from product_classifier.train.dataset import Dataset, load_dataset
from product_classifier.web.metric_registry import MetricRegistry
from product_classifier.web.tokens import TokenSigner

WINDOW = 500
TITLE = "Chaise de jardin pliante en bois d'acacia, lot de 4, couleur naturelle"
DESCRIPTION = "Une chaise solide et légère, facile à ranger, pour la terrasse ou le balcon. " * 6
# Titles in a language that the catalogue's titles are not in.
FOREIGN = {
    "en": (
        "Folding wooden garden chair, set of four with cushions",
        "Original video game for console, very good condition",
        "Blue ceramic vase for the living room, hand made",
        "Remote controlled car for children with two batteries",
        "The history of the second world war, hardcover book",
    ),
    "fr": (
        "Chaise de jardin pliante en bois, lot de quatre avec coussins",
        "Jeu vidéo original pour console, très bon état",
        "Vase bleu en céramique pour le salon, fait à la main",
        "Voiture télécommandée pour enfants avec deux piles",
        "L'histoire de la seconde guerre mondiale, livre relié",
    ),
}


def cpu_of(work: Callable[[], Any], repeats: int) -> float:
    """Median processor seconds of one call, of all threads of this process."""
    found = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return statistics.median(found)


def cpu_of_many(work: Callable[[], Any], count: int) -> float:
    """Mean processor seconds of something too short to be timed once; the best of five rounds."""
    rounds = []
    for _ in range(5):
        started = time.thread_time()
        for _ in range(count):
            work()
        rounds.append((time.thread_time() - started) / count)
    return min(rounds)


def photo() -> bytes:
    """A photo as a catalogue has them: 500 x 500, not all of it plain."""
    noise = np.random.default_rng(0).integers(0, 255, (125, 125, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((500, 500), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def measure_cost(bundle: Path) -> None:
    """Compares the cost of drift with that of requests."""
    secret = secrets.token_hex(32)
    settings = Settings(
        _env_file=None,  # type: ignore[call-arg]
        algorithm="HS256",
        secret_key=secret,
        bundle_source=str(bundle.resolve()),
        predict_rate_limit="100000/minute",
    )
    token = TokenSigner(secret, lifetime_seconds=3600).issue("bench", "user", "session")
    headers = {"Authorization": f"Bearer {token}"}
    app = create_app(settings, Workspace(Path.cwd()))
    content = photo()
    with TestClient(app, headers=headers) as client:
        engine, model = app.state.engine, app.state.engine.model
        for name, data, files, repeats in (
            ("with photo", {"designation": TITLE, "description": DESCRIPTION}, content, 30),
            ("text", {"designation": TITLE, "description": DESCRIPTION}, None, 300),
            ("title", {"designation": TITLE}, None, 300),
        ):

            def ask(data: dict[str, str] = data, files: bytes | None = files) -> None:
                form: dict[str, Any] = {key: (None, text) for key, text in data.items()}
                if files:
                    form["image"] = ("a.jpg", files, "image/jpeg")
                answer = client.post("/predict", files=form)
                assert answer.status_code == 200, answer.text

            for _ in range(10):
                ask()
            request = cpu_of(ask, repeats)
            product = ProductInput(data["designation"], data.get("description"), files)
            extra = cost_of_drift(model, app.state.drift, product)
            print(
                f"{name:15s} request {request * 1e3:8.2f} ms of processor, "
                f"drift {extra * 1e6:6.1f} us = {extra / request:.2%}"
            )
        assert engine.model is model
        scrape = cpu_of(app.state.drift.publish, 100)
        print(f"figures, once a scrape: {scrape * 1e3:.2f} ms of processor")


def cost_of_drift(model: LiveModel, monitor: DriftMonitor, product: ProductInput) -> float:
    """Processor seconds that drift adds to one product."""
    predictor = model.predictor
    decoded, scored = predictor.decode(product), model.score(product)
    tokens = predictor.tokenize([decoded.text])

    def work() -> None:
        observe(decoded, tokens)
        monitor.add(scored)

    return cpu_of_many(work, 1000)


def darkened(content: bytes) -> bytes:
    """The photo with half its light."""
    with Image.open(io.BytesIO(content)) as opened:
        picture = opened.convert("RGB")
    buffer = io.BytesIO()
    Image.eval(picture, lambda level: level // 2).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def check_catalogue(bundle: Path, raw: Path, products: int) -> None:
    """Says what is found in windows of real products, the same as in the test split and changed."""
    model, dataset = LiveModel.load(bundle), load_dataset(raw)
    chosen = random.Random(0).sample([int(row) for row in dataset.sides["test"]], products)
    inputs = [to_input(dataset, row) for row in chosen]
    codes = [dataset.label_map.codes[int(dataset.labels[row])] for row in chosen]
    usual = [model.score(product) for product in inputs]
    generator = random.Random(1)
    languages = Counter(one.observation.language for one in usual)
    foreign = min(FOREIGN, key=lambda language: languages[language])
    translated = [
        model.score(replace(product, title=generator.choice(FOREIGN[foreign])))
        if index % 2
        else one
        for index, (product, one) in enumerate(zip(inputs, usual, strict=True))
    ]
    dark = [
        model.score(replace(product, photo=darkened(product.photo))) if product.photo else one
        for product, one in zip(inputs[: products // 2], usual, strict=False)
    ]
    tally = Counter(codes)
    grown = min(tally, key=lambda code: abs(tally[code] / products - 0.05))
    of_it = [one for one, code in zip(usual, codes, strict=True) if code == grown]
    others = [one for one, code in zip(usual, codes, strict=True) if code != grown]
    alarms = Counter(
        name for seed in range(200) for name in found_in(model, draw(usual, WINDOW, seed))
    )
    print(f"200 windows without change: alarms {dict(alarms) or 'none'}")
    print(f"class {grown}: {tally[grown] / products:.1%} of the products")
    for name, drifting in (
        (f"half the titles in {foreign}", draw(translated, WINDOW, 1)),
        ("photos half as bright", draw(dark, WINDOW, 2)),
        ("one class at 40 %", draw(of_it, 200, 3) + draw(others, 300, 4)),
    ):
        random.Random(5).shuffle(drifting)
        print(f"{name}: {found_after(model, draw(usual, WINDOW, 9), drifting)}")


def to_input(dataset: Dataset, row: int) -> ProductInput:
    """A product of the catalogue with its photo."""
    product = dataset.products[row]
    return ProductInput(product.title, product.description, dataset.photos.read(product.photo_name))


def draw(answers: list[Scored], count: int, seed: int) -> list[Scored]:
    """Draws with replacement."""
    return random.Random(seed).choices(answers, k=count)


def found_in(model: LiveModel, answers: list[Scored]) -> list[str]:
    """Names what has drifted in one window."""
    monitor = DriftMonitor(MetricRegistry(), WINDOW)
    monitor.use(model.manifest)
    for one in answers:
        monitor.add(one)
    figures = monitor.figures()
    assert figures is not None, "This bundle has no drift reference."
    return [*figures.drifted, *(["expected accuracy"] if figures.is_accuracy_low else [])]


def found_after(model: LiveModel, before: list[Scored], drifting: list[Scored]) -> dict[str, int]:
    """After how many drifting products each alarm began, in a window full of usual ones."""
    monitor = DriftMonitor(MetricRegistry(), WINDOW)
    monitor.use(model.manifest)
    for one in before:
        monitor.add(one)
    first: dict[str, int] = {}
    for count, one in enumerate(drifting, start=1):
        monitor.add(one)
        if count % 10 == 0 and (figures := monitor.figures()) is not None:
            low = ["expected accuracy"] if figures.is_accuracy_low else []
            for name in (*figures.drifted, *low):
                first.setdefault(name, count)
    return first


def main() -> None:
    """Reads the command line and runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=Path("models/champion"))
    parser.add_argument("--catalogue", type=Path, help="what `ingest` published (data/raw)")
    parser.add_argument("--products", type=int, default=1000, help="of the catalogue's test split")
    arguments = parser.parse_args()
    manifest = read_manifest(arguments.bundle)
    print(
        f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} processors, "
        f"Python {platform.python_version()}, photos of {manifest.preprocessing.image_size} pixels"
    )
    warm_up()
    measure_cost(arguments.bundle)
    if arguments.catalogue:
        check_catalogue(arguments.bundle, arguments.catalogue, arguments.products)


if __name__ == "__main__":
    main()
