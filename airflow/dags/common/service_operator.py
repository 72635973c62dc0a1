"""auth and serve as containers that stay up: made, replaced without a dropped request, or left alone.

A running container with this image and configuration is left alone. Otherwise a new one starts
beside it under the same network alias; the gateway finds it by Docker's DNS and sends requests to
it as soon as it is ready; only then is the old one told to end, which answers what it has begun.
A new one that does not become ready is removed again: the old one never stopped serving.
"""

import hashlib
import io
import json
import posixpath
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from airflow.sdk.exceptions import AirflowException, AirflowFailException
from common.container_operator import SERVE_URL, StageDockerOperator
from common.containers import (
    CONFIGURATION,
    NAME,
    PROJECT,
    ROLE,
    SERVICE,
    TMPFS,
    WORKSPACE,
    ContainerRuntime,
    bind,
    hardening,
    readable_binds,
    trusted_neighbours,
)
from common.engine import explained
from common.environment import service_environment
from common.operators import BAD_INPUT, DONE
from docker.errors import APIError
from docker.types import Mount
from requests.exceptions import RequestException

READY_SECONDS = 180.0  # a busy machine of two processors took 45
POLL_SECONDS = 0.5
PROGRESS_SECONDS = 5.0
# The gateway asks for new containers and for /ready every half second.
SETTLE_SECONDS = 4.0
STOP_MARGIN_SECONDS = 10  # beyond SHUTDOWN_GRACE_SECONDS: a service that drains is not killed
DEFAULT_GRACE_SECONDS = 30
MOST_RESTARTS = 2
EXIT_SECONDS = 30
LOG_LINES = 25

PORTS = {"auth": 8011, "serve": 8000}
AUTH_URL = "http://auth_service_container:8011"
AUTH_FOLDER = "/var/lib/auth"
CHAMPION = f"{WORKSPACE}/models/champion.json"
RELEASE_ID_DIGITS = 16

_HTTP = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def backend_alias(name: str) -> str:
    """Gives the name under which the gateway looks for a service's containers."""
    return f"{name}-backend"


class ServiceOperator(StageDockerOperator):
    """Makes a service's container run as it should, and waits until it is ready."""

    ui_color = "#f7e7dc"

    def run_command(self, arguments: list[str], environment: dict[str, str]) -> int:
        """Ensures the service; the command of the process runtime is not needed for it."""
        runtime = ContainerRuntime.from_environment()
        self.image = runtime.image(self.stage)
        with explained(runtime, self.image):
            options = self._options(runtime)
            existing = self._existing(runtime)
            for found in existing:
                if self._serves(found, options["labels"][CONFIGURATION]):
                    self.log.info("%s runs already, unchanged.", self.stage)
                    self._remove_others(existing, found["Id"])
                    return DONE
            self._replace(runtime, options, existing)
        return DONE

    def _options(self, runtime: ContainerRuntime) -> dict[str, Any]:
        """Gives what the container is made of, with the hash of all of it as a label."""
        variables = self._variables(runtime)
        host = hardening(runtime, self._mounts(runtime, variables))
        if self.stage == "serve":
            # What serve keeps between requests: auth's keys, a bundle from elsewhere.
            host["tmpfs"] |= {f"{WORKSPACE}/.state": TMPFS["/tmp"]}  # noqa: S108
        options = {
            "image": self.image,
            "command": [self.stage],
            # The keys' volume belongs to the image's user; the models to the checkout's owner.
            "user": runtime.user if self.stage == "serve" else None,
            "working_dir": WORKSPACE,
            "environment": variables,
            "stop_timeout": self._stop_seconds(variables),
        }
        image = self.cli.inspect_image(self.image)["Id"]
        content = json.dumps([image, options, host], sort_keys=True).encode()
        labels = runtime.labels(SERVICE, self.stage)
        labels[CONFIGURATION] = hashlib.sha256(content).hexdigest()
        aliases = self.cli.create_endpoint_config(aliases=[backend_alias(self.stage)])
        return options | {
            "labels": labels,
            "host_config": self.cli.create_host_config(
                restart_policy={"Name": "unless-stopped"}, **host
            ),
            "networking_config": self.cli.create_networking_config({runtime.network: aliases}),
        }

    def _variables(self, runtime: ContainerRuntime) -> dict[str, str]:
        variables = runtime.inside(service_environment(self.stage))
        variables |= {
            f"{self.stage.upper()}_HOST": "0.0.0.0",  # noqa: S104 - the container's own network
            f"{self.stage.upper()}_PORT": str(PORTS[self.stage]),
            "HOME": "/tmp",  # noqa: S108
            "PYTHONUNBUFFERED": "1",
        }
        if self.stage == "auth":
            variables["AUTH_DATA_PATH"] = AUTH_FOLDER
        else:
            variables = {"AUTH_URL": AUTH_URL, "SERVE_URL": SERVE_URL} | variables
        network = self.cli.inspect_network(runtime.network)
        proxies = (variables.get("TRUSTED_PROXIES"), trusted_neighbours(network))
        variables["TRUSTED_PROXIES"] = ",".join(proxy for proxy in proxies if proxy)
        return variables

    def _mounts(self, runtime: ContainerRuntime, variables: Mapping[str, str]) -> list[Mount]:
        if self.stage == "auth":
            return [Mount(AUTH_FOLDER, f"{runtime.project}_auth-data", type="volume")]
        mounts = [bind(f"{runtime.host_path}/models", f"{WORKSPACE}/models", read_only=True)]
        source = variables.get("BUNDLE_SOURCE", "")
        if source and source != "dvc" and "://" not in source:
            inside = posixpath.normpath(posixpath.join(WORKSPACE, source))
            below = inside.removeprefix(WORKSPACE)
            if below != inside and not (below + "/").startswith("/models/"):
                mounts.append(bind(runtime.host_path + below, inside, read_only=True))
        return mounts + readable_binds(runtime, {"BUNDLE_SOURCE": source})

    @staticmethod
    def _stop_seconds(variables: Mapping[str, str]) -> int:
        grace = variables.get("SHUTDOWN_GRACE_SECONDS") or str(DEFAULT_GRACE_SECONDS)
        if not grace.isdecimal():
            raise AirflowFailException(
                f"SHUTDOWN_GRACE_SECONDS must be a whole number. Received: {grace!r}."
            )
        return int(grace) + STOP_MARGIN_SECONDS

    def _existing(self, runtime: ContainerRuntime) -> list[dict[str, Any]]:
        filters = [
            f"{PROJECT}={runtime.project}",
            f"{ROLE}={SERVICE}",
            f"{NAME}={self.stage}",
        ]
        found: list[dict[str, Any]] = self.cli.containers(all=True, filters={"label": filters})
        return found  # the newest first

    def _serves(self, found: Mapping[str, Any], configuration: str) -> bool:
        """Tells whether a container is the wanted one and becomes ready."""
        if found["Labels"].get(CONFIGURATION) != configuration or found["State"] != "running":
            return False
        try:
            self._wait_until_ready(found["Id"])
        except AirflowException as error:
            self.log.warning("The running %s is replaced: %s", self.stage, error)
            return False
        return True

    def _replace(
        self,
        runtime: ContainerRuntime,
        options: dict[str, Any],
        existing: list[dict[str, Any]],
    ) -> None:
        name = f"{runtime.project}-{self.stage}-{uuid4().hex[:8]}"
        self.container = self.cli.create_container(**options, name=name)
        new = self.container["Id"]
        try:
            self.cli.start(new)
            self.log.info("Started %s.", name)
            self._wait_until_ready(new)
            if existing:
                time.sleep(SETTLE_SECONDS)
        except BaseException as error:  # a stop and a time-out too: the old one goes on serving
            tail = self._log_tail(new)
            self._stop_and_remove(new)
            if isinstance(error, AirflowException):
                kept = " The one before it goes on serving." if existing else ""
                raise type(error)(f"{error}{kept} The end of its log:\n{tail}") from error
            raise
        finally:
            self.container = None  # from here on a stop of the task leaves it alone
        self._remove_others(existing, new)

    def _remove_others(self, existing: list[dict[str, Any]], kept: str) -> None:
        for old in existing:
            if old["Id"] != kept:
                self.log.info("Draining %.12s, which %.12s replaced.", old["Id"], kept)
                grace = DEFAULT_GRACE_SECONDS + STOP_MARGIN_SECONDS
                details = self._inspect(old["Id"])
                seconds = (details.get("Config") or {}).get("StopTimeout") or grace
                self._stop_and_remove(old["Id"], seconds)

    def _inspect(self, container: str) -> dict[str, Any]:
        try:
            details: dict[str, Any] = self.cli.inspect_container(container)
        except APIError as error:
            if error.status_code == 404:
                return {}
            raise
        return details

    def _wait_until_ready(self, container: str) -> None:
        """Waits for /ready, and for serve to have the champion.

        Raises:
            AirflowFailException: the service ended because of its settings.
            AirflowException: it ends again and again, or is not ready in time.
        """
        started = said = time.monotonic()
        while True:
            details = self._inspect(container)
            self._check_alive(container, details)
            missing = self._missing(container, details)
            now = time.monotonic()
            if missing is None:
                self.log.info("%s is ready (%.1f s).", self.stage, now - started)
                return
            if now - started > READY_SECONDS:
                raise AirflowException(
                    f"{self.stage} is not ready after {now - started:.0f} s: {missing}."
                )
            if now - said >= PROGRESS_SECONDS:
                said = now
                self.log.info("Waiting for %s (%.0f s): %s.", self.stage, now - started, missing)
            time.sleep(POLL_SECONDS)

    def _check_alive(self, container: str, details: Mapping[str, Any]) -> None:
        state = details.get("State")
        if not state:
            raise AirflowException(f"{self.stage}'s container was removed by somebody else.")
        code, restarts = state.get("ExitCode"), details.get("RestartCount", 0)
        if restarts > MOST_RESTARTS and state.get("Running"):
            code = self._next_exit_code(container)  # it runs again: the last code is forgotten
        if code == BAD_INPUT:
            raise AirflowFailException(f"{self.stage} refuses its settings (exit code 2).")
        if restarts > MOST_RESTARTS:
            raise AirflowException(f"{self.stage} ended again and again (exit code {code}).")

    def _next_exit_code(self, container: str) -> int | None:
        try:
            ended = self.cli.wait(container, timeout=EXIT_SECONDS, condition="next-exit")
        except (APIError, RequestException):
            return None
        return int(ended["StatusCode"])

    def _missing(self, container: str, details: Mapping[str, Any]) -> str | None:
        """Says what the service still lacks; None where it is ready."""
        networks = details["NetworkSettings"]["Networks"].values()
        address = next((n["IPAddress"] for n in networks if n.get("IPAddress")), None)
        if address is None:
            return "it has no address yet"
        try:
            with _HTTP.open(f"http://{address}:{PORTS[self.stage]}/ready", timeout=5) as answer:
                ready = json.load(answer)
        except urllib.error.HTTPError as error:
            return f"/ready answers {error.code}"
        except (OSError, ValueError) as error:
            return f"no answer yet ({type(error).__name__})"
        expected = self._champion(container) if self._follows_champion(details) else None
        serves = ready.get("bundle_id") if isinstance(ready, dict) else None
        if expected is None or serves == expected:
            return None
        return f"it serves bundle {serves}, expected {expected}"

    def _follows_champion(self, details: Mapping[str, Any]) -> bool:
        variables = (details.get("Config") or {}).get("Env") or []
        elsewhere = any(entry.startswith("BUNDLE_SOURCE=") for entry in variables)
        return self.stage == "serve" and not elsewhere

    def _champion(self, container: str) -> str | None:
        """Reads which bundle the checkout's champion is, as the container sees it."""
        try:
            chunks, _ = self.cli.get_archive(container, CHAMPION)
            with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
                member = archive.next()
                file = archive.extractfile(member) if member is not None else None
                content = json.load(file) if file is not None else {}
        except (APIError, tarfile.TarError, ValueError) as error:
            self.log.debug("No champion.json: %s", error)
            return None
        return str(content["content_id"])[:RELEASE_ID_DIGITS] if "content_id" in content else None

    def _log_tail(self, container: str) -> str:
        try:
            lines: bytes = self.cli.logs(container, tail=LOG_LINES)
        except APIError as error:
            return f"(no log: {error.explanation})"
        return lines.decode("utf-8", "replace").rstrip()
