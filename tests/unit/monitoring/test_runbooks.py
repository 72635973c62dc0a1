"""The runbooks: one for each alert, and every command, setting and link in them exists."""

import re

import pytest
import typer.main
import yaml

import promtool
from product_classifier.cli import build_app
from product_classifier.runtime.monitoring.services import SERVICES

ROOT = promtool.REPOSITORY
TEXT = (ROOT / "docs" / "runbooks.md").read_text()
FIRST_WORDS = {"page": "Page. ", "ticket": "Ticket. ", "none": "Heartbeat. "}
PARTS = ("**Symptom.**", "**Look here.**", "**Do this.**")
# The services of the embedded run besides the monitoring's own.
PROCESSES = (
    "auth",
    "serve",
    "mlflow",
    "airflow-api-server",
    "airflow-scheduler",
    "airflow-dag-processor",
)


def sections() -> dict[str, str]:
    parts = re.split(r"^### (\w+)$", TEXT, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def severities() -> dict[str, str]:
    files = (ROOT / "monitoring" / "prometheus" / "rules").glob("*.yml")
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    rules = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    return {rule["alert"]: rule["labels"]["severity"] for rule in rules}


def code() -> list[str]:
    return re.findall(r"`([^`]+)`", TEXT)


def test_each_alert_has_a_runbook_and_the_reverse() -> None:
    assert sections().keys() == severities().keys()


@pytest.mark.parametrize("name", sections())
def test_runbook_says_symptom_where_to_look_and_what_to_do(name: str) -> None:
    body = sections()[name]
    places = [body.find(part) for part in PARTS]
    assert -1 not in places
    assert places == sorted(places)
    assert body.strip().startswith(FIRST_WORDS[severities()[name]])


def test_links_lead_to_a_section_or_a_page() -> None:
    anchors = {heading.lower() for heading in re.findall(r"^#+ (\w+)$", TEXT, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        found = target[1:] in anchors if target[0] == "#" else (ROOT / "docs" / target).is_file()
        assert found, target


def test_commands_exist() -> None:
    known = typer.main.get_command(build_app())
    said = [text.split() for text in code() if text.startswith(".venv/bin/product-classifier")]
    assert len(said) > 10
    for _, name, *rest in said:
        command = known.commands[name]  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            command = command.commands[rest[0]]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= options, rest


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    said = {text.split()[1] for text in code() if text.startswith("make ")}
    assert {"start", "status", "logs", "doctor", "monitoring"} <= said <= targets


def test_logs_are_of_services_that_exist() -> None:
    compose = set(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"])
    said = set(re.findall(r"make logs S=([a-z-]+)", TEXT))
    assert "serve" in said
    assert said <= compose
    only_in_containers = {"postgres", "redis", "gateway", "airflow-worker"}
    assert said - only_in_containers <= {*SERVICES, *PROCESSES}


def test_settings_exist() -> None:
    example = set(
        re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    )
    said = {word for text in code() for word in re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b", text)}
    assert len(said) > 20
    assert {word for word in said if not word.endswith("_")} <= example


def test_metrics_exist() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    for name in re.findall(r"product_classifier_\w+", TEXT):
        assert f"`{name}`" in page
