"""The alert rules, as the dashboards need them: their limits and their runbooks have one source."""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "monitoring" / "prometheus" / "rules"


@dataclass(frozen=True)
class Alert:
    """One alert rule.

    Attributes:
        limit: The number that its expression compares with; None where there is none.
        expression: As in the rule.
    """

    name: str
    group: str
    severity: str
    limit: float | None
    expression: str


def _rules(folder: Path) -> list[dict[str, Any]]:
    documents = (yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*.yml")))
    groups = (group for document in documents for group in document["groups"])
    return [rule for group in groups for rule in group["rules"]]


def expressions(folder: Path = RULES) -> list[str]:
    """Gives the expression of every rule."""
    return [str(rule["expr"]) for rule in _rules(folder)]


def recorded_names(folder: Path = RULES) -> set[str]:
    """Gives the names of all recorded series."""
    return {rule["record"] for rule in _rules(folder) if "record" in rule}


@lru_cache
def alerts(folder: Path = RULES) -> dict[str, Alert]:
    """Reads all alert rules, by name in the files' order."""
    found = (rule for rule in _rules(folder) if "alert" in rule)
    return {rule["alert"]: _alert(rule) for rule in found}


def _alert(rule: dict[str, Any]) -> Alert:
    labels, annotations = rule["labels"], rule["annotations"]
    threshold = annotations.get("threshold")
    return Alert(
        name=rule["alert"],
        group=labels["group"],
        severity=labels["severity"],
        limit=None if threshold is None else float(threshold),
        expression=" ".join(str(rule["expr"]).split()),
    )


def limit(name: str) -> float:
    """Gives the number that an alert compares with.

    Raises:
        ValueError: The alert has no `threshold` annotation.
    """
    found = alerts()[name].limit
    if found is None:
        raise ValueError(f"The alert {name} has no annotation `threshold`, but a panel shows it.")
    return found


def measured(name: str) -> str:
    """Gives what an alert compares with its number, so that a panel draws the same.

    Raises:
        ValueError: The alert is more than one comparison with a number.
    """
    left, _, right = alerts()[name].expression.replace(" < ", " > ").partition(" > ")
    if not re.fullmatch(r"[\d.]+", right) or re.search(r" (and|or|unless|==) ", left):
        raise ValueError(
            f"The alert {name} is no plain comparison, but a panel shows its left side."
        )
    return left
