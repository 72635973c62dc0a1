"""Addresses as they may be shown: without user, password and query, where tokens are."""

from urllib.parse import urlsplit, urlunsplit

HIDDEN = "***"


def redact_url(url: str) -> str:
    """Gives a URL without its secrets; what was hidden shows as `***`."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return HIDDEN
    user = f"{HIDDEN}@" if "@" in parts.netloc else ""
    query = HIDDEN if parts.query else ""
    return urlunsplit((parts.scheme, user + host, parts.path, query, ""))
