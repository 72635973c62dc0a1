"""The machine's dashboard: processors, memory, disks and network, and whether monitoring itself is well."""

from typing import Any

from monitoring.grafana.source import rules
from monitoring.grafana.source.layout import Row, assemble
from monitoring.grafana.source.limits import GREEN, RED, Limit
from monitoring.grafana.source.panels import Query, graph, number, rows

_NODE = 'job="node"'
# As the alerts: memory disks do not fill up. What is mounted in several places is one device.
_DISKS = f'{_NODE}, fstype!="tmpfs"'
_LINES = f'{_NODE}, device!~"lo|veth.*|br-.*|docker.*"'


def build() -> dict[str, Any]:
    """Builds the dashboard."""
    return assemble(
        "host",
        "Host",
        "Is the machine well, and does monitoring work? Processors, memory, disks, network; targets and messages.",
        [
            Row("Now", _now()),
            Row("Processors and memory", _work()),
            Row("Disks and network", _traffic()),
            Row("Monitoring", _monitoring()),
        ],
        span="now-6h",
    )


def _now() -> list[Any]:
    return [
        number(
            "Processors busy",
            "Share of all processors' time over five minutes.",
            [Query(f'1 - avg(rate(node_cpu_seconds_total{{{_NODE}, mode="idle"}}[5m]))')],
            unit="percentunit",
            decimals=0,
        ),
        number(
            "Processors",
            "How many there are.",
            [Query(f'count(node_cpu_seconds_total{{{_NODE}, mode="idle"}})')],
            unit="none",
        ),
        number(
            "Memory free",
            "Share of memory that programs can still have.",
            [Query(_memory())],
            unit="percentunit",
            decimals=0,
            alerts=["MemoryLow"],
            limit=Limit.of("MemoryLow", below=True),
        ),
        number(
            "Fullest disk",
            "Share that is free on the disk with the least.",
            [Query(f"min({_free()})")],
            unit="percentunit",
            decimals=0,
            alerts=["DiskAlmostFull", "DiskFilling"],
            limit=Limit.of("DiskAlmostFull", below=True),
        ),
        number(
            "Up for",
            "Time since the machine started.",
            [Query(f"time() - max(node_boot_time_seconds{{{_NODE}}})")],
            unit="s",
        ),
        number(
            "Targets down",
            "Programs that Prometheus can't reach.",
            [Query("count(up == 0) or vector(0)")],
            unit="none",
            alerts=["TargetDown"],
            limit=Limit(1),
        ),
    ]


def _memory() -> str:
    return f"min({rules.measured('MemoryLow')})"


def _free() -> str:
    free, size = (f"node_filesystem_{name}_bytes{{{_DISKS}}}" for name in ("avail", "size"))
    return f"max by (device) ({free} / ({size} > 0))"


def _work() -> list[Any]:
    modes = (
        f'sum by (mode) (rate(node_cpu_seconds_total{{{_NODE}, mode!="idle"}}[$__rate_interval]))'
    )
    processors = f'scalar(count(node_cpu_seconds_total{{{_NODE}, mode="idle"}}))'
    return [
        graph(
            "Processor time",
            "Share of all processors' time by what it went to.",
            [Query(f"{modes} / {processors}", "{{mode}}")],
            unit="percentunit",
            top=1,
            stacked=True,
        ),
        graph(
            "Load",
            "Programs that run or wait; beyond the number of processors they wait.",
            [
                *(
                    Query(f"max(node_load{span}{{{_NODE}}})", f"{span} minutes")
                    for span in (1, 5, 15)
                ),
                Query(f'count(node_cpu_seconds_total{{{_NODE}, mode="idle"}})', "processors"),
            ],
            unit="short",
        ),
        graph(
            "Memory",
            "What programs hold, and what there is.",
            [
                Query(
                    f"sum(node_memory_MemTotal_bytes{{{_NODE}}} - node_memory_MemAvailable_bytes{{{_NODE}}})",
                    "in use",
                ),
                Query(f"sum(node_memory_Cached_bytes{{{_NODE}}})", "cached files"),
                Query(f"sum(node_memory_MemTotal_bytes{{{_NODE}}})", "in all"),
            ],
            unit="bytes",
            alerts=["MemoryLow"],
        ),
    ]


def _traffic() -> list[Any]:
    free, size = (f"node_filesystem_{name}_bytes{{{_DISKS}}}" for name in ("avail", "size"))
    return [
        graph(
            "Free disk space",
            "Share of each disk that is free; the line is where the page comes.",
            [Query(_free(), "{{device}}")],
            unit="percentunit",
            top=1,
            alerts=["DiskAlmostFull", "DiskFilling"],
            limit=Limit.of("DiskAlmostFull", below=True),
        ),
        graph(
            "Disk traffic",
            "Bytes per second read and written.",
            [
                Query(f"sum(rate(node_disk_{verb}_bytes_total{{{_NODE}}}[$__rate_interval]))", verb)
                for verb in ("read", "written")
            ],
            unit="Bps",
        ),
        graph(
            "Network",
            "Bytes per second, without the machine's traffic with itself. Empty where node-exporter is a container: it"
            " sees its own network only.",
            [
                Query(
                    f"sum(rate(node_network_{verb}_bytes_total{{{_LINES}}}[$__rate_interval]))",
                    f"{verb}d" if verb == "receive" else "sent",
                )
                for verb in ("receive", "transmit")
            ],
            unit="Bps",
        ),
        rows(
            "Disks",
            "Each disk once.",
            [
                Query(f"max by (device) ({size})", "size", "bytes"),
                Query(f"max by (device) ({free})", "free", "bytes"),
                Query(_free(), "share free", "percentunit", Limit.of("DiskAlmostFull", below=True)),
            ],
            labels={"device": "device"},
            width=24,
            height=5,
            alerts=["DiskAlmostFull", "DiskFilling"],
        ),
    ]


def _monitoring() -> list[Any]:
    rate = "rate({}[$__rate_interval])"
    failed = rate.format("alertmanager_notifications_failed_total")
    sent = rate.format("alertmanager_notifications_total")
    return [
        rows(
            "Targets",
            "What Prometheus reads, by job: how many answer, how long the slowest took, and how many series came.",
            [
                Query("sum by (job) (up)", "up", "none"),
                Query(
                    "count by (job) (up == 0) or 0 * count by (job) (up)", "down", "none", Limit(1)
                ),
                Query("max by (job) (scrape_duration_seconds)", "slowest scrape", "s"),
                Query("sum by (job) (scrape_samples_scraped)", "series", "none"),
            ],
            labels={"job": "job"},
            width=12,
            height=9,
            alerts=["TargetDown", "TextFileDamaged"],
        ),
        graph(
            "Notifications",
            "Messages per second that Alertmanager sent, and that failed.",
            [Query(f"sum({sent})", "sent"), Query(f"sum({failed})", "failed")],
            unit="ops",
            width=6,
            height=9,
            alerts=["NotificationsFailing", "Watchdog"],
            colours={"sent": GREEN, "failed": RED},
        ),
        graph(
            "Prometheus",
            "Rule evaluations per second that failed, those that were left out as the machine was too busy (alerts come"
            " late), and its memory's series in thousands.",
            [
                Query(
                    f"sum({rate.format('prometheus_rule_evaluation_failures_total')})",
                    "failed evaluations",
                ),
                Query(
                    f"sum({rate.format('prometheus_rule_group_iterations_missed_total')})",
                    "missed evaluations",
                ),
                Query("max(prometheus_tsdb_head_series) / 1000", "thousand series"),
            ],
            unit="short",
            width=6,
            height=9,
            alerts=["RulesFailing"],
        ),
    ]
