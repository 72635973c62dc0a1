"""The dashboards and their code, for tests: `monitoring/` is no installed package, but a folder of the repository."""

import json
import re
import sys
import types
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
GRAFANA = REPOSITORY / "monitoring" / "grafana"
# Without the repository's root on the path: there, a folder `airflow` would pass for the installed one.
_folder = types.ModuleType("monitoring")
_folder.__path__ = [str(REPOSITORY / "monitoring")]
sys.modules.setdefault("monitoring", _folder)

NAMES = ("service", "model", "pipeline", "host")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")


def dashboard(name: str) -> dict[str, Any]:
    """Reads a committed dashboard."""
    found: dict[str, Any] = json.loads((GRAFANA / "dashboards" / f"{name}.json").read_text())
    return found


def panels(name: str) -> list[dict[str, Any]]:
    """Its panels, without the headings of rows."""
    return [panel for panel in dashboard(name)["panels"] if panel["type"] != "row"]


def expressions(name: str) -> list[str]:
    """All queries of a dashboard, those of its annotations included."""
    queries = [target["expr"] for panel in panels(name) for target in panel.get("targets", [])]
    return queries + [one["expr"] for one in dashboard(name)["annotations"]["list"]]


def metric_names(expression: str) -> set[str]:
    """Names of the metrics in an expression: what is neither a label, a function nor a keyword."""
    bare = _GROUPING.sub(" ", re.sub(r"\{[^}]*\}", " {} ", _STRING.sub('""', expression)))
    words = re.finditer(r"(?<![\w:$.])([a-zA-Z_:][\w:]*)(?!\s*\(|[\w:])", bare)
    keywords = {
        "and",
        "or",
        "unless",
        "by",
        "without",
        "on",
        "ignoring",
        "bool",
        "offset",
        "inf",
        "nan",
    }
    ranges = re.compile(r"^\d|__")
    return {
        word[1]
        for word in words
        if word[1].lower() not in keywords and not ranges.match(word[1]) and not word[1].isdigit()
    }
