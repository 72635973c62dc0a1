"""Receivers' addresses are kept like passwords: what an old Alertmanager shows of them is said, and hidden in its log.

From 0.26 on it hides them itself (https://github.com/prometheus/alertmanager/releases/tag/v0.26.0); Debian 12 has 0.25.
"""

from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from product_classifier.core.settings import Settings
from product_classifier.runtime.findings import Finding
from product_classifier.runtime.monitoring.programs import (
    ALERTMANAGER,
    find_program,
    program_version,
)

_HIDES_ADDRESSES = (0, 26)


def _addresses(settings: Settings) -> dict[str, str]:
    # Slack's is hidden by every version.
    fields = ("alert_webhook_url", "alert_heartbeat_url")
    found = {name.upper(): getattr(settings, name) for name in fields}
    return {name: value.get_secret_value() for name, value in found.items() if value}


def check_addresses(settings: Settings) -> Iterable[Finding]:
    """Warns where this machine's Alertmanager would show an address that is set."""
    names, program = _addresses(settings), find_program(ALERTMANAGER)
    version = program_version(program) if names and program else None
    if version and version < _HIDES_ADDRESSES:
        shown = ".".join(map(str, version))
        yield Finding(
            "warn",
            "Alertmanager",
            f"{shown} shows {' and '.join(names)} to every user of this machine, at port "
            f"{settings.alertmanager_port}, and writes it to its log: version 0.26 or later does not",
        )


def hide_addresses(lines: Iterable[str], settings: Settings) -> Iterator[str]:
    """Gives the lines with the settings' names in place of the addresses, so that a log can be shown to others."""
    hidden = {}
    for name, address in _addresses(settings).items():
        # All but what every log of HTTP has: the scheme, and a user's name (the password is starred out).
        known = urlsplit(address)
        secret = address.partition("://")[2].removeprefix(f"{known.netloc.rpartition('@')[0]}@")
        hidden[secret] = f"<{name}>"
    for line in lines:
        for secret, shown in hidden.items():
            line = line.replace(secret, shown)
        yield line
