"""What every panel owes its reader: a unit, a description, a place of its own, the alerts' limits and runbooks."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

import dashboards
from monitoring.grafana.preview_units import shown
from monitoring.grafana.source import rules

ALL = (*dashboards.NAMES, "runbooks")
DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
# Limits that are no alert's number: the objectives, shares of a limit that is itself a metric, and states.
OWN_LIMITS = {
    "Up": 1,
    "Alerts": 1,
    "Availability": 0.995,
    "Predictions within 1 s": 0.95,
    "Errors": 0.005,
    "Latency of a prediction": 1,
    "Features that drift": 1,
    "Drift by feature": 1,
    "Drift as a share of its limit": 1,
    "Drift of the batch": 1,
    "Drift of the batch as a share of its limit": 1,
    "Pushes failed": 1,
    "Pushes to the DVC remote": 1,
    "DAGs": 1,
    "Tasks": 1,
    "Targets": 1,
    "Targets down": 1,
    "Heartbeats per minute": 1,
}
PLACES = [(name, panel) for name in ALL for panel in dashboards.dashboard(name)["panels"]]
PANELS = [(name, panel) for name, panel in PLACES if panel["type"] != "row"]
ASKING = [(name, panel) for name, panel in PANELS if panel["type"] != "text"]
each_panel = pytest.mark.parametrize(
    ("name", "panel"), PANELS, ids=[f"{name}: {panel['title']}" for name, panel in PANELS]
)
each_asking_panel = pytest.mark.parametrize(
    ("name", "panel"), ASKING, ids=[f"{name}: {panel['title']}" for name, panel in ASKING]
)


def steps(panel: dict[str, Any]) -> Iterator[float]:
    """The numbers at which a panel's colours change."""
    config = panel["fieldConfig"]
    looks = [config["defaults"].get("thresholds", {"steps": []})]
    looks += [
        one["value"]
        for override in config["overrides"]
        for one in override["properties"]
        if one["id"] == "thresholds"
    ]
    return (step["value"] for look in looks for step in look["steps"] if step["value"] is not None)


def linked_alerts(panel: dict[str, Any]) -> list[str]:
    """The alerts whose runbooks a panel links to."""
    titles = (link["title"] for link in panel["links"])
    return [title.removeprefix("Runbook: ") for title in titles if title.startswith("Runbook: ")]


@pytest.mark.parametrize("name", ALL)
def test_a_dashboard_can_be_provisioned(name: str) -> None:
    found = dashboards.dashboard(name)

    assert found["uid"] == f"product-classifier-{name}"
    assert len(found["uid"]) <= 40
    assert found["id"] is None
    assert found["editable"] is False
    assert "__inputs" not in found
    assert "${DS_" not in str(found)
    assert found["title"]
    assert found["description"].endswith(".")


@pytest.mark.parametrize("name", ALL)
def test_a_dashboard_links_to_its_neighbours(name: str) -> None:
    found = dashboards.dashboard(name)
    (link,) = found["links"]

    assert link["type"] == "dashboards"
    assert set(link["tags"]) <= set(found["tags"])
    assert link["keepTime"] is True


@pytest.mark.parametrize("name", ALL)
def test_a_dashboard_marks_deployments_and_alerts(name: str) -> None:
    marks = {one["name"]: one for one in dashboards.dashboard(name)["annotations"]["list"]}

    assert "product_classifier_bundle_loaded_timestamp_seconds" in marks["Models"]["expr"]
    assert "product_classifier_build_info" in marks["Builds"]["expr"]
    assert "ALERTS" in marks["Alerts"]["expr"]
    assert all(one["datasource"] == DATASOURCE and one["enable"] for one in marks.values())


@pytest.mark.parametrize("name", ALL)
def test_panels_do_not_overlap_and_leave_no_gap(name: str) -> None:
    cells = [
        (x, y)
        for _, panel in ((board, panel) for board, panel in PLACES if board == name)
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len(cells) == len(set(cells))
    assert {x for x, _ in cells} == set(range(24))
    lines = {y for _, y in cells}
    assert lines == set(range(max(lines) + 1))
    assert len(cells) == 24 * len(lines)


@pytest.mark.parametrize("name", ALL)
def test_panel_ids_and_titles_are_unique(name: str) -> None:
    found = dashboards.dashboard(name)["panels"]

    assert len({panel["id"] for panel in found}) == len(found)
    assert len({panel["title"] for panel in found}) == len(found)


@each_panel
def test_a_panel_says_what_it_shows(name: str, panel: dict[str, Any]) -> None:
    assert re.match(r"[A-Z/]", panel["title"])
    assert len(panel["title"]) <= 45
    assert len(panel["description"]) >= 15


@each_asking_panel
def test_queries_name_the_datasource_and_differ_in_name(name: str, panel: dict[str, Any]) -> None:
    targets = panel["targets"]

    assert panel["datasource"] == DATASOURCE
    assert all(target["datasource"] == DATASOURCE for target in targets)
    assert len({target["refId"] for target in targets}) == len(targets)
    assert all(target["instant"] is not target["range"] for target in targets)
    assert all(target["expr"].count("(") == target["expr"].count(")") for target in targets)


@each_asking_panel
def test_series_of_several_queries_have_names(name: str, panel: dict[str, Any]) -> None:
    legends = [target["legendFormat"] for target in panel["targets"]]

    if panel["type"] == "timeseries" or len(legends) > 1:
        assert all(legend != "__auto" for legend in legends)
        assert len(set(legends)) == len(legends)


@each_asking_panel
def test_a_number_has_a_unit_that_the_preview_can_write(name: str, panel: dict[str, Any]) -> None:
    if panel["type"] != "table":
        assert shown(1, panel["fieldConfig"]["defaults"]["unit"])
    for override in panel["fieldConfig"]["overrides"]:
        for one in override["properties"]:
            assert one["id"] != "unit" or shown(1, one["value"])


@each_asking_panel
def test_rates_cover_several_scrapes(name: str, panel: dict[str, Any]) -> None:
    """Of a range shorter than two scrapes there is no rate; Grafana's own variables are never shorter than four."""
    ranges = [
        one for target in panel["targets"] for one in re.findall(r"\[([^]]+)\]", target["expr"])
    ]

    assert set(ranges) <= {"$__rate_interval", "$__range", "5m", "1d"}


@each_asking_panel
def test_limits_are_those_of_the_alerts(name: str, panel: dict[str, Any]) -> None:
    limits = {rules.alerts()[alert].limit for alert in linked_alerts(panel)} - {None}
    # "more than" of whole numbers is the next one, as colours begin with their step
    allowed = limits | {limit + 1 for limit in limits if limit is not None and limit == int(limit)}
    allowed |= {OWN_LIMITS[panel["title"]]} if panel["title"] in OWN_LIMITS else set()

    assert set(steps(panel)) <= allowed


def test_every_number_of_an_alert_is_drawn() -> None:
    """Except of alerts on a trend or a count since yesterday, which have no line of their own."""
    drawn = {
        alert
        for _, panel in ASKING
        for alert in linked_alerts(panel)
        if {rules.alerts()[alert].limit, (rules.alerts()[alert].limit or 0) + 1} & set(steps(panel))
    }
    numbers = {name for name, alert in rules.alerts().items() if alert.limit is not None}

    assert numbers - drawn <= {
        *("DiskFilling", "NotificationsFailing", "RulesFailing"),
    }


def test_every_alert_has_a_panel_that_links_to_its_runbook() -> None:
    linked = {alert for _, panel in ASKING for alert in linked_alerts(panel)}

    assert linked == set(rules.alerts())


def test_links_open_the_runbook_that_they_name() -> None:
    runbooks = {panel["id"]: panel for panel in dashboards.panels("runbooks")}
    links = [link for _, panel in ASKING for link in panel["links"]]

    assert len(links) > 20
    for link in links:
        uid, _, number = link["url"].removeprefix("/d/").partition("?viewPanel=")
        assert uid == "product-classifier-runbooks"
        assert runbooks[int(number)]["title"] == link["title"].removeprefix("Runbook: ")


def test_every_alert_has_its_runbook_inside_grafana() -> None:
    found = {panel["title"]: panel["options"]["content"] for panel in dashboards.panels("runbooks")}

    assert set(found) == {"In general", *rules.alerts()}
    assert all(len(text) > 100 for text in found.values())


def test_runbooks_inside_grafana_lead_nowhere_but_to_one_another() -> None:
    panels = dashboards.panels("runbooks")
    titles = {str(panel["id"]): panel["title"] for panel in panels}
    links = [
        link
        for panel in panels
        for link in re.findall(r"\[([^]]+)\]\(([^)]*)\)", panel["options"]["content"])
    ]

    assert len(links) > 5
    for name, address in links:
        uid, _, number = address.partition("?viewPanel=")
        assert uid == "/d/product-classifier-runbooks"
        assert titles[number].lower() == name.strip("`").lower()


def test_allowed_limits_are_all_used() -> None:
    used = {panel["title"] for _, panel in ASKING if set(steps(panel))}

    assert set(OWN_LIMITS) <= used


def test_what_an_alert_measures_is_the_left_side_of_its_comparison() -> None:
    assert rules.measured("QueueRejecting") + " > 10" == rules.alerts()["QueueRejecting"].expression
    with pytest.raises(ValueError, match="ServiceDown is no plain comparison"):
        rules.measured("ServiceDown")
