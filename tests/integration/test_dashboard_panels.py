"""Every panel's queries against a real Prometheus, while five minutes of mixed traffic go through the real services.

A panel without data, or with a NaN, fails: a person would look at it and learn nothing.
"""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

import dashboards
from monitoring.grafana import preview
from monitoring.grafana.panel_queries import Series, Window, ask, ask_panel
from monitoring_stack import monitoring_stack, require_monitoring
from product_classifier.core.workspace import Workspace
from traffic import Script, Traffic, run_script

require_monitoring()

pytestmark = pytest.mark.timeout(900)

SCRAPE_SECONDS = 10


@dataclass(frozen=True)
class Watched:
    """A Prometheus that has seen the traffic."""

    url: str
    window: Window
    traffic: Traffic


@pytest.fixture(scope="module")
def watched(
    trained_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("panels")
    with monitoring_stack(folder, trained_workspace, with_redis=True, with_pipeline=True) as stack:
        traffic, start = stack.traffic(), time.time()
        run_script(traffic, Script().with_everything())
        time.sleep(2 * SCRAPE_SECONDS)  # what came last has been read, and judged
        url = f"http://127.0.0.1:{stack.settings.prometheus_port}"
        yield Watched(url, Window(start, time.time()), traffic)


def faults(series: list[Series]) -> list[str]:
    """Says what a person could not read."""
    if not series:
        return ["no data"]
    values = [(one.name, value) for one in series for _, value in one.points]
    return [f"{name} is {value}" for name, value in values if not math.isfinite(value)][:1]


def values(watched: Watched, board: str, title: str) -> dict[str, float]:
    """What a panel shows now, by series."""
    panel = next(one for one in dashboards.panels(board) if one["title"] == title)
    return {one.name: one.last for one in ask_panel(watched.url, panel, watched.window)}


@pytest.mark.parametrize("board", dashboards.NAMES)
def test_every_query_of_every_panel_has_data(board: str, watched: Watched) -> None:
    found = {
        f"{panel['title']}: {target['expr']}": faults(ask(watched.url, target, watched.window))
        for panel in dashboards.panels(board)
        for target in panel["targets"]
    }

    assert len(found) > 15
    assert {query: said for query, said in found.items() if said} == {}


@pytest.mark.parametrize("board", dashboards.NAMES)
def test_a_dashboard_marks_what_happened(board: str, watched: Watched) -> None:
    marks = preview.marked_times(dashboards.dashboard(board), watched.url, watched.window)

    # Guessed passwords page; the bundle was loaded before the traffic, and no service was replaced.
    assert {colour for _, colour in marks} >= {"red"}
    assert all(watched.window.start <= at <= watched.window.end for at, _ in marks)


def test_requests_are_told_apart_by_their_fate(watched: Watched) -> None:
    predict = values(watched, "service", "/predict: in the time shown")
    token = values(watched, "service", "/token: in the time shown")

    assert set(predict) == set(token) == {"successful", "unauthorized", "failed"}
    assert predict["successful"] > predict["unauthorized"] > 0
    assert predict["failed"] > 0
    assert token["unauthorized"] > 0
    assert token["successful"] > 0
    # The caller counted the same, but for what came in before the first and after the last scrape.
    sent = watched.traffic.count("good")[200] + watched.traffic.count("drift")[200]
    assert predict["successful"] >= 0.8 * sent


def test_what_goes_well_is_zero_and_not_unknown(watched: Watched) -> None:
    errors = values(watched, "service", "Errors")

    assert errors["auth"] == 0
    assert 0 < errors["fastapi"] < 0.2


def test_numbers_say_how_things_are(watched: Watched) -> None:
    assert values(watched, "service", "Up") == {"fastapi": 1, "auth": 1}
    assert values(watched, "service", "Ready") == {"fastapi": 1, "auth": 1}
    assert values(watched, "service", "Alerts")["pages"] >= 1
    assert values(watched, "host", "Targets down") == {"": 0}
    assert set(values(watched, "pipeline", "Last run").values()) <= {0, 1}


def test_drift_shows_in_the_features_that_drifted(watched: Watched) -> None:
    """The traffic's drift is English titles and dark photos; the small bundle's limits are far away."""
    shares = values(watched, "model", "Drift as a share of its limit")

    assert max(shares, key=lambda feature: shares[feature]) in {"language", "brightness"}


def test_the_pictures_can_be_drawn(
    watched: Watched, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("previews")
    for board in dashboards.NAMES:
        data = json.loads((dashboards.GRAFANA / "dashboards" / f"{board}.json").read_text())
        preview.draw(data, watched.url, watched.window, folder / f"{board}.png")

    assert all(path.stat().st_size > 50_000 for path in folder.glob("*.png"))
    assert len(list(folder.glob("*.png"))) == len(dashboards.NAMES)
