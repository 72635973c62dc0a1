"""The data scientist's dashboard: what the model says, how sure it is, are requests still like training?"""

from typing import Any

from monitoring.grafana.source.layout import Row, assemble
from monitoring.grafana.source.limits import AMBER, BLUE, GREEN, RED, Limit
from monitoring.grafana.source.panels import Query, bars, graph, number, rows

_DECISIONS = {"auto": GREEN, "review": AMBER}
_PREDICTIONS = "product_classifier_predictions_total"
_CONFIDENCE = "product_classifier_prediction_confidence"


def build() -> dict[str, Any]:
    """Builds the dashboard."""
    return assemble(
        "model",
        "Model",
        "What the live model predicts and how sure it is; drift of what it is asked; the accuracy to be expected;"
        " the champion's test figures.",
        [
            Row("Live model", _live()),
            Row("Predictions", _predictions()),
            Row("Drift of requests against the training data", _drift()),
            Row("Last scored batch", _batch()),
            Row("Champion and new bundles", _champion()),
        ],
        span="now-6h",
    )


def _live() -> list[Any]:
    loaded = "product_classifier_bundle_loaded_timestamp_seconds"
    labels = "bundle_id, precision, commit"
    return [
        rows(
            "Live bundle",
            "The bundle that answers, by containers that have it: two lines while one replaces the other.",
            [Query(f"sum by ({labels}) (product_classifier_bundle_info)", "containers")],
            labels={"bundle_id": "bundle", "precision": "precision", "commit": "code"},
            width=9,
            height=4,
            alerts=["BundleLoadFailed"],
        ),
        number(
            "Live for",
            "Time since the newest container loaded its bundle.",
            [Query(f"time() - max({loaded} > 0)")],
            unit="s",
            width=3,
        ),
        number(
            "Products answered",
            "Products per second over five minutes.",
            [Query(f"sum(rate({_PREDICTIONS}[5m]))")],
            unit="ops",
            width=3,
        ),
        number(
            "Automatic",
            "Share of the products in the time shown that need nobody's review.",
            [
                Query(
                    f'sum(increase({_PREDICTIONS}{{decision="auto"}}[$__range]))'
                    f" / (sum(increase({_PREDICTIONS}[$__range])) > 0)"
                )
            ],
            unit="percentunit",
            width=3,
            decimals=1,
        ),
        number(
            "Expected accuracy",
            "Accuracy to be expected without labels: the mean calibrated confidence of the last products. Empty where"
            " the bundle has no reference.",
            [Query("min(product_classifier_expected_accuracy_ratio >= 0)")],  # NaN is not
            unit="percentunit",
            width=3,
            decimals=1,
            alerts=["ExpectedAccuracyLow"],
        ),
        number(
            "Features that drift",
            "Features at or beyond their limit.",
            [
                Query(
                    "count(max by (feature) (product_classifier_drift_psi)"
                    " >= max by (feature) (product_classifier_drift_psi_limit)) or vector(0)"
                )
            ],
            unit="none",
            width=3,
            alerts=["DataDrift"],
            limit=Limit(1, colour=AMBER),
        ),
    ]


def _predictions() -> list[Any]:
    mean = (
        f"sum by (modalities) (rate({_CONFIDENCE}_sum[$__rate_interval]))"
        f" / (sum by (modalities) (rate({_CONFIDENCE}_count[$__rate_interval])) > 0)"
    )
    seconds = "product_classifier_inference_duration_seconds"
    return [
        bars(
            "Classes",
            "The ten codes answered most in the time shown, in products.",
            Query(f"topk(10, sum by (code) (increase({_PREDICTIONS}[$__range])) > 0)", "{{code}}"),
            unit="short",
        ),
        graph(
            "Decisions",
            "Products per second that were sure enough, and that a person should look at.",
            [Query(f"sum by (decision) (rate({_PREDICTIONS}[$__rate_interval]))", "{{decision}}")],
            unit="ops",
            stacked=True,
            colours=_DECISIONS,
        ),
        graph(
            "Confidence",
            "Calibrated confidence of the best code: the mean by what the product had, and the tenth least sure.",
            [
                Query(mean, "mean, {{modalities}}"),
                Query(
                    f"histogram_quantile(0.1, sum by (le) (rate({_CONFIDENCE}_bucket[$__rate_interval]))) >= 0",
                    "10 % are below",
                ),
            ],
            unit="percentunit",
            top=1,
        ),
        graph(
            "Time per product and phase",
            "Mean seconds of one product: waiting for the networks, reading, and each network.",
            [
                Query(
                    f"sum by (phase) (rate({seconds}_sum[$__rate_interval]))"
                    f" / (sum by (phase) (rate({seconds}_count[$__rate_interval])) > 0)",
                    "{{phase}}",
                )
            ],
            unit="s",
            width=12,
            stacked=True,
        ),
        graph(
            "What products have",
            "Products per second by what was there to judge by, and photos that could not be used.",
            [
                Query(
                    f"sum by (modalities) (rate({_CONFIDENCE}_count[$__rate_interval]))",
                    "{{modalities}}",
                ),
                Query(
                    "sum(rate(product_classifier_photo_errors_total[$__rate_interval]))",
                    "unusable photo",
                ),
            ],
            unit="ops",
            width=12,
            colours={"unusable photo": RED},
        ),
    ]


def _drift() -> list[Any]:
    psi, limit = (f"max by (feature) (product_classifier_drift_psi{end})" for end in ("", "_limit"))
    part = "max by (part) (product_classifier_drift_missing{}_ratio)"
    accuracy = "min(product_classifier_expected_accuracy{}_ratio)"
    return [
        rows(
            "Drift by feature",
            "Population stability index of the last products against the training data. From the limit on it is"
            " large and not chance. 0 while the window is too small.",
            [
                Query(psi, "PSI"),
                Query(limit, "limit"),
                Query(
                    f"{psi} / ({limit} > 0)",
                    "share of limit",
                    "percentunit",
                    Limit(1, colour=AMBER),
                ),
                Query(
                    "min by (feature) (product_classifier_drift_window_products)",
                    "products",
                    "none",
                ),
            ],
            labels={"feature": "feature"},
            width=8,
            height=9,
            alerts=["DataDrift"],
        ),
        graph(
            "Drift as a share of its limit",
            "The index of each feature divided by its limit: at 1 it is drift.",
            [Query(f"{psi} / ({limit} > 0)", "{{feature}}")],
            unit="percentunit",
            width=16,
            height=9,
            alerts=["DataDrift"],
            limit=Limit(1, colour=AMBER),
        ),
        graph(
            "Missing parts",
            "Share of the last products without title, description or photo, and of the training data.",
            [
                Query(part.format(""), "{{part}}"),
                Query(part.format("_reference"), "{{part}} in training"),
            ],
            unit="percentunit",
            top=1,
            alerts=["MissingModality"],
        ),
        graph(
            "Missing more often than in training",
            "The difference of the shares beside.",
            [Query(f"{part.format('')} - {part.format('_reference')}", "{{part}}")],
            unit="percentunit",
            from_zero=False,
            alerts=["MissingModality"],
            limit=Limit.of("MissingModality"),
        ),
        graph(
            "Expected accuracy over time",
            "Mean calibrated confidence of the last products, on the test split, and where it is low.",
            [
                Query(accuracy.format(""), "now"),
                Query(accuracy.format("_reference"), "test split"),
                Query(accuracy.format("_limit"), "limit"),
            ],
            unit="percentunit",
            from_zero=False,
            alerts=["ExpectedAccuracyLow"],
            colours={"now": BLUE, "test split": GREEN, "limit": AMBER},
        ),
    ]


def _batch() -> list[Any]:
    psi, limit = (
        f"max by (feature) (product_classifier_batch_drift_psi{end})" for end in ("", "_limit")
    )
    part = "max by (part) (product_classifier_batch_drift_missing{}_ratio)"
    accuracy = "min(product_classifier_batch_expected_accuracy{}_ratio)"
    return [
        number(
            "Expected accuracy of the batch",
            "Mean calibrated confidence of the batch, on the test split, and below what it is low.",
            [
                Query(accuracy.format(""), "batch"),
                Query(accuracy.format("_reference"), "test split"),
                Query(accuracy.format("_limit"), "limit"),
            ],
            unit="percentunit",
            width=9,
            decimals=1,
            alerts=["BatchExpectedAccuracyLow"],
        ),
        number(
            "Missing in the batch more than in training",
            "How much larger the shares of products without title, description or photo are than in the training data.",
            [Query(f"{part.format('')} - {part.format('_reference')}", "{{part}}")],
            unit="percentunit",
            width=9,
            decimals=1,
            alerts=["BatchMissingModality"],
            limit=Limit.of("BatchMissingModality"),
        ),
        number(
            "Products in the report",
            "How many products of the batch the drift report looked at.",
            [Query("max(product_classifier_batch_drift_products)")],
            unit="none",
            width=3,
        ),
        number(
            "Age of the report",
            "Time since the drift report was made.",
            [Query("time() - max(product_classifier_batch_drift_timestamp_seconds)")],
            unit="s",
            width=3,
        ),
        rows(
            "Drift of the batch",
            "As above, of the last batch prediction.",
            [
                Query(psi, "PSI"),
                Query(limit, "limit"),
                Query(
                    f"{psi} / ({limit} > 0)",
                    "share of limit",
                    "percentunit",
                    Limit(1, colour=AMBER),
                ),
            ],
            labels={"feature": "feature"},
            width=12,
            height=8,
            alerts=["BatchDrift"],
        ),
        bars(
            "Drift of the batch as a share of its limit",
            "The index of each feature divided by its limit: at 100 % it is drift.",
            Query(f"{psi} / ({limit} > 0)", "{{feature}}"),
            unit="percentunit",
            width=12,
            alerts=["BatchDrift"],
            limit=Limit(1, colour=AMBER),
        ),
    ]


def _champion() -> list[Any]:
    published = "product_classifier_champion_published_timestamp_seconds"
    return [
        bars(
            "Test figures of the champion",
            "Its metrics on the test split; of calibration_error less is better.",
            Query("max by (metric) (product_classifier_champion_metric_ratio)", "{{metric}}"),
            unit="percentunit",
            width=12,
            top=1,
        ),
        rows(
            "Champion",
            "The bundle that the gate chose; serve follows within a minute.",
            [
                Query(
                    f"time() - max by (bundle_id, precision, commit) ({_champion_time(published)})",
                    "age",
                    "s",
                )
            ],
            labels={"bundle_id": "bundle", "precision": "precision", "commit": "code"},
            width=8,
        ),
        number(
            "Bundles in the time shown",
            "What became of new bundles.",
            [
                Query(
                    "sum by (outcome) (increase(product_classifier_bundle_swaps_total[$__range]))",
                    "{{outcome}}",
                ),
                Query(
                    "sum(increase(product_classifier_bundle_load_failures_total[$__range]))",
                    "not loaded",
                ),
            ],
            unit="none",
            decimals=0,
            height=8,
            alerts=["BundleLoadFailed"],
        ),
    ]


def _champion_time(published: str) -> str:
    return f"product_classifier_champion_info * on () group_left () max({published})"
