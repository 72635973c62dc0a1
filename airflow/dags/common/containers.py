"""What the containers of the DAG are: image, labels, limits, mounts, environment.

Every container is labelled with the project, so that `make stop` and the socket proxy know it, and
is made from the worker's environment when its task runs, not when the DAG is parsed:

| variable | what it is |
| --- | --- |
| IMAGE_PREFIX, IMAGE_TAG | images are `<prefix>/<stage>:<tag>`, built before: never by a task |
| NETWORK_NAME, COMPOSE_PROJECT | the network of the stack, and the name of the stack |
| PROJECT_HOST_PATH | the checkout as the Docker host names it: `/workspace` in a stage |
| DATA_HOST_PATHS | further folders of the Docker host that stages may read |
| STAGE_USER | uid:gid that stages work with: the owner of the checkout |
| TRAIN_GPUS, STAGE_MEMORY_LIMIT, STAGE_CPUS | what a stage may use of the machine |
"""

import ipaddress
import os
import posixpath
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow.sdk.exceptions import AirflowFailException
from docker.types import DeviceRequest, LogConfig, Mount

WORKSPACE = "/workspace"
PREFIX = "product-classifier."
PROJECT, ROLE, NAME = PREFIX + "project", PREFIX + "role", PREFIX + "name"
CONFIGURATION = PREFIX + "configuration"
DAG, RUN, TASK, SHARD = PREFIX + "dag", PREFIX + "run", PREFIX + "task", PREFIX + "shard"
TRY, WORKER = PREFIX + "try", PREFIX + "worker"
STAGE, SERVICE = "stage", "service"  # roles

# Settings that may name a folder or file outside the checkout, which a container then needs to see.
READ_PATHS = ("DATA_SOURCE", "DATASET_PATH", "IMAGES_PATH", "BUNDLE_SOURCE")
PIDS_LIMIT = 4096  # threads count; TensorFlow starts some per processor
LOG_ROTATION = {"max-size": "10m", "max-file": "3"}
TMPFS = {"/tmp": "rw,nosuid,nodev,mode=1777"}  # noqa: S108 - a file system of the container's own


@dataclass(frozen=True)
class ContainerRuntime:
    """The worker's environment as far as it is about containers."""

    image_prefix: str
    image_tag: str
    network: str
    project: str
    host_path: str
    user: str | None
    data_paths: tuple[str, ...]
    gpus: str | None
    memory: str | None
    cpus: float | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "ContainerRuntime":
        """Reads the environment.

        Raises:
            AirflowFailException: a variable is missing or unusable.
        """
        source = os.environ if environment is None else environment
        host_path = posixpath.normpath(_required(source, "PROJECT_HOST_PATH"))
        if not posixpath.isabs(host_path) or host_path == "/":
            raise AirflowFailException(
                "PROJECT_HOST_PATH must be the absolute path of the checkout on the Docker host. "
                f"Received: {host_path!r}."
            )
        paths = (source.get("DATA_HOST_PATHS") or "").split(",")
        return cls(
            image_prefix=source.get("IMAGE_PREFIX") or "product-classifier",
            image_tag=_required(source, "IMAGE_TAG"),
            network=source.get("NETWORK_NAME") or "product_classier",
            project=_required(source, "COMPOSE_PROJECT"),
            host_path=host_path,
            user=source.get("STAGE_USER") or None,
            data_paths=tuple(posixpath.normpath(path.strip()) for path in paths if path.strip()),
            gpus=source.get("TRAIN_GPUS") or None,
            memory=source.get("STAGE_MEMORY_LIMIT") or None,
            cpus=_positive_number(source, "STAGE_CPUS"),
        )

    def image(self, name: str) -> str:
        """Names the image of a stage."""
        return f"{self.image_prefix}/{name}:{self.image_tag}"

    @property
    def is_root(self) -> bool:
        """Whether stages would work as root."""
        return self.user is not None and self.user.split(":")[0] in ("0", "root")

    def labels(self, role: str, name: str) -> dict[str, str]:
        """Gives the labels that every container has."""
        return {PROJECT: self.project, ROLE: role, NAME: name}

    def inside(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Rewrites paths below the checkout as the container knows them."""
        return {
            name: WORKSPACE + value[len(self.host_path) :]
            if (value + "/").startswith(self.host_path + "/")
            else value
            for name, value in environment.items()
        }


def _required(source: Mapping[str, str], name: str) -> str:
    value = source.get(name)
    if not value:
        raise AirflowFailException(
            f"{name} is not set on this worker: containers can't be started. docker-compose.yml "
            "sets it; start the stack with `make start`."
        )
    return value


def _positive_number(source: Mapping[str, str], name: str) -> float | None:
    text = source.get(name)
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 10_000:
        raise AirflowFailException(f"{name} must be a number above 0. Received: {text!r}.")
    return number


def bind(source: str, target: str, *, read_only: bool) -> Mount:
    """Binds a path of the Docker host; a missing one is an error, never made."""
    return Mount(target, source, type="bind", read_only=read_only)


def readable_binds(runtime: ContainerRuntime, environment: Mapping[str, str]) -> list[Mount]:
    """Gives the binds, at the same path, of what the settings name outside the workspace.

    Raises:
        AirflowFailException: a path lies below none of DATA_HOST_PATHS.
    """
    found: dict[str, Mount] = {}
    for name in READ_PATHS:
        value = environment.get(name, "")
        path = posixpath.normpath(value) if value.startswith("/") else ""
        if not path or is_below(path, WORKSPACE):
            continue
        if not any(is_below(path, folder) for folder in runtime.data_paths):
            raise AirflowFailException(
                f"{name}={value} is outside the checkout, and containers see nothing else. Add "
                f"its folder to DATA_HOST_PATHS in .env, then `make start`. Now: "
                f"DATA_HOST_PATHS={','.join(runtime.data_paths)!r}."
            )
        found[path] = bind(path, path, read_only=True)
    return list(found.values())


def is_below(path: str, folder: str) -> bool:
    """Tells whether a normal path is a folder or below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def stage_mounts(runtime: ContainerRuntime, environment: Mapping[str, str]) -> list[Mount]:
    """Gives a stage its workspace, and what else it has to read.

    `dvc.yaml` is bound once more by itself: where PROJECT_HOST_PATH is no checkout the engine
    then refuses at once, instead of a stage finding an empty folder. `.env` is covered: a stage
    is told its settings, and the secrets of the others stay unseen.
    """
    return [
        bind(runtime.host_path, WORKSPACE, read_only=False),
        bind(f"{runtime.host_path}/dvc.yaml", f"{WORKSPACE}/dvc.yaml", read_only=True),
        bind("/dev/null", f"{WORKSPACE}/.env", read_only=True),
        *readable_binds(runtime, environment),
    ]


def task_labels(environment: Mapping[str, str]) -> dict[str, str]:
    """Gives the labels that tell which task a container belongs to."""
    return {
        DAG: environment["AIRFLOW_DAG_ID"],
        RUN: environment["AIRFLOW_RUN_ID"],
        TASK: environment["AIRFLOW_TASK_ID"],
        SHARD: environment.get("AIRFLOW_MAP_INDEX", "-1"),
        TRY: environment["AIRFLOW_TRY_NUMBER"],
        WORKER: socket.gethostname(),
    }


def hardening(runtime: ContainerRuntime, mounts: Iterable[Mount]) -> dict[str, Any]:
    """Gives the part of the host configuration that all containers share."""
    return {
        "network_mode": runtime.network,
        "mounts": list(mounts),
        "tmpfs": dict(TMPFS),
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": PIDS_LIMIT,
        "init": True,  # DVC's lock misbehaves in a process with the number 1
        "log_config": LogConfig(type="json-file", config=LOG_ROTATION),
    }


def stage_limits(runtime: ContainerRuntime) -> dict[str, Any]:
    """Gives what a stage may use of the machine, as far as it is limited."""
    limits: dict[str, Any] = {}
    if runtime.memory:
        # No swap beyond it: a training that swaps for days helps nobody.
        limits |= {"mem_limit": runtime.memory, "memswap_limit": runtime.memory}
    if runtime.cpus:
        limits["nano_cpus"] = round(runtime.cpus * 1e9)
    return limits


def gpu_requests(gpus: str) -> list[DeviceRequest]:
    """Gives the GPUs that TRAIN_GPUS names: `all`, or a number.

    Raises:
        AirflowFailException: it is neither.
    """
    if gpus != "all" and not (gpus.isdecimal() and int(gpus) > 0):
        raise AirflowFailException(f"TRAIN_GPUS must be all or a number. Received: {gpus!r}.")
    return [DeviceRequest(count=-1 if gpus == "all" else int(gpus), capabilities=[["gpu"]])]


def trusted_neighbours(network: Mapping[str, Any]) -> str:
    """Gives the addresses of a network's containers, as TRUSTED_PROXIES takes them.

    The gateway and serve hand on for whom they ask, and their addresses change with each of their
    containers. The bridge's own address is left out: with it come callers from outside.
    """
    networks: list[str] = []
    for entry in (network.get("IPAM") or {}).get("Config") or []:
        subnet = ipaddress.ip_network(entry["Subnet"], strict=False)
        own = ipaddress.ip_address(entry.get("Gateway") or subnet[1])
        bridge = ipaddress.ip_network(own)
        parts = subnet.address_exclude(bridge) if own in subnet else [subnet]
        networks += [str(part) for part in sorted(parts)]
    return ",".join(networks)
