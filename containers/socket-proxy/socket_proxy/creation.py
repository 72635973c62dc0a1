"""Which containers may be made: a list of what is allowed, field by field; all else is refused.

The engine reads JSON without regard to case and takes the last of two equal names. So the body is
read here, checked against the exact names, and written anew: what the engine gets is what was
checked.
"""

import json
import os
import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any

from .refusal import Refused
from .settings import LABEL, SERVICE_IMAGES, STAGE_IMAGES, Settings

Check = Callable[[Any], Any]

MOST_PIDS = 4096
AUTH_FOLDER = "/var/lib/auth"
SERVICE_ALIASES = {"auth": "auth-backend", "serve": "serve-backend"}
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_TMPFS_OPTION = re.compile(r"^(rw|nosuid|nodev|noexec|(mode|uid|gid)=[0-9]+|size=[0-9]+[kmg]?)$")


def parse_body(body: bytes) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        Refused: it is none, or has a name twice.
    """
    try:
        content = json.loads(body, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError):
        raise Refused("The body is not JSON.", 400) from None
    if not isinstance(content, dict):
        raise Refused("The body is not a JSON object.", 400)
    return content


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise Refused("The body has a name twice.", 400)
    return content


def _fields(where: str, content: Any, allowed: Mapping[str, Check]) -> dict[str, Any]:
    """Checks each field that is not empty; empty ones are left out, as the engine's defaults are."""
    if not isinstance(content, dict):
        raise Refused(f"{where} must be an object.")
    found = {}
    for name, value in content.items():
        if value is None or value == "" or value is False or value == 0 or value in ([], {}):
            continue
        if name not in allowed:
            raise Refused(f"{where}.{name} is not allowed.")
        found[name] = allowed[name](value)
    return found


def _exactly(where: str, *values: Any) -> Check:
    def check(value: Any) -> Any:
        # 1 == True in Python: the type counts too.
        if not any(value == one and type(value) is type(one) for one in values):
            raise Refused(f"{where} must be {' or '.join(map(repr, values))}.")
        return value

    return check


def _whole(where: str, least: int, most: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise Refused(f"{where} must be a whole number from {least} to {most}.")
        return value

    return check


def _texts(where: str) -> Check:
    def check(value: Any) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise Refused(f"{where} must be a list of texts.")
        return value

    return check


class ContainerPolicy:
    """Checks what a container is made of."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        images = "|".join(sorted({*STAGE_IMAGES, *SERVICE_IMAGES}))
        self.image = re.compile(rf"^{re.escape(settings.image_prefix)}/({images}):{_TAG}$")
        services = "|".join(SERVICE_IMAGES)
        self._name = re.compile(rf"^{re.escape(settings.project)}-({services})-[0-9a-f]{{8}}$")

    def check(self, body: bytes, name: str | None) -> bytes:
        """Gives the body that the engine gets.

        Raises:
            Refused: something of it is not allowed.
        """
        content = parse_body(body)
        role = self._role(content.get("Labels"))
        image = self._image(content.get("Image"), role)
        if name is not None:
            match = self._name.match(name)
            # A name is found by DNS: a free choice could take the place of a neighbour's.
            if role != "service" or match is None or match[1] != image:
                raise Refused("This name of a container is not allowed.")
        clean = _fields("container", content, self._container(role, image))
        host = clean.get("HostConfig", {})
        self._require_hardening(host)
        self._check_auth(image, clean)
        if role == "service" and any(
            mount["Type"] == "bind" and not mount.get("ReadOnly") for mount in host["Mounts"]
        ):
            raise Refused("A service may only read the checkout.")
        return json.dumps(clean).encode()

    def _role(self, labels: Any) -> str:
        labels = labels if isinstance(labels, dict) else {}
        if labels.get(LABEL) != self._settings.project:
            raise Refused(f"The label {LABEL} must name this project.")
        role = labels.get("product-classifier.role")
        if role not in ("stage", "service"):
            raise Refused("The label product-classifier.role must be stage or service.")
        return str(role)

    def _image(self, image: Any, role: str) -> str:
        match = self.image.match(image) if isinstance(image, str) else None
        known = STAGE_IMAGES if role == "stage" else SERVICE_IMAGES
        if match is None or match[1] not in known:
            raise Refused(f"This image is not allowed for a {role}.")
        return match[1]

    def _container(self, role: str, image: str) -> dict[str, Check]:
        return {
            "AttachStderr": _exactly("AttachStderr", True),
            "AttachStdout": _exactly("AttachStdout", True),
            "Cmd": _texts("Cmd"),
            "Env": _texts("Env"),
            "HostConfig": lambda v: _fields("HostConfig", v, self._host(role)),
            "Image": lambda v: v,  # checked before
            "Labels": self._labels,
            "NetworkingConfig": lambda v: self._networking(v, role, image),
            "StopTimeout": _whole("StopTimeout", 1, 3600),
            "User": self._user,
            "WorkingDir": _exactly("WorkingDir", "/workspace"),
        }

    def _host(self, role: str) -> dict[str, Check]:
        checks: dict[str, Check] = {
            "CapDrop": _exactly("CapDrop", ["ALL"]),
            "Init": _exactly("Init", True),
            "LogConfig": self._log,
            "Memory": _whole("Memory", 1, 2**60),
            "MemorySwap": _whole("MemorySwap", 1, 2**60),
            "Mounts": self._mounts,
            "NanoCpus": _whole("NanoCpus", 1, 2**60),
            "NetworkMode": _exactly("NetworkMode", self._settings.network),
            "PidsLimit": _whole("PidsLimit", 1, MOST_PIDS),
            "ReadonlyRootfs": _exactly("ReadonlyRootfs", True),
            "SecurityOpt": _exactly(
                "SecurityOpt", ["no-new-privileges:true"], ["no-new-privileges"]
            ),
            "Tmpfs": self._tmpfs,
        }
        if role == "stage":
            checks["AutoRemove"] = _exactly("AutoRemove", True)
            if self._settings.gpus:
                checks["DeviceRequests"] = self._gpus
        else:
            checks["RestartPolicy"] = _exactly("RestartPolicy", {"Name": "unless-stopped"})
        return checks

    def _require_hardening(self, host: Mapping[str, Any]) -> None:
        needed = ("CapDrop", "Mounts", "NetworkMode", "PidsLimit", "ReadonlyRootfs", "SecurityOpt")
        if missing := [name for name in needed if name not in host]:
            raise Refused(f"HostConfig must have {', '.join(missing)}.")

    def _check_auth(self, image: str, clean: Mapping[str, Any]) -> None:
        """Keeps the signing keys with auth: nothing else sees their volume, and auth no code."""
        mounts = clean["HostConfig"]["Mounts"]
        volumes = [mount for mount in mounts if mount["Type"] == "volume"]
        if image == "auth":
            if len(mounts) != len(volumes) or clean.get("Cmd") != ["auth"]:
                raise Refused("auth runs its own command, with its keys' volume alone.")
        elif volumes:
            raise Refused("Only auth may have a volume.")

    def _labels(self, value: Any) -> dict[str, str]:
        for name, text in value.items():
            if not name.startswith("product-classifier.") or not isinstance(text, str):
                raise Refused(f"The label {name} is not allowed.")
        return dict(value)

    def _user(self, value: Any) -> str:
        if value not in self._settings.users:
            raise Refused("User must be STAGE_USER.")
        return str(value)

    def _networking(self, value: Any, role: str, image: str) -> dict[str, Any]:
        def endpoint(one: Any) -> dict[str, Any]:
            # An alias of its own choice could take the place of a neighbour.
            alias = [SERVICE_ALIASES.get(image)] if role == "service" else []
            return _fields("endpoint", one, {"Aliases": _exactly("Aliases", alias)})

        def endpoints(one: Any) -> dict[str, Any]:
            return _fields("EndpointsConfig", one, {self._settings.network: endpoint})

        return _fields("NetworkingConfig", value, {"EndpointsConfig": endpoints})

    def _log(self, value: Any) -> dict[str, Any]:
        size = re.compile(r"^[0-9]+[kmg]?$")

        def option(text: Any) -> str:
            if not isinstance(text, str) or not size.match(text):
                raise Refused("LogConfig.Config has an option that is not allowed.")
            return text

        return _fields(
            "LogConfig",
            value,
            {
                "Type": _exactly("LogConfig.Type", "json-file", "local"),
                "Config": lambda v: _fields(
                    "LogConfig.Config", v, {"max-size": option, "max-file": option}
                ),
            },
        )

    def _tmpfs(self, value: Any) -> dict[str, str]:
        if not isinstance(value, dict):
            raise Refused("Tmpfs must be an object.")
        for target, options in value.items():
            texts = isinstance(target, str) and isinstance(options, str)
            if not texts or not all(_TMPFS_OPTION.match(o) for o in options.split(",") if o):
                raise Refused("Tmpfs has an option that is not allowed.")
        return dict(value)

    def _gpus(self, value: Any) -> list[dict[str, Any]]:
        allowed: dict[str, Check] = {
            "Count": _whole("DeviceRequests.Count", -1, 64),
            "Capabilities": _exactly("DeviceRequests.Capabilities", [["gpu"]]),
            "Driver": _exactly("DeviceRequests.Driver", "nvidia"),
        }
        if not isinstance(value, list):
            raise Refused("DeviceRequests must be a list.")
        requests = [_fields("DeviceRequests", one, allowed) for one in value]
        if not all("Capabilities" in one for one in requests):
            raise Refused("DeviceRequests may only ask for GPUs.")
        return requests

    def _mounts(self, value: Any) -> list[dict[str, Any]]:
        if not isinstance(value, list):
            raise Refused("Mounts must be a list.")
        mounts = [self._mount(one) for one in value]
        self._check_dotenv(mounts)
        return mounts

    def _mount(self, value: Any) -> dict[str, Any]:
        mount = _fields(
            "Mounts",
            value,
            {
                "Type": _exactly("Mounts.Type", "bind", "volume"),
                "Source": _path_or_name,
                "Target": _absolute,
                "ReadOnly": _exactly("Mounts.ReadOnly", True),
            },
        )
        if not {"Type", "Source", "Target"} <= set(mount):
            raise Refused("A mount must have Type, Source and Target.")
        if mount["Type"] == "volume":
            wanted = (f"{self._settings.project}_auth-data", AUTH_FOLDER)
            if (mount["Source"], mount["Target"]) != wanted:
                raise Refused("This volume is not allowed.")
        else:
            self._check_bind(_absolute(mount["Source"]), bool(mount.get("ReadOnly")))
        return mount

    def _check_bind(self, source: str, read_only: bool) -> None:
        """Checks a folder of the host; a symlink below one that stages write to may lead anywhere."""
        host_path = self._settings.host_path
        if source == host_path:
            return
        if not read_only:
            raise Refused(f"Only {host_path} may be bound for writing.")
        if source == "/dev/null":
            return
        if source.startswith(host_path + "/"):
            self._check_below_checkout(source)
        elif not any(_is_below(source, folder) for folder in self._settings.data_paths):
            raise Refused(
                f"{source} may not be bound: it is below neither PROJECT_HOST_PATH nor one of "
                "DATA_HOST_PATHS."
            )
        else:
            self._check_data(source)

    def _check_below_checkout(self, source: str) -> None:
        host_path = self._settings.host_path
        relative = source[len(host_path) + 1 :]
        if relative.startswith("."):
            raise Refused(f"{source} may not be bound: settings and history stay unseen.")
        if not os.path.isdir(host_path):
            raise Refused(
                f"{host_path} is not mounted into the socket proxy, which therefore can't tell a "
                "symlink below it from a folder."
            )
        if os.path.realpath(source) != posixpath.join(os.path.realpath(host_path), relative):
            raise Refused(f"{source} may not be bound: there is a symlink in it.")

    def _check_data(self, source: str) -> None:
        # Not seen from here, as in another container, it is as given: stages can't write there.
        folders = [os.path.realpath(folder) for folder in self._settings.data_paths]
        real = os.path.realpath(source)
        if os.path.exists(source) and not any(_is_below(real, folder) for folder in folders):
            raise Refused(f"{source} may not be bound: a symlink leads out of DATA_HOST_PATHS.")

    def _check_dotenv(self, mounts: list[dict[str, Any]]) -> None:
        """Demands that `.env` is covered wherever the checkout is bound."""
        covered = {m["Target"] for m in mounts if m["Source"] == "/dev/null"}
        checkout = self._settings.host_path
        targets = [mount["Target"] for mount in mounts if mount["Source"] == checkout]
        if any(posixpath.join(target, ".env") not in covered for target in targets):
            raise Refused("Where the checkout is bound, /dev/null must cover its .env.")


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _path_or_name(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise Refused("Mounts.Source must be a text.")
    return value


def _absolute(value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise Refused("A path of a mount must be absolute.")
    if posixpath.normpath(value) != value:
        raise Refused("A path of a mount must be a normal one, without .. and doubled slashes.")
    return value
