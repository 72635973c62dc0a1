"""The home dashboard: is the API well, for whom is it not, and since when."""

from typing import Any

from monitoring.grafana.source import rules
from monitoring.grafana.source.layout import Row, assemble
from monitoring.grafana.source.limits import AMBER, BLUE, GREEN, RED, Limit
from monitoring.grafana.source.panels import Query, graph, number, rows

# What the SLOs count: the routes that callers use, and that exist.
ROUTES = 'handler!~"/health|/ready|/metrics|none"'
SERVICES = 'job=~"fastapi|auth"'
PROGRAMS = 'job=~"fastapi|auth|gateway"'
AVAILABILITY, LATENCY_SHARE, LATENCY_SECONDS = 0.995, 0.95, 1.0
_OUTCOMES = {"successful": GREEN, "unauthorized": AMBER, "failed": RED}


def build() -> dict[str, Any]:
    """Builds the dashboard."""
    return assemble(
        "service",
        "Service",
        "Is the API well? Traffic, errors, latency and saturation of serve and auth, by route; sign-ins; SLOs.",
        [
            Row("Now", _now()),
            Row("Golden signals", _golden_signals()),
            Row("Requests on /predict and /token", _outcomes()),
            Row(
                "Objectives: 99.5 % of requests without a 5xx, 95 % of predictions within a second",
                _slos(),
            ),
            Row("Sign-in, tokens, limits", _security()),
            Row("Processes", _processes()),
        ],
        span="now-1h",
    )


def _rate(selector: str, metric: str = "http_requests_total") -> str:
    return f"rate({metric}{{{selector}}}[$__rate_interval])"


def _quantile(quantile: float, selector: str, *by: str) -> str:
    """A quantile of the request time; `>= 0` drops the NaN of routes without a request."""
    labels = ", ".join(("le", *by))
    buckets = _rate(selector, "http_request_duration_seconds_bucket")
    return f"histogram_quantile({quantile}, sum by ({labels}) ({buckets})) >= 0"


def _missed(selector: str) -> str:
    """A 0 for each job that was seen within a day: Docker's DNS forgets a container that ended, and its series go."""
    return f"0 * last_over_time(job:service_seen:timestamp_seconds{{{selector}}}[1d])"


def _now() -> list[Any]:
    requests = "sum(job_status:http_requests:increase5m)"
    return [
        number(
            "Up",
            "Programs that answer Prometheus, by job. Several serve containers add up; 0 also where all are gone, for a"
            " day.",
            [Query(f"sum by (job) (up{{{PROGRAMS}}}) or {_missed(PROGRAMS)}", "{{job}}")],
            alerts=["ServiceDown"],
            limit=Limit(1, below=True),
        ),
        number(
            "Ready",
            "What /ready says; the worst container counts. Not ready is also what is gone, for a day.",
            [
                Query(
                    f"min by (job) (product_classifier_ready) or {_missed(SERVICES)}",
                    "{{job}}",
                )
            ],
            words={0: ("not ready", RED), 1: ("ready", GREEN)},
            alerts=["ServiceNotReady"],
        ),
        number(
            "Alerts",
            "Alerts that fire now. Pages need somebody now, tickets within days.",
            [
                Query(
                    f'sum(ALERTS{{alertstate="firing", severity="{severity}"}}) or vector(0)',
                    f"{severity}s",
                )
                for severity in ("page", "ticket")
            ],
            limit=Limit(1),
        ),
        number(
            "Requests",
            "Requests per second over five minutes, without health checks.",
            [Query(f"{requests} / 300")],
            unit="reqps",
        ),
        number(
            "Availability",
            "Share of requests over five minutes that did not end in a 5xx.",
            [Query(f"1 - sum(job:http_errors:increase5m) / ({requests} > 0)")],
            unit="percentunit",
            decimals=2,
            alerts=["AvailabilityBurnFast"],
            limit=Limit(AVAILABILITY, below=True),
        ),
        number(
            "Predictions within 1 s",
            "Share of POST /predict over five minutes that took one second or less.",
            [Query("1 - max(job:predict_slow:ratio_rate5m)")],
            unit="percentunit",
            decimals=1,
            alerts=["LatencyBurnFast"],
            limit=Limit(LATENCY_SHARE, below=True),
        ),
    ]


def _golden_signals() -> list[Any]:
    selector = f"{SERVICES}, {ROUTES}"
    failed = f'{selector}, status="5xx"'
    return [
        graph(
            "Traffic by route",
            "Requests per second. `none`: no route matched.",
            [Query(f"sum by (job, handler) ({_rate(selector)}) > 0", "{{job}} {{handler}}")],
            unit="reqps",
        ),
        graph(
            "Errors",
            "Share of requests that ended in a 5xx, by service; the line is what the objective allows in the long run.",
            [
                Query(
                    f"sum by (job) ({_rate(failed)}) / (sum by (job) ({_rate(selector)}) > 0)",
                    "{{job}}",
                )
            ],
            unit="percentunit",
            alerts=["AvailabilityBurnFast", "AvailabilityBurnSlow"],
            limit=Limit(round(1 - AVAILABILITY, 4)),
        ),
        graph(
            "Answers by status",
            "Requests per second by status; 4xx is the caller's fault, 5xx ours.",
            [Query(f"sum by (status) ({_rate(selector)})", "{{status}}")],
            unit="reqps",
            stacked=True,
            colours={"2xx": GREEN, "3xx": BLUE, "4xx": AMBER, "5xx": RED},
        ),
        graph(
            "Latency of a prediction",
            "Quantiles of POST /predict; the line is the objective's second.",
            [
                Query(
                    _quantile(quantile, 'handler="/predict", method="POST"'), f"p{quantile * 100:g}"
                )
                for quantile in (0.5, 0.95, 0.99)
            ],
            unit="s",
            alerts=["LatencyBurnFast", "LatencyBurnSlow"],
            limit=Limit(LATENCY_SECONDS),
        ),
        graph(
            "Latency by route (p95)",
            "19 of 20 requests were faster than this.",
            [Query(_quantile(0.95, selector, "job", "handler"), "{{job}} {{handler}}")],
            unit="s",
        ),
        graph(
            "Saturation",
            "How full the waiting rooms are: products before the networks (share of the limit), and sign-ins that"
            " wait for a processor (new passwords too).",
            [
                Query(
                    "sum(product_classifier_inference_queue_depth)"
                    " / (sum(product_classifier_inference_queue_limit) > 0)",
                    "prediction queue, share of its limit",
                ),
                Query("sum(product_classifier_auth_hashing_waiting)", "sign-ins waiting, number"),
            ],
            unit="short",
            alerts=["QueueRejecting"],
        ),
    ]


def _outcomes() -> list[Any]:
    panels: list[Any] = []
    for job, handler in (("fastapi", "/predict"), ("auth", "/token")):
        parts = _parts(job, handler, "rate", "[$__rate_interval]")
        panels.append(
            graph(
                f"{handler}: requests per second",
                "Unauthorized: 401 or 403. Failed: any other 4xx, and 5xx.",
                [Query(expression, name) for name, expression in parts.items()],
                unit="reqps",
                stacked=True,
                colours=_OUTCOMES,
            )
        )
        totals = _parts(job, handler, "increase", "[$__range]")
        panels.append(
            number(
                f"{handler}: in the time shown",
                "The same, counted over the whole time shown.",
                [Query(f"round({expression})", name) for name, expression in totals.items()],
                height=8,
            )
        )
    return panels


def _parts(job: str, handler: str, function: str, window: str) -> dict[str, str]:
    def total(metric: str, extra: str = "") -> str:
        return f'sum({function}({metric}{{job="{job}", handler="{handler}"{extra}}}{window}))'

    unauthorized = total("product_classifier_unauthorized_requests_total")
    bad = total("http_requests_total", ', status=~"4xx|5xx"')
    return {
        "successful": total("http_requests_total", ', status=~"2xx|3xx"'),
        "unauthorized": unauthorized,
        "failed": f"clamp_min({bad} - {unauthorized}, 0)",
    }


def _slos() -> list[Any]:
    windows = ("5m", "30m", "1h", "6h")
    return [
        graph(
            "Errors over the alerts' windows",
            "Share of requests answered 5xx. The red line pages when both 5 minutes and 1 hour are above it: the errors"
            " allowed for 30 days would be gone in two. The amber one makes a ticket, over 30 minutes and 6 hours.",
            [
                Query(f"job:http_errors:ratio_rate{window}", f"{{{{job}}}}, {window}")
                for window in windows
            ],
            unit="percentunit",
            alerts=["AvailabilityBurnFast", "AvailabilityBurnSlow"],
            limit=Limit.of("AvailabilityBurnSlow", worse="AvailabilityBurnFast"),
        ),
        graph(
            "Slow predictions over the alerts' windows",
            "Share of POST /predict that took more than a second; lines as beside.",
            [Query(f"job:predict_slow:ratio_rate{window}", window) for window in windows],
            unit="percentunit",
            alerts=["LatencyBurnFast", "LatencyBurnSlow"],
            limit=Limit.of("LatencyBurnSlow", worse="LatencyBurnFast"),
        ),
        graph(
            "Errors of the gateway's own",
            "Share of two minutes' requests that the gateway answered 5xx by itself: no service counts them. Rightly so"
            " before the first deployment. 0 where there is no gateway (without containers).",
            [
                Query(
                    f'max(job_proxy:gateway_errors:ratio_rate2m{{proxy="{proxy}"}}) or vector(0)',
                    f"before {proxy}",
                )
                for proxy in ("serve", "auth")
            ],
            unit="percentunit",
            alerts=["GatewayErrors", "GatewayWithoutService"],
            limit=Limit.of("GatewayErrors"),
        ),
    ]


def _security() -> list[Any]:
    def by(metric: str, *labels: str) -> Query:
        legend = " ".join(f"{{{{{label}}}}}" for label in labels)
        return Query(f"sum by ({', '.join(labels)}) (rate({metric}[$__rate_interval]))", legend)

    logins, tokens = (
        "product_classifier_auth_logins_total",
        "product_classifier_token_rejections_total",
    )
    return [
        graph(
            "Sign-ins",
            "Sign-ins per second by outcome.",
            [by(logins, "outcome")],
            unit="ops",
            width=6,
            alerts=["AuthAttack"],
            colours={"success": GREEN, "refused": AMBER, "locked_out": RED},
        ),
        graph(
            "Failed sign-ins in five minutes",
            "Refused and locked out. Beyond the line somebody guesses passwords, or a program has an old one.",
            [Query(rules.measured("AuthAttack"), "failed")],
            unit="short",
            width=6,
            alerts=["AuthAttack"],
            limit=Limit.of("AuthAttack"),
        ),
        graph(
            "Access tokens refused",
            "Refusals per second by reason, in serve and auth.",
            [by(tokens, "reason")],
            unit="ops",
            width=6,
            alerts=["TokenRejections"],
        ),
        graph(
            "Suspicious tokens in five minutes",
            "Refused though they were there, neither for age nor for a sign-out. Beyond the line somebody forges"
            " tokens, or serve and auth disagree about keys.",
            [Query(rules.measured("TokenRejections"), "{{job}}")],
            unit="short",
            width=6,
            alerts=["TokenRejections"],
            limit=Limit.of("TokenRejections"),
        ),
        graph(
            "Refresh tokens",
            "Uses per second by outcome; `reused` may be a stolen token.",
            [by("product_classifier_auth_refreshes_total", "outcome")],
            unit="ops",
        ),
        graph(
            "Requests limited",
            "Requests per second answered 429: by the caller's own limit, without a valid token, or locked out. What"
            " auth refuses through serve counts in both.",
            [
                by("product_classifier_rate_limited_total", "job", "scope"),
                Query(
                    "sum(rate(product_classifier_auth_lockouts_total[$__rate_interval]))",
                    "new lockouts",
                ),
            ],
            unit="ops",
        ),
        graph(
            "Products turned away in five minutes",
            "Products that found the queue full and were answered 503.",
            [Query(rules.measured("QueueRejecting"), "turned away")],
            unit="short",
            alerts=["QueueRejecting"],
            limit=Limit.of("QueueRejecting"),
        ),
    ]


def _processes() -> list[Any]:
    return [
        rows(
            "Builds",
            "What runs, by container.",
            [Query("max by (service, version, commit) (product_classifier_build_info)", "running")],
            labels={"service": "service", "version": "version", "commit": "commit"},
            width=6,
        ),
        number(
            "Redis",
            "Where Redis is set: is it there? On the fallback, limits and the prediction log are kept by each"
            " container alone.",
            [Query("max by (use) (product_classifier_redis_fallback_active)", "{{use}}")],
            words={0: ("ok", GREEN), 1: ("fallback", RED)},
            height=8,
            alerts=["RedisFallbackActive"],
        ),
        graph(
            "Processor time",
            "Processor seconds per second: 1 is one core.",
            [
                Query(
                    f"sum by (job) (rate(process_cpu_seconds_total{{{SERVICES}}}[$__rate_interval]))",
                    "{{job}}",
                )
            ],
            unit="short",
            width=7,
        ),
        graph(
            "Memory",
            "Resident memory of each process.",
            [Query(f"process_resident_memory_bytes{{{SERVICES}}}", "{{job}} {{instance}}")],
            unit="bytes",
            width=7,
        ),
    ]
