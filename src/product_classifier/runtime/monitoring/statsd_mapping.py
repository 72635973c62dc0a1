"""From a StatsD name to a Prometheus metric: the part of statsd_exporter's mapping file that this project uses."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from product_classifier.core.errors import ConfigurationError

Kind = Literal["counter", "gauge", "observer"]
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}


class Rule(BaseModel):
    """One entry of the mapping file; a key that is not known here would be obeyed there, so it is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: str
    name: str = Field(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")
    help: str = ""
    labels: dict[str, str] = {}
    match_type: Literal["glob", "regex"] = "glob"
    match_metric_type: Kind | None = None
    action: Literal["map", "drop"] = "map"
    ttl: str = Field(default="0s", pattern=r"^\d+[smh]$")

    @property
    def ttl_seconds(self) -> int | None:
        """How long a series lasts that is not sent again; None: for ever."""
        return int(self.ttl[:-1]) * _UNIT_SECONDS[self.ttl[-1]] or None


@dataclass(frozen=True)
class Target:
    """What a StatsD name becomes."""

    name: str
    help: str
    labels: tuple[tuple[str, str], ...]
    ttl_seconds: int | None = field(default=None, compare=False)


class StatsDMapping:
    """The rules of a mapping file, in their order; the first that matches decides."""

    def __init__(self, rules: list[Rule]) -> None:
        self.rules = rules
        self._patterns = [_pattern(rule) for rule in rules]

    @classmethod
    def load(cls, path: Path) -> "StatsDMapping":
        """Reads a mapping file.

        Raises:
            ConfigurationError: it is missing, no such file, or asks for something that is not supported.
        """
        try:
            content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
            entries = content["mappings"] if isinstance(content, dict) else None
            if not isinstance(entries, list) or set(content) != {"mappings"}:
                raise ValueError("expected `mappings:` with a list, and nothing else")
            return cls([Rule.model_validate(entry) for entry in entries])
        except (OSError, yaml.YAMLError, ValueError, re.error) as error:
            raise ConfigurationError(f"The StatsD mapping {path} is not usable: {error}") from error

    def find(self, name: str, kind: Kind) -> Target | None:
        """Gives what a name of a kind becomes; None where it is dropped."""
        for rule, pattern in zip(self.rules, self._patterns, strict=True):
            if rule.match_metric_type not in (None, kind):
                continue
            if (found := pattern.search(name)) is None:
                continue
            if rule.action == "drop":
                return None
            labels = tuple((key, _filled(text, found)) for key, text in sorted(rule.labels.items()))
            return Target(rule.name, rule.help, labels, rule.ttl_seconds)
        return None


def _pattern(rule: Rule) -> re.Pattern[str]:
    if rule.match_type == "regex":
        return re.compile(rule.match)
    parts = (re.escape(part) for part in rule.match.split("*"))
    return re.compile(f"^{'([^.]*)'.join(parts)}$")


def _filled(text: str, found: re.Match[str]) -> str:
    values: Mapping[str, str] = {str(n): value or "" for n, value in enumerate(found.groups(), 1)}
    return re.sub(r"\$\{?(\d+)\}?", lambda number: values.get(number[1], ""), text)
