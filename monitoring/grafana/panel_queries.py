"""Asks a Prometheus what the panels of a dashboard would ask it."""

import json
import math
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SCRAPE_SECONDS = 10
TIMEOUT_SECONDS = 30


class QueryError(Exception):
    """Prometheus refused a query or could not be reached; the message names the query."""


@dataclass(frozen=True)
class Window:
    """The time that a dashboard shows, seconds since the epoch."""

    start: float
    end: float

    @property
    def step(self) -> int:
        """Seconds between two points: about 200 points in a panel, at most one per scrape."""
        return max(SCRAPE_SECONDS, round((self.end - self.start) / 200))


@dataclass(frozen=True)
class Series:
    """One series of an answer.

    Attributes:
        name: As the panel's legend shows it.
        points: Times in seconds and values; only the last one for an instant query.
    """

    ref: str
    name: str
    labels: dict[str, str]
    points: list[tuple[float, float]]

    @property
    def last(self) -> float:
        """The newest value; NaN without one."""
        return self.points[-1][1] if self.points else math.nan


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Gives the panels that ask something."""
    return (panel for panel in dashboard["panels"] if panel.get("targets"))


def ask_panel(url: str, panel: dict[str, Any], window: Window) -> list[Series]:
    """Runs all queries of a panel.

    Raises:
        QueryError: A query failed.
    """
    answers = (ask(url, target, window) for target in panel["targets"])
    return [series for answer in answers for series in answer]


def ask(url: str, target: dict[str, Any], window: Window) -> list[Series]:
    """Runs one query as Grafana would.

    Raises:
        QueryError: Prometheus said no, or could not be reached.
    """
    expression = expand(target["expr"], window)
    if target.get("instant"):
        found = _fetch(url, "query", {"query": expression, "time": window.end})
    else:
        times = {"start": window.start, "end": window.end, "step": window.step}
        found = _fetch(url, "query_range", {"query": expression, **times})
    return [_series(target, one) for one in found]


def expand(expression: str, window: Window) -> str:
    """Puts in what Grafana puts in for its variables."""
    span = max(round(window.end - window.start), SCRAPE_SECONDS)
    rate = max(4 * SCRAPE_SECONDS, window.step + SCRAPE_SECONDS)
    for name, seconds in (("rate_interval", rate), ("interval", window.step), ("range", span)):
        expression = expression.replace(f"$__{name}", f"{seconds}s")
    return expression


def _fetch(url: str, kind: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    address = f"{url.rstrip('/')}/api/v1/{kind}"
    body = urllib.parse.urlencode(parameters).encode()
    try:
        with urllib.request.urlopen(address, body, TIMEOUT_SECONDS) as answer:  # noqa: S310 - a user's own address
            data: dict[str, Any] = json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        reason = error.read().decode(errors="replace")[:500]
        raise QueryError(f"{parameters['query']}: {reason}") from error
    except (OSError, ValueError) as error:
        raise QueryError(f"{address}: {error}") from error
    result: list[dict[str, Any]] = data["result"]
    if data["resultType"] == "scalar":
        raise QueryError(f"{parameters['query']}: a scalar has no labels; use vector().")
    return result


def _series(target: dict[str, Any], found: dict[str, Any]) -> Series:
    labels = {name: value for name, value in found["metric"].items() if name != "__name__"}
    points = found["values"] if "values" in found else [found["value"]]
    numbers = [(float(time), float(value)) for time, value in points]
    return Series(target["refId"], _name(target.get("legendFormat", ""), labels), labels, numbers)


def _name(legend: str, labels: dict[str, str]) -> str:
    if legend in {"", "__auto"}:
        return ", ".join(labels.values())
    return re.sub(r"{{\s*(\w+)\s*}}", lambda match: labels.get(match[1], ""), legend).strip()
