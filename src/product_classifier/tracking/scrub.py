"""Keeping credentials out of records, tags, parameters and log lines."""

import re
from collections.abc import Iterable
from typing import Any

HIDDEN = "***"
# scheme://user:password@host and scheme://token@host
_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)[^/?#\s@]+@")


def scrub_text(text: str, secrets: Iterable[str] = ()) -> str:
    """Hides the user part of every URL in `text`, and each of `secrets`."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, HIDDEN)
    return _USERINFO.sub(rf"\g<scheme>{HIDDEN}@", text)


def scrub(value: Any, secrets: Iterable[str] = ()) -> Any:
    """Applies `scrub_text` to every text, key or value, inside nested dicts and lists."""
    secrets = tuple(secrets)
    if isinstance(value, str):
        return scrub_text(value, secrets)
    if isinstance(value, dict):
        return {scrub_text(str(key), secrets): scrub(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [scrub(item, secrets) for item in value]
    return value
