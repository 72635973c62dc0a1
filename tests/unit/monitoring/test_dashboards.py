"""The dashboards' files are what the code makes, and what Grafana reads."""

import enum
import re
import types
import typing
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.models import dashboard as models

import dashboards
from monitoring.grafana.source.__main__ import BUILDERS, rendered
from monitoring.grafana.source.layout import plain

ALL = (*dashboards.NAMES, "runbooks")
# What Grafana's Prometheus source reads of an annotation, and the SDK's class does not know.
ANNOTATION_TEXTS = {"titleFormat", "textFormat", "tagKeys", "useValueForTime"}


@pytest.fixture(scope="module", autouse=True)
def sdk() -> None:
    plugins.register_default_plugins()


def typed(value: Any, expected: Any, where: str) -> list[str]:
    """Says where a value is not what the SDK's annotation says; objects are walked into."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if expected in {Any, object}:
        return []
    if origin in {typing.Union, types.UnionType}:
        # The faults of the alternative that was meant: the one whose own type fits.
        faults = [
            typed(value, one, where) for one in arguments if one is not type(None) or value is None
        ]
        return min(faults, key=lambda found: sum(fault.startswith(f"{where}: ") for fault in found))
    if origin is typing.Literal:
        return [] if value in arguments else [f"{where}: {value!r} is none of {arguments}"]
    if origin is list:
        if not isinstance(value, list):
            return [f"{where}: {value!r} is no list"]
        return [
            fault
            for n, one in enumerate(value)
            for fault in typed(one, arguments[0], f"{where}[{n}]")
        ]
    if origin is dict:
        if not isinstance(value, dict):
            return [f"{where}: {value!r} is no mapping"]
        return [
            fault
            for key, one in value.items()
            for fault in typed(one, arguments[1], f"{where}.{key}")
        ]
    return typed_object(value, expected, where)


def typed_object(value: Any, expected: Any, where: str) -> list[str]:
    """The same for a class: a plain one, an enumeration or one of the SDK's own."""
    if isinstance(expected, type) and issubclass(expected, enum.Enum):
        allowed = {one.value for one in expected}
        return [] if value in allowed else [f"{where}: {value!r} is none of {sorted(allowed)}"]
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return []
    if expected in {int, float} and isinstance(value, bool):
        return [f"{where}: {value!r} is no number"]
    if isinstance(value, dict) and hasattr(expected, "from_json"):
        value = expected.from_json(value)  # the SDK leaves panel links as they came
    if isinstance(expected, type) and not isinstance(value, expected):
        return [f"{where}: {value!r} is no {expected.__name__}"]
    if not hasattr(value, "to_json"):
        return []
    hints = typing.get_type_hints(type(value))
    return [
        fault
        for name, hint in hints.items()
        for fault in typed(getattr(value, name), hint, f"{where}.{name}")
    ]


@pytest.mark.parametrize("name", ALL)
def test_committed_file_is_what_the_code_makes(name: str) -> None:
    committed = (dashboards.GRAFANA / "dashboards" / f"{name}.json").read_text()

    assert committed == rendered(name), "run `make dashboards`"


def test_every_file_is_made_by_the_code() -> None:
    assert {path.stem for path in (dashboards.GRAFANA / "dashboards").glob("*.json")} == set(
        BUILDERS
    )


@pytest.mark.parametrize("name", ALL)
def test_grafanas_own_classes_know_every_key(name: str) -> None:
    committed = dashboards.dashboard(name)
    read = plain(models.Dashboard.from_json(committed))

    assert committed.pop("id") is None
    for annotation in committed["annotations"]["list"]:
        assert set(annotation) - set(read["annotations"]["list"][0]) <= ANNOTATION_TEXTS
        for text in ANNOTATION_TEXTS & set(annotation):
            del annotation[text]
    assert read == committed


@pytest.mark.parametrize("name", ALL)
def test_every_value_has_the_type_that_grafana_expects(name: str) -> None:
    read = models.Dashboard.from_json(dashboards.dashboard(name))

    assert typed_object(read, models.Dashboard, name) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("title",), 5),
        (("panels", 1, "gridPos", "w"), "wide"),
        (("panels", 1, "fieldConfig", "defaults", "thresholds", "mode"), "sometimes"),
        (("annotations", "list", 0, "enable"), "yes"),
    ],
    ids=["title", "width", "enumeration", "flag"],
)
def test_the_type_check_sees_a_wrong_type(path: tuple[str | int, ...], value: object) -> None:
    data: Any = dashboards.dashboard("service")
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value

    assert len(typed_object(models.Dashboard.from_json(data), models.Dashboard, "service")) == 1


def test_the_datasource_has_the_uid_that_the_panels_name() -> None:
    provisioned = yaml.safe_load(
        (dashboards.GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text()
    )
    (source,) = provisioned["datasources"]

    assert source["uid"] == "prometheus"
    assert source["type"] == "prometheus"
    assert source["url"] == "${PROMETHEUS_URL}"
    assert source["isDefault"] is True


def test_the_time_interval_is_the_scrape_interval() -> None:
    source = (dashboards.GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text()
    scraped = yaml.safe_load(
        (dashboards.REPOSITORY / "monitoring" / "prometheus" / "prometheus.yml").read_text()
    )

    interval = yaml.safe_load(source)["datasources"][0]["jsonData"]["timeInterval"]
    assert interval == scraped["global"]["scrape_interval"]


def test_the_provider_reads_the_folder_of_the_files() -> None:
    (provider,) = yaml.safe_load(
        (dashboards.GRAFANA / "provisioning" / "dashboards" / "product-classifier.yml").read_text()
    )["providers"]

    assert provider["type"] == "file"
    assert provider["folder"] == "product-classifier"
    assert provider["allowUiUpdates"] is False
    assert provider["options"] == {"path": "${DASHBOARDS_PATH}"}


def test_provisioning_names_no_secret_and_no_plugin() -> None:
    texts = [path.read_text() for path in (dashboards.GRAFANA / "provisioning").rglob("*.yml")]

    assert len(texts) == 2
    assert not any(re.search("password|token|secureJsonData|plugins", text) for text in texts)
