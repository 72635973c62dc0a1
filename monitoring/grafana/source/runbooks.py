"""The runbooks inside Grafana: what a panel's link opens, generated from `docs/runbooks.md`."""

import re
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import text
from grafana_foundation_sdk.models.text import TextMode

from monitoring.grafana.source import rules
from monitoring.grafana.source.layout import Row, assemble
from monitoring.grafana.source.panels import runbook_address

RUNBOOKS = rules.ROOT / "docs" / "runbooks.md"


def build() -> dict[str, Any]:
    """Builds the dashboard: the introduction, then a text per alert with the number that the links count on."""
    sections = read_sections(RUNBOOKS)
    alerts = rules.alerts()
    panels = [_panel("In general", "What holds for all alerts.", sections[""]).span(24)]
    panels += [_panel(name, _kind(one), sections[name.lower()]) for name, one in alerts.items()]
    if len(alerts) % 2:
        panels[-1].span(24)
    return assemble(
        "runbooks",
        "Runbooks",
        "What to do about each alert: symptom, where to look, what to do. The text is docs/runbooks.md.",
        [Row("", panels)],
        span="now-1h",
        refresh="",
    )


def read_sections(path: Path) -> dict[str, str]:
    """Splits the runbooks by heading; keys are the headings in lower case, "" is what comes before the first.

    Raises:
        OSError: The file can't be read.
    """
    parts = re.split(r"^#{2,3} +(.+)$", path.read_text(), flags=re.MULTILINE)
    introduction = re.sub(r"^# .*$", "", parts[0], count=1, flags=re.MULTILINE)
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    bodies = {heading.strip("` ").lower(): body for heading, body in pairs}
    return {name: body.strip() for name, body in {"": introduction, **bodies}.items()}


def _kind(alert: rules.Alert) -> str:
    kind = "Heartbeat" if alert.severity == "none" else f"A {alert.severity}"
    return f"{kind} of the group {alert.group}."


def _panel(title: str, description: str, body: str) -> text.Panel:
    panel = text.Panel().title(title).mode(TextMode.MARKDOWN).content(_linked_here(body))
    return panel.description(description).span(12).height(10)


def _linked_here(body: str) -> str:
    """Leads links to other runbooks to their panels; other pages of the documentation are only named."""
    headings = {name.lower(): name for name in rules.alerts()}

    def turned(match: re.Match[str]) -> str:
        name = headings.get(match[2].removeprefix("#"))
        return f"[{match[1]}]({runbook_address(name)})" if name else f"{match[1]} (docs/{match[2]})"

    return re.sub(r"\[([^]]+)\]\((#\w+|\w+\.md[^)]*)\)", turned, body)
