"""What the proxy is told: whose containers it lets be made, from what, and with which folders."""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

LABEL = "product-classifier.project"
STAGE_IMAGES = ("ingest", "train", "predict", "serve")
SERVICE_IMAGES = ("auth", "serve")


class SettingsError(Exception):
    """A setting is missing or unusable."""


@dataclass(frozen=True)
class Settings:
    """The proxy's settings, from its environment."""

    project: str
    image_prefix: str
    network: str
    host_path: str
    data_paths: tuple[str, ...]
    users: frozenset[str]
    gpus: bool
    socket: str
    port: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Reads the environment.

        Raises:
            SettingsError: a setting is missing or unusable.
        """
        project = environment.get("COMPOSE_PROJECT")
        if not project:
            raise SettingsError("COMPOSE_PROJECT is not set.")
        paths = [p.strip() for p in environment.get("DATA_HOST_PATHS", "").split(",")]
        user = environment.get("STAGE_USER")
        return cls(
            project=project,
            image_prefix=environment.get("IMAGE_PREFIX") or "product-classifier",
            network=environment.get("NETWORK_NAME") or "product_classier",
            host_path=_folder("PROJECT_HOST_PATH", environment.get("PROJECT_HOST_PATH", "")),
            data_paths=tuple(_folder("DATA_HOST_PATHS", path) for path in paths if path),
            # Nobody named: the image's own user, who is not root.
            users=frozenset([user] if user else []),
            gpus=bool(environment.get("TRAIN_GPUS")),
            socket=environment.get("DOCKER_SOCKET") or "/var/run/docker.sock",
            port=int(environment.get("SOCKET_PROXY_PORT") or 2375),
        )


def _folder(name: str, path: str) -> str:
    normal = posixpath.normpath(path) if path else ""
    # A folder so near the root would let a container write or read the host's own files.
    if not normal.startswith("/") or normal.startswith("//") or normal.count("/") < 1:
        raise SettingsError(f"{name} must be an absolute path. Received: {path!r}.")
    if normal in _TOO_MUCH or any(normal.startswith(f"{top}/") for top in _NEVER):
        raise SettingsError(f"{name} must not be a folder of the system. Received: {path!r}.")
    return normal


_NEVER = ("/boot", "/dev", "/etc", "/proc", "/run", "/sys", "/var/lib/docker", "/var/run")
_TOO_MUCH = ("/", "/bin", "/home", "/lib", "/lib64", "/root", "/sbin", "/usr", "/var", *_NEVER)
