"""Prometheus's configuration for this machine, made from the container stack's committed one."""

from pathlib import Path
from typing import Any

import yaml

from product_classifier.core.errors import ConfigurationError

_DISCOVERY = ("_sd_configs", "static_configs")
_REFRESH = "10s"  # files are watched too; this is for file systems that tell nobody of changes
_HEADER = "# Made from {base} at each start; edit that one.\n"


def _load(base: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(base.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{base} can't be read: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("scrape_configs"), list):
        raise ConfigurationError(f"{base} is no configuration of Prometheus: no scrape_configs.")
    return content


def job_names(base: Path) -> list[str]:
    """Lists the scrape jobs of a configuration.

    Raises:
        ConfigurationError: the file can't be read or holds no scrape jobs.
    """
    return [str(job["job_name"]) for job in _load(base)["scrape_configs"]]


def _discovered_by_file(job: dict[str, Any], targets: Path) -> dict[str, Any]:
    kept = {name: value for name, value in job.items() if not name.endswith(_DISCOVERY)}
    files = [str(targets / f"{job['job_name']}.json")]
    return {**kept, "file_sd_configs": [{"files": files, "refresh_interval": _REFRESH}]}


def render_prometheus(base: Path, targets: Path, rules: Path, alertmanager: str) -> str:
    """Renders a configuration with the same jobs, whose targets come from files.

    Args:
        base: The committed configuration.
        targets: Folder with one `<job>.json` per job, in the format of Prometheus's file discovery; a job without
            a file has no targets until one is written.
        rules: Folder with the rule files.
        alertmanager: Its `host:port`.

    Raises:
        ConfigurationError: the base can't be read or holds no scrape jobs.
    """
    content = _load(base)
    content["rule_files"] = [str(rules / "*.yml")]
    content["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
    content["scrape_configs"] = [
        _discovered_by_file(job, targets) for job in content["scrape_configs"]
    ]
    return _HEADER.format(base=base.name) + yaml.safe_dump(content, sort_keys=False)
