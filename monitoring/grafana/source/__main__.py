"""Writes the dashboards: `python -m monitoring.grafana.source`, from the repository's root (`make dashboards`)."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monitoring.grafana.source import host, model, pipeline, runbooks, service

DASHBOARDS = Path(__file__).resolve().parents[1] / "dashboards"
BUILDERS: dict[str, Callable[[], dict[str, Any]]] = {
    "service": service.build,
    "model": model.build,
    "pipeline": pipeline.build,
    "host": host.build,
    "runbooks": runbooks.build,
}


def rendered(name: str) -> str:
    """Gives a dashboard's file as it should be."""
    return json.dumps(BUILDERS[name](), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Writes every dashboard that differs from its file."""
    for name in BUILDERS:
        path, text = DASHBOARDS / f"{name}.json", rendered(name)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            sys.stdout.write(f"written: {path.relative_to(Path.cwd())}\n")


if __name__ == "__main__":
    main()
