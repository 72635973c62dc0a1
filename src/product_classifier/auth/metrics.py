"""What Prometheus learns about sign-ins. No label holds a user or an address."""

from collections.abc import Callable

from prometheus_client import Counter, Gauge

from product_classifier.web.metric_registry import MetricRegistry

LOGIN_OUTCOMES = ("success", "refused", "locked_out", "busy")
REFRESH_OUTCOMES = ("success", "unknown", "expired", "revoked", "reused", "disabled")


class AuthMetrics:
    """The counters, each with all its series from the start: a series that appears with the first error has no rate."""

    def __init__(self, registry: MetricRegistry) -> None:
        self._registry = registry
        self._logins = Counter(
            "product_classifier_auth_logins_total",
            "Sign-ins by outcome.",
            ["outcome"],
            registry=registry,
        )
        self._lockouts = Counter(
            "product_classifier_auth_lockouts_total",
            "Times that a user and address were locked out.",
            registry=registry,
        )
        self._refreshes = Counter(
            "product_classifier_auth_refreshes_total",
            "Uses of refresh tokens by outcome.",
            ["outcome"],
            registry=registry,
        )
        self._waiting = Gauge(
            "product_classifier_auth_hashing_waiting",
            "Passwords, of sign-ins or new ones, that wait for a processor or have one.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        for outcome in LOGIN_OUTCOMES:
            self._logins.labels(outcome)
        for outcome in REFRESH_OUTCOMES:
            self._refreshes.labels(outcome)

    def count_login(self, outcome: str) -> None:
        """Counts a sign-in."""
        self._logins.labels(outcome).inc()

    def count_lockout(self) -> None:
        """Counts a pair that was locked out."""
        self._lockouts.inc()

    def count_refresh(self, outcome: str) -> None:
        """Counts a use of a refresh token."""
        self._refreshes.labels(outcome).inc()

    def watch_waiting(self, read: Callable[[], float]) -> None:
        """Reads the length of the hashing queue when it is asked for."""
        self._registry.watch(self._waiting, read)
