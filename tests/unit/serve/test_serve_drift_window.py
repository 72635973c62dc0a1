"""The window of a bundle: what is counted in it, what is shown of it, and when it begins anew."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from math import fsum, isnan
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from drifting import feed, make_rows, with_reference
from product_classifier.core.bundle import Manifest, read_manifest
from product_classifier.modeling.drift import FEATURES, PARTS, Answered, measure
from product_classifier.modeling.drift_chance import LARGE_SHIFT, MIN_PRODUCTS
from product_classifier.modeling.observation import Observation
from product_classifier.modeling.observation_table import format_table
from product_classifier.serve.drift import RECENT_OBSERVATIONS, DriftMonitor
from product_classifier.web.metric_registry import MetricRegistry

PREFIX = "product_classifier_"

MakeBundle = Callable[..., Path]


@pytest.fixture(scope="module")
def rows() -> list[Answered]:
    return make_rows(500, seed=0)


@pytest.fixture
def plain(make_bundle: MakeBundle, tmp_path: Path) -> Manifest:
    """As an earlier version of this program wrote it."""
    return read_manifest(make_bundle(tmp_path / "bundle"))


@pytest.fixture
def registry() -> MetricRegistry:
    return MetricRegistry()


def value(registry: MetricRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(PREFIX + name, labels)


def test_window_gives_the_figures_of_its_last_products(
    plain: Manifest, registry: MetricRegistry, rows: list[Answered]
) -> None:
    """What falls out of the window leaves no trace: the figures are those of the report for the same products."""
    manifest = with_reference(plain, rows)
    monitor = DriftMonitor(registry, 300)
    monitor.use(manifest)
    new = make_rows(1000, seed=1, light=0.7, without_photo=0.3)
    feed(monitor, new)

    assert manifest.drift is not None
    assert monitor.figures() == measure(manifest.drift, new[-300:])
    assert monitor.status()["figures"] == measure(manifest.drift, new[-300:]).to_json()


def test_the_mean_confidence_is_exact_after_many_products_came_and_went(
    plain: Manifest, registry: MetricRegistry, rows: list[Answered]
) -> None:
    """It is kept as a running sum; one of floats would be off by then."""
    monitor = DriftMonitor(registry, 200)
    monitor.use(with_reference(plain, rows))
    nothing = Answered(rows[0].facts, None, None)
    sure = [replace(row, confidence=1 / (3 + at)) for at, row in enumerate(rows)]
    fed = [one for row in sure for one in (row, nothing)] * 10
    floats = 0.0
    for end in range(1000, len(fed) + 1, 1000):
        feed(monitor, fed[end - 1000 : end])
        for at in range(end - 1000, end):
            floats += fed[at].confidence or 0.0
            floats -= (fed[at - 200].confidence or 0.0) if at >= 200 else 0.0
        last = [one.confidence for one in fed[end - 200 : end] if one.confidence is not None]
        found = monitor.figures()
        assert found is not None
        assert found.answered == len(last) == 100
        assert found.expected_accuracy == fsum(last) / 100
    assert floats != fsum(last)


def test_a_feature_that_a_later_trainer_knows_fails_no_request(
    plain: Manifest, registry: MetricRegistry, rows: list[Answered]
) -> None:
    manifest = with_reference(plain, rows)
    assert manifest.drift is not None
    features = {**manifest.drift.features, "colour": manifest.drift.features["brightness"]}
    drift = manifest.drift.model_copy(update={"features": features})
    monitor = DriftMonitor(registry, 500)
    monitor.use(manifest.model_copy(update={"drift": drift}))
    feed(monitor, make_rows(60, seed=1))
    found = monitor.figures()
    assert found is not None
    assert (found.features["colour"].products, found.features["text_length"].products) == (0, 60)


def test_gauges_show_the_figures_at_every_scrape(
    plain: Manifest, registry: MetricRegistry, rows: list[Answered]
) -> None:
    monitor = DriftMonitor(registry, 500)
    monitor.use(with_reference(plain, rows))
    feed(monitor, make_rows(200, seed=1, light=0.5, without_photo=0.4))
    generate_latest(registry)
    found = monitor.figures()

    assert found is not None
    assert found.features["brightness"].has_drifted
    for name in FEATURES:
        feature = found.features[name]
        assert value(registry, "drift_psi", feature=name) == feature.psi
        assert value(registry, "drift_psi_limit", feature=name) == feature.limit >= LARGE_SHIFT
        assert value(registry, "drift_window_products", feature=name) == feature.products > 0
    for part in PARTS:
        assert value(registry, "drift_missing_ratio", part=part) == found.missing[part]
        reference = found.missing_reference[part]
        assert value(registry, "drift_missing_reference_ratio", part=part) == reference
    assert value(registry, "expected_accuracy_ratio") == found.expected_accuracy
    reference = found.expected_accuracy_reference
    assert value(registry, "expected_accuracy_reference_ratio") == reference
    assert value(registry, "expected_accuracy_limit_ratio") == found.expected_accuracy_limit


def test_a_swap_empties_the_window(
    plain: Manifest, registry: MetricRegistry, rows: list[Answered]
) -> None:
    monitor = DriftMonitor(registry, 500)
    manifest = with_reference(plain, rows)
    monitor.use(manifest)
    feed(monitor, make_rows(300, seed=1, english=0.9))
    assert monitor.figures() is not None
    assert "language" in monitor.figures().drifted  # type: ignore[union-attr]

    monitor.use(manifest.model_copy(update={"content_id": "b" * 64}))

    assert value(registry, "drift_psi", feature="language") == 0
    assert value(registry, "drift_window_products", feature="language") == 0
    assert monitor.status()["bundle_id"] == "b" * 16
    assert monitor.status()["since"] is None
    feed(monitor, make_rows(10, seed=2))
    assert monitor.status()["figures"]["products"] == 10


def test_small_windows_never_alarm(
    plain: Manifest, registry: MetricRegistry, rows: list[Answered]
) -> None:
    monitor = DriftMonitor(registry, 500)
    monitor.use(with_reference(plain, rows))
    feed(monitor, make_rows(MIN_PRODUCTS - 1, seed=1, light=0.1, confidence=-0.6))
    generate_latest(registry)

    for name in FEATURES:
        assert value(registry, "drift_psi", feature=name) == 0
    low, limit = "expected_accuracy_ratio", "expected_accuracy_limit_ratio"
    assert value(registry, low) > value(registry, limit) > 0  # type: ignore[operator]


def test_bundle_without_reference_has_no_index(
    plain: Manifest, registry: MetricRegistry, rows: list[Answered]
) -> None:
    monitor = DriftMonitor(registry, 500)
    monitor.use(with_reference(plain, rows))
    feed(monitor, rows)
    monitor.use(plain)
    feed(monitor, rows)
    generate_latest(registry)

    assert monitor.figures() is None
    assert monitor.status()["figures"] is None
    for name in FEATURES:
        assert value(registry, "drift_psi", feature=name) is None
        assert value(registry, "drift_psi_limit", feature=name) is None
        assert value(registry, "drift_window_products", feature=name) == 0
    for name in ("", "_reference", "_limit"):  # not 0 %; and a comparison with NaN is no alarm
        assert isnan(value(registry, f"expected_accuracy{name}_ratio"))  # type: ignore[arg-type]
    assert len(monitor.recent()) == 2 * len(rows)


def test_series_are_there_before_the_first_bundle(registry: MetricRegistry) -> None:
    monitor = DriftMonitor(registry, 500)
    feed(monitor, make_rows(60, seed=1))
    generate_latest(registry)

    assert value(registry, "drift_window_products", feature="brightness") == 0
    assert value(registry, "drift_missing_ratio", part="photo") == 0
    assert monitor.recent() == []


def test_nothing_to_go_by_is_no_answer(
    plain: Manifest, registry: MetricRegistry, rows: list[Answered]
) -> None:
    monitor = DriftMonitor(registry, 500)
    monitor.use(with_reference(plain, rows))
    facts = Observation(0, None, None, None, None, None, False, False, False)
    feed(monitor, [Answered(facts, None, None)] * 5)
    found = monitor.figures()

    assert found is not None
    assert (found.products, found.answered) == (5, 0)
    assert found.features["predicted_code"].products == 0


def test_threads_lose_and_double_nothing(
    plain: Manifest, registry: MetricRegistry, rows: list[Answered]
) -> None:
    monitor = DriftMonitor(registry, 700)
    manifest = with_reference(plain, rows)
    monitor.use(manifest)
    parts = [make_rows(400, seed=seed) for seed in range(4)]
    done = threading.Event()

    def scrape() -> None:
        while not done.is_set():
            generate_latest(registry)

    scraper = threading.Thread(target=scrape)
    feeders = [threading.Thread(target=feed, args=(monitor, part)) for part in parts]
    for thread in (scraper, *feeders):
        thread.start()
    for thread in feeders:
        thread.join()
    done.set()
    scraper.join()

    assert manifest.drift is not None
    kept = [one.row for one in monitor.recent()]
    assert len(kept) == 1600
    assert monitor.figures() == measure(manifest.drift, kept[-700:])


def test_recent_observations_are_bounded_and_chosen_by_time(
    plain: Manifest, registry: MetricRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(RECENT_OBSERVATIONS + 100))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    monitor = DriftMonitor(registry, 500)
    monitor.use(plain)  # takes the first tick
    feed(monitor, make_rows(20, seed=1) * 501)
    times = [one.at for one in monitor.recent()]

    assert len(times) == RECENT_OBSERVATIONS
    assert times == sorted(times)
    assert [one.at for one in monitor.recent(5000, 5003)] == [5000, 5001, 5002]
    assert {one.bundle_id for one in monitor.recent()} == {plain.content_id[:16]}
    assert format_table(one.row for one in monitor.recent(5000, 5003)).count("\n") == 4
