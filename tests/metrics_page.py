"""docs/metrics.md as data, and what a program really exposes in the same shape."""

import re
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
_JOB = re.compile(r"\(job `(\w+)`\)")
_ROW = re.compile(r"\| `(\w+)` \| (\w+) \|([^|]*)\|")
# Of every Python process and the same everywhere: the page names their beginnings only.
_OF_THE_PROCESS = ("process_", "python_")


@dataclass(frozen=True, order=True)
class Family:
    """A metric: its name with `_total` where it counts, its type, the names of its labels."""

    name: str
    type: str
    labels: frozenset[str]


def documented(job: str) -> set[Family]:
    """Gives what the page says of a scrape job; one table may be of several jobs."""
    families = set()
    jobs: list[str] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            jobs = _JOB.findall(line)
        elif (row := _ROW.match(line)) and job in jobs:
            labels = frozenset(label.strip() for label in row[3].split(",") if label.strip())
            families.add(Family(row[1], row[2], labels))
    assert families, f"the page has no table of the job {job}"
    return families


def exposed(text: str) -> set[Family]:
    """Gives what a scrape shows; a family without any sample has no labels to show, and fails."""
    families = set()
    for family in text_string_to_metric_families(text):
        if family.name.startswith(_OF_THE_PROCESS):
            continue
        assert family.samples, f"{family.name} has no series"
        name = f"{family.name}_total" if family.type == "counter" else family.name
        for sample in family.samples:
            labels = frozenset(sample.labels) - {"le"}
            families.add(Family(name, family.type, labels))
    return families


def series(text: str) -> dict[str, float]:
    """Gives each series of a scrape, as its line names it, with its value."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
