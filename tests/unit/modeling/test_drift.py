"""Drift: found where it is, not found where it is not. What chance does is compared with draws, not with a formula."""

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from drifting import make_rows
from product_classifier.core.bundle import DriftFeature, DriftReference
from product_classifier.modeling.drift import (
    FEATURES,
    Answered,
    accuracy_limit,
    build_reference,
    features_of,
    measure,
)
from product_classifier.modeling.drift_bins import (
    bin_edges,
    bin_of,
    count_bins,
    describe_categories,
    describe_numbers,
)
from product_classifier.modeling.drift_chance import (
    CHANCE,
    LARGE_SHIFT,
    MIN_PRODUCTS,
    WINDOW_SIZES,
    chance_bound,
    chance_table,
    deviations,
    limit_for,
    stability_index,
)
from product_classifier.modeling.observation import Observation

WINDOW = 500
CODES = range(200)
NOTHING = Answered(Observation(0, None, None, None, None, None, False, False, False), None, None)


@pytest.fixture(scope="module")
def reference() -> DriftReference:
    return build_reference(make_rows(2000, seed=0), CODES)


def shares_of(shape: str, bins: int) -> np.ndarray:
    weights = {
        "even": np.ones(bins),
        "falling": 1 / np.arange(1, bins + 1),
        "one large": np.array([50.0 * bins, *np.ones(bins - 1)]),
    }[shape]
    return weights / weights.sum()


def test_index_is_that_of_the_definition() -> None:
    reference, window = [60, 30, 10], [30, 30, 40]
    p = [(count + 0.5) / 101.5 for count in reference]
    q = [(count + 0.5) / 101.5 for count in window]
    wanted = sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))

    assert stability_index(reference, window) == pytest.approx(wanted)
    assert stability_index(reference, reference) == 0
    assert stability_index(reference, [6, 3, 1]) < 0.02  # shares count, not sizes
    assert math.isfinite(stability_index([100, 0], [0, 100]))


@pytest.mark.parametrize(
    ("classes", "shape", "rows", "products"),
    [
        (2, "falling", 200, 500),
        (2, "one large", 2000, 50),
        (27, "falling", 2000, 500),
        (27, "one large", 200, 500),
        (200, "even", 200, 500),
        (200, "falling", 2000, 50),
    ],
)
def test_chance_passes_its_bound_about_as_rarely_as_it_says(
    classes: int, shape: str, rows: int, products: int
) -> None:
    """One in 100 can be counted. Over many references: of one unlucky reference it may be more."""
    rng = np.random.default_rng(1)
    shares, draws, references, above = shares_of(shape, classes), 200, 25, 0
    known = [str(code) for code in range(classes)]
    for _ in range(references):
        feature = describe_categories(
            [str(code) for code in rng.choice(classes, size=rows, p=shares)], known
        )
        if feature is None:
            continue
        bound = chance_bound(feature.counts, products, 1e-2)
        windows = rng.multinomial(products, shares, size=draws)
        above += int((indices(feature, windows) > bound).sum())
    assert above / (draws * references) < 0.03


def indices(feature: DriftFeature, windows: np.ndarray) -> np.ndarray:
    """The stability index of many windows, each given as counts of codes 0, 1, ...; shape (draws, codes)."""
    counts = np.zeros((len(windows), len(feature.counts)))
    for code in range(windows.shape[1]):
        counts[:, bin_of(feature, str(code))] += windows[:, code]
    p = (np.array(feature.counts) + 0.5) / (sum(feature.counts) + 0.5 * len(feature.counts))
    q = (counts + 0.5) / (counts.sum(axis=1, keepdims=True) + 0.5 * len(feature.counts))
    found: np.ndarray = ((q - p) * np.log(q / p)).sum(axis=1)
    assert found[0] == pytest.approx(stability_index(feature.counts, counts[0].tolist()))
    return found


def test_bound_nears_the_textbook_where_that_holds() -> None:
    """Many products in even bins: PSI is chi-squared with B - 1 degrees of freedom, times 1/n + 1/m."""
    reference = [400] * 10
    textbook = stats.chi2.ppf(1 - CHANCE, 9) * (1 / 4000 + 1 / 2000)

    assert chance_bound(reference, 2000) == pytest.approx(textbook, rel=0.08)


@pytest.mark.parametrize("freedom", [1, 2, 5, 26, 199])
def test_formula_for_the_far_quantile_errs_upwards(freedom: int) -> None:
    spread = 2 / (9 * freedom)
    formula = freedom * (1 - spread + NormalDist().inv_cdf(1 - CHANCE) * spread**0.5) ** 3
    exact = stats.chi2.ppf(1 - CHANCE, freedom)

    assert exact <= formula <= 1.25 * exact
    assert deviations() == pytest.approx(stats.norm.isf(CHANCE), rel=1e-6)


def test_limit_is_never_below_what_is_called_large_and_falls_with_products() -> None:
    table = tuple(chance_table([200] * 10))
    limits = [limit_for(table, products) for products in (0, *WINDOW_SIZES, 10**6)]

    assert limits == sorted(limits, reverse=True)
    assert limits[0] == limits[1] > 0.5  # below the smallest size: as if it were that
    assert limits[-1] == LARGE_SHIFT
    assert limit_for(table, 60) < limit_for(table, 59) < limit_for(table, 51)
    for between in (60, 70, 140, 300):
        exact = max(LARGE_SHIFT, chance_bound([200] * 10, between))
        assert limit_for(table, between) == pytest.approx(exact, rel=0.06)


def test_limit_grows_with_classes() -> None:
    """With 200 classes an index of 0.3 in 500 products is nothing; with 10 it is much."""
    table = tuple(chance_table([10] * 200))

    assert limit_for(table, WINDOW) > 0.5


def test_common_values_have_bins_of_their_own() -> None:
    edges = bin_edges([1.0] * 90 + [1.5] * 10)
    feature = describe_numbers([1.0] * 90 + [1.5] * 10)

    positions = [bin_of(feature, value) for value in (0.7, 1.0, 1.2, 1.5, 1.9)]
    assert positions[0] < positions[1] < positions[2] <= positions[3]
    assert edges == sorted(set(edges))
    assert sum(feature.counts) == 100
    assert feature.counts[positions[0]] == 0


def test_nothing_is_below_zero() -> None:
    assert min(bin_edges([0.0] * 90 + [0.5] * 10)) == 0.0


def test_bins_of_spread_numbers_are_even() -> None:
    feature = describe_numbers(np.random.default_rng(0).normal(5, 1, 1000).tolist())

    assert feature.counts == [100] * 10
    assert len(describe_numbers(list(range(1, 26))).counts) == 2


def test_values_at_an_edge_fall_as_they_did_in_the_reference() -> None:
    values = [round(value, 1) for value in np.random.default_rng(0).normal(5, 1, 500)]
    feature = describe_numbers(values)
    again = DriftFeature.model_validate_json(feature.model_dump_json())

    assert count_bins(again, values) == feature.counts


def test_rare_categories_are_counted_with_their_neighbours() -> None:
    tally = {"a": 4, "b": 30, "c": 0, "d": 7, "e": 9, "f": 1}
    values = [value for value, count in tally.items() for _ in range(count)]
    feature = describe_categories(values, "abcdefg")

    assert feature is not None
    assert feature.categories == {"b": 0, "a": 1, "c": 1, "d": 1, "e": 2, "f": 2, "g": 2}
    assert feature.counts == [30, 11, 10]
    assert bin_of(feature, "never heard of") == 2


def test_categories_in_one_bin_are_no_feature() -> None:
    assert describe_categories(["fr"] * 50, ["fr"]) is None
    assert describe_categories(["a", "b"] * 3, ["a", "b", "c"]) is None
    french = describe_categories(["fr"] * 50, ["en", "fr"])
    assert french is not None
    assert french.counts == [50, 0]


def test_reference_has_every_feature(reference: DriftReference) -> None:
    assert tuple(reference.features) == FEATURES
    assert set(features_of(make_rows(1, 0)[0])) == set(FEATURES)
    assert all(
        sum(bins.counts) <= reference.products == 2000 for bins in reference.features.values()
    )


def test_reference_leaves_out_what_hardly_any_product_has() -> None:
    rows = make_rows(200, seed=3, without_photo=1.0)
    reference = build_reference(rows, CODES)

    assert {"brightness", "sharpness", "aspect"}.isdisjoint(reference.features)
    assert reference.missing["photo"] == 1
    assert "brightness" not in measure(reference, make_rows(200, seed=4)).features


def test_reference_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one product"):
        build_reference([], CODES)


@pytest.mark.parametrize(
    ("rows", "classes"), [(40, 2), (40, 27), (200, 27), (2000, 2), (2000, 200)]
)
def test_no_alarm_without_drift(classes: int, rows: int) -> None:
    reference = build_reference(make_rows(rows, seed=0, classes=classes), CODES)
    for seed in range(1, 21):
        for products in (MIN_PRODUCTS, WINDOW):
            found = measure(reference, make_rows(products, seed=seed, classes=classes))
            assert found.drifted == [], (seed, products, found)
            assert not found.is_accuracy_low


@pytest.mark.parametrize("classes", [2, 200])
def test_english_titles_are_found(classes: int) -> None:
    reference = build_reference(make_rows(2000, seed=0, classes=classes), CODES)
    rows = make_rows(WINDOW, seed=1, classes=classes, english=0.55)

    assert measure(reference, rows).drifted == ["language"]


def test_dark_photos_are_found(reference: DriftReference) -> None:
    assert "brightness" in measure(reference, make_rows(WINDOW, seed=1, light=0.5)).drifted


@pytest.mark.parametrize("classes", [2, 27, 200])
def test_a_class_that_grows_from_5_to_40_percent_is_found(classes: int) -> None:
    before = make_rows(2000, seed=0, classes=classes, first_class=0.05)
    after = make_rows(WINDOW, seed=1, classes=classes, first_class=0.40)

    assert measure(build_reference(before, CODES), after).drifted == ["predicted_code"]


def test_photos_that_are_no_longer_square_are_found(reference: DriftReference) -> None:
    rows = make_rows(WINDOW, seed=1)
    narrow = [
        Answered(
            replace(row.facts, aspect=0.66 if row.facts.has_photo else None), 1, row.confidence
        )
        for row in rows
    ]
    assert "aspect" in measure(reference, narrow).drifted


def test_small_windows_say_nothing(reference: DriftReference) -> None:
    found = measure(reference, make_rows(MIN_PRODUCTS - 1, seed=1, light=0.3, confidence=-0.5))

    assert found.features["text_length"].psi == 0
    assert found.drifted == []
    assert found.expected_accuracy == found.expected_accuracy_reference
    assert not found.is_accuracy_low


def test_products_without_a_value_are_not_counted_for_it(reference: DriftReference) -> None:
    found = measure(reference, make_rows(WINDOW, seed=1, without_photo=1.0))

    assert found.features["brightness"].products == 0
    assert found.features["text_length"].products == found.products == WINDOW
    assert found.missing == {"title": 0.0, "description": pytest.approx(0.35, abs=0.08), "photo": 1}
    assert found.missing_reference["photo"] == pytest.approx(0.05, abs=0.02)


def test_a_window_of_nothing_has_no_answers(reference: DriftReference) -> None:
    found = measure(reference, [NOTHING] * 100)

    assert (found.products, found.answered) == (100, 0)
    assert found.features["predicted_code"].products == 0
    assert found.features["text_length"].has_drifted  # no product has a text
    assert measure(reference, []).missing == {"title": 0, "description": 0, "photo": 0}


def test_expected_accuracy_is_the_mean_confidence(reference: DriftReference) -> None:
    rows = make_rows(WINDOW, seed=1)
    found = measure(reference, rows)

    mean = np.mean([row.confidence for row in rows])
    assert found.expected_accuracy == pytest.approx(mean)
    assert found.expected_accuracy_reference == pytest.approx(0.806, abs=0.01)  # 5 / 6.2


def test_lower_confidence_is_found_and_higher_is_not(reference: DriftReference) -> None:
    assert measure(reference, make_rows(WINDOW, seed=1, confidence=-0.15)).is_accuracy_low
    assert not measure(reference, make_rows(WINDOW, seed=1, confidence=-0.02)).is_accuracy_low
    assert not measure(reference, make_rows(WINDOW, seed=1, confidence=0.15)).is_accuracy_low


def test_accuracy_limit_is_five_points_or_chance(reference: DriftReference) -> None:
    mean, deviation = reference.confidence_mean, reference.confidence_deviation
    by_chance = stats.norm.isf(CHANCE) * deviation * math.sqrt(1 / 100 + 1 / 2000)

    assert accuracy_limit(reference, 100) == pytest.approx(mean - by_chance)
    large = reference.model_copy(update={"answered": 10**9})
    assert accuracy_limit(large, 10**6) == pytest.approx(mean - 0.05)
    assert accuracy_limit(reference, 0) == accuracy_limit(reference, MIN_PRODUCTS)
