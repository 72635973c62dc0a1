"""Where a panel's values turn bad: the numbers of the alert rules, and colours."""

from dataclasses import dataclass

from grafana_foundation_sdk.models import dashboard as models

from monitoring.grafana.source import rules

GREEN, AMBER, RED, BLUE = "green", "orange", "red", "blue"


@dataclass(frozen=True)
class Limit:
    """Where a value turns bad.

    Attributes:
        value: From here on it is bad; with `below`, under this.
        colour: Of the bad side.
        worse: A second limit beyond the first, in red.
    """

    value: float
    below: bool = False
    colour: str = RED
    worse: float | None = None

    @classmethod
    def of(cls, alert: str, *, below: bool = False, worse: str = "") -> "Limit":
        """The limit of an alert rule: red where the rule pages, else amber; `worse` names a second rule."""
        colour = RED if rules.alerts()[alert].severity == "page" else AMBER
        return cls(rules.limit(alert), below, colour, rules.limit(worse) if worse else None)

    @classmethod
    def beyond(cls, alert: str) -> "Limit":
        """The limit of a rule that says "more than", for whole numbers: the next one, as Grafana colours from it on."""
        at = cls.of(alert)
        return cls(at.value + 1, colour=at.colour)

    def steps(self) -> list[models.Threshold]:
        """Gives the colours from the lowest value up."""
        low, high = (self.colour, GREEN) if self.below else (GREEN, self.colour)
        steps = [(None, low), (self.value, high)]
        if self.worse is not None:
            steps.append((self.worse, RED))
        return [models.Threshold(value=value, color=colour) for value, colour in steps]
