"""docs/metrics.md, the dashboards and the rules speak of the same metrics."""

import re

import pytest

import dashboards
import metrics_page
from monitoring.grafana.source import rules

JOBS = ("fastapi", "auth", "pipeline", "airflow")
# What other programs tell: Prometheus itself, Alertmanager, node-exporter, HAProxy, and any process's client library.
FOREIGN = re.compile(r"^(up|ALERTS|(scrape|prometheus|alertmanager|node|haproxy|process)_\w+)$")
PARTS = ("_bucket", "_sum", "_count")


def documented() -> dict[str, str]:
    """Type of every metric of docs/metrics.md, by name."""
    return {one.name: one.type for job in JOBS for one in metrics_page.documented(job)}


def family(name: str, types: dict[str, str]) -> str:
    """The metric that a series belongs to: a histogram has several."""
    for part in PARTS:
        whole = name.removesuffix(part)
        if whole != name and types.get(whole) == "histogram":
            return whole
    return name


def used() -> set[str]:
    """Names in all queries and rules, without recorded series."""
    expressions = [one for name in dashboards.NAMES for one in dashboards.expressions(name)]
    names = set().union(*map(dashboards.metric_names, [*expressions, *rules.expressions()]))
    return {name for name in names if ":" not in name}


def test_every_documented_metric_is_on_a_dashboard_or_in_a_rule() -> None:
    types = documented()

    assert len(types) > 60
    assert set(types) - {family(name, types) for name in used()} == set()


def test_every_metric_that_is_asked_for_is_documented() -> None:
    types = documented()
    ours = {name for name in used() if not FOREIGN.match(name)}

    assert {name for name in ours if family(name, types) not in types} == set()


def test_recorded_series_that_are_asked_for_are_recorded() -> None:
    expressions = [one for name in dashboards.NAMES for one in dashboards.expressions(name)]
    names = set().union(*map(dashboards.metric_names, expressions))

    recorded = {name for name in names if ":" in name}
    assert len(recorded) > 4
    assert recorded <= rules.recorded_names()


@pytest.mark.parametrize("name", dashboards.NAMES)
def test_histograms_are_asked_for_by_their_parts(name: str) -> None:
    types = documented()
    names = set().union(*map(dashboards.metric_names, dashboards.expressions(name)))

    assert not {one for one in names if types.get(one) == "histogram"}


@pytest.mark.parametrize("name", dashboards.NAMES)
def test_counters_are_shown_as_growth(name: str) -> None:
    """A counter starts again at zero with its process; the totals of the pipeline's text files do not."""
    counters = {one for one, kind in documented().items() if kind == "counter"}
    lasting = re.compile(r"^product_classifier_(task|pipeline)_runs_total|_dvc_push_failures_total")
    for expression in dashboards.expressions(name):
        for metric in dashboards.metric_names(expression) & counters:
            if not lasting.search(metric):
                growth = rf"(rate|increase)\(\s*{metric}\b|{metric} offset "
                assert re.search(growth, expression), expression


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (a, b) (rate(x_total{c="d_e", f=~"g|h"}[5m]))', {"x_total"}),
        ("a:b:c5m / on (job) group_left (x) max without (y) (z) > 0.5", {"a:b:c5m", "z"}),
        ("m and on () (count(n offset 10m) > 1e3) or vector(0)", {"m", "n"}),
    ],
)
def test_names_are_found_in_an_expression(expression: str, names: set[str]) -> None:
    assert dashboards.metric_names(expression) == names
