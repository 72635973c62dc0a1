"""Metrics as text files, for what ends before a scrape could see it.

A node-exporter with the textfile collector reads every `*.prom` of a folder. A file has one writer and is replaced in
one step; a metric that is not true any more goes with the next write, since each file is written whole.
"""

import logging
import re
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from product_classifier.core.files import write_bytes_atomic

logger = logging.getLogger(__name__)

SUFFIX = ".prom"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]  # name and labels -> value


class _WithoutCreated:
    """A registry without the `_created` series of counters and histograms: a file's times are not theirs."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        """Gives the metrics that have a sample."""
        for metric in self._registry.collect():
            metric.samples = [one for one in metric.samples if one.name != f"{metric.name}_created"]
            if metric.samples:
                yield metric


def write_metrics(folder: Path, name: str, registry: CollectorRegistry) -> None:
    """Puts all metrics of a registry into `<folder>/<name>.prom`, in place of what was there.

    Args:
        folder: Made where it is missing.
        name: Of the file, without its ending; lower case, so that it is one file on every file system.
        registry: What is written. Metrics without a series are left out.

    Raises:
        ValueError: `name` is no such name.
        OSError: the folder can't be written to.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"Expected a name of a-z, 0-9, '_', '-', '.'. Received: {name!r}.")
    write_bytes_atomic(folder / f"{name}{SUFFIX}", generate_latest(_WithoutCreated(registry)))


def try_write_metrics(folder: Path, name: str, registry: CollectorRegistry) -> bool:
    """Writes as `write_metrics` does, and only warns where the folder can't be written to.

    Returns:
        Whether it was written.
    """
    try:
        write_metrics(folder, name, registry)
    except OSError as error:
        logger.warning("The metrics of %s were not written: %s", name, error)
        return False
    return True


def read_metrics(folder: Path, name: str) -> Samples:
    """Reads what `write_metrics` wrote; nothing where there is no such file, or none that can be read."""
    try:
        text = (folder / f"{name}{SUFFIX}").read_text(encoding="utf-8")
        families = list(text_string_to_metric_families(text))
    except (OSError, ValueError):
        return {}
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }
