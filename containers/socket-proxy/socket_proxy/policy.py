"""Which requests of the Docker API are let through, and in what form."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from .creation import ContainerPolicy, parse_body
from .refusal import Refused
from .settings import LABEL, Settings

LEAST_API = (1, 40)  # older ones take a container's configuration in other requests too
ARCHIVES = frozenset({"/workspace/models/champion.json"})

_TARGET = re.compile(r"^(/v([0-9]+)\.([0-9]+))?(/[A-Za-z0-9_.:/-]*)$")
_CONTAINER = re.compile(r"^/containers/([A-Za-z0-9][A-Za-z0-9_.-]*)(/[a-z]+)?$")
_FALSE = frozenset({"", "0", "false", "none", "no"})

# Parameters that each request about one container may have.
_ACTIONS: Mapping[tuple[str, str], frozenset[str]] = {
    ("GET", "/json"): frozenset(),
    ("GET", "/logs"): frozenset(
        {"stdout", "stderr", "follow", "tail", "since", "until", "timestamps"}
    ),
    ("GET", "/archive"): frozenset({"path"}),
    ("POST", "/start"): frozenset(),
    ("POST", "/stop"): frozenset({"t"}),
    ("POST", "/kill"): frozenset({"signal"}),
    ("POST", "/wait"): frozenset({"condition"}),
    ("POST", "/attach"): frozenset({"stdout", "stderr", "stream", "logs"}),
    ("DELETE", ""): frozenset({"force"}),
}


@dataclass(frozen=True)
class Decision:
    """What is sent to the engine.

    Attributes:
        path: Path and query; `{container}` stands for the id that is checked first.
        body: What is sent as the body.
        container: Name or id of the container that must be this project's; None: about none.
        upgrade: Whether the connection becomes the container's output.
    """

    method: str
    path: str
    body: bytes = b""
    container: str | None = None
    upgrade: bool = False


class Policy:
    """Decides over each request by its method, target and body."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._containers = ContainerPolicy(settings)

    def decide(self, method: str, target: str, body: bytes) -> Decision:
        """Gives what is sent to the engine.

        Raises:
            Refused: the request is not allowed.
        """
        split = urlsplit(target)
        match = _TARGET.match(split.path)
        if match is None or ".." in split.path or split.scheme or split.netloc:
            raise Refused("This path is not allowed.")
        if match[1] and (int(match[2]), int(match[3])) < LEAST_API:
            raise Refused("This version of the API is too old.", 400)
        query = _query(split.query)
        version, path = match[1] or "", match[4]
        fixed: dict[tuple[str, str], Callable[[], Decision]] = {
            ("GET", "/_ping"): lambda: Decision("GET", "/_ping"),
            ("HEAD", "/_ping"): lambda: Decision("HEAD", "/_ping"),
            ("GET", "/version"): lambda: Decision("GET", f"{version}/version"),
            ("GET", "/containers/json"): lambda: self._list(version, query),
            ("POST", "/containers/create"): lambda: self._create(version, query, body),
            ("GET", f"/networks/{self._settings.network}"): lambda: Decision("GET", target),
        }
        if (method, path) in fixed:
            return fixed[method, path]()
        if method == "GET" and path.startswith("/images/") and path.endswith("/json"):
            if self._containers.image.match(path[len("/images/") : -len("/json")]):
                return Decision("GET", version + path)
            raise Refused("This image is not allowed.")
        return self._container(method, version, path, query)

    def _container(self, method: str, version: str, path: str, query: dict[str, str]) -> Decision:
        match = _CONTAINER.match(path)
        action = (match[2] or "") if match else ""
        if match is None or (method, action) not in _ACTIONS:
            raise Refused(f"{method} {path} is not allowed.")
        kept = _only(query, _ACTIONS[method, action])
        if action == "/archive" and kept.get("path") not in ARCHIVES:
            raise Refused("This file may not be read.")
        suffix = f"?{urlencode(kept)}" if kept else ""
        return Decision(
            method,
            f"{version}/containers/{{container}}{action}{suffix}",
            container=match[1],
            upgrade=action == "/attach",
        )

    def _list(self, version: str, query: dict[str, str]) -> Decision:
        kept = _only(query, frozenset({"all", "filters", "limit", "trunc_cmd"}))
        filters = parse_body(kept.pop("filters", "{}").encode())
        if set(filters) - {"label"}:
            raise Refused("Containers are listed by label only.")
        labels = filters.get("label", [])
        names = list(labels) if isinstance(labels, list | dict) else []
        if not all(isinstance(name, str) for name in names):
            raise Refused("A label must be a text.")
        own = f"{LABEL}={self._settings.project}"
        kept["filters"] = json.dumps({"label": sorted({*names, own})})
        return Decision("GET", f"{version}/containers/json?{urlencode(kept)}")

    def _create(self, version: str, query: dict[str, str], body: bytes) -> Decision:
        kept = _only(query, frozenset({"name"}))
        clean = self._containers.check(body, kept.get("name"))
        suffix = f"?{urlencode(kept)}" if kept else ""
        return Decision("POST", f"{version}/containers/create{suffix}", clean)


def _query(text: str) -> dict[str, str]:
    pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=False, max_num_fields=50)
    query = dict(pairs)
    if len(query) != len(pairs):
        raise Refused("A parameter is there twice.", 400)
    return query


def _only(query: Mapping[str, str], allowed: frozenset[str]) -> dict[str, str]:
    """Leaves out what is off anyway; anything else must be allowed."""
    for name, value in query.items():
        if name not in allowed and value.lower() not in _FALSE:
            raise Refused(f"The parameter {name} is not allowed.")
    return {name: value for name, value in query.items() if name in allowed}
