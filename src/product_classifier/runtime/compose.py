"""The door to `docker compose` and to the containers that the pipeline makes beside it."""

import json
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from product_classifier.core.errors import RuntimeServiceError
from product_classifier.core.files import write_text_atomic
from product_classifier.runtime.layout import Layout

PROJECT_LABEL = "product-classifier.project"
_NAME_LABEL = "product-classifier.name"
_ROLE_LABEL = "product-classifier.role"
_COMPOSE_PROJECT, _COMPOSE_SERVICE = "com.docker.compose.project", "com.docker.compose.service"
QUESTION_TIMEOUT_SECONDS = 60
STOP_TIMEOUT_SECONDS = 300


@dataclass(frozen=True)
class Container:
    """A container of the stack, as the engine sees it."""

    id: str
    service: str
    role: str  # stack, service or stage
    state: str  # created, running, restarting, exited ...
    health: str  # starting, healthy, unhealthy, or empty where it has no check
    status: str  # in words, with the time
    ports: str
    exit_code: int

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.state == "running"

    @property
    def published_ports(self) -> set[int]:
        """Ports of this machine that lead into it; `ports` names neighbours as a range."""
        found = re.findall(r":(\d+)(?:-(\d+))?->", self.ports)
        return {n for first, last in found for n in range(int(first), int(last or first) + 1)}

    @property
    def healthy(self) -> bool:
        """Whether it is as it should be: running and healthy, or done."""
        if self.state == "exited":
            return self.exit_code == 0 and self.role == "stack"
        return self.alive and self.health in ("", "healthy")


def _health(status: str) -> str:
    for word, mark in (("starting", "(health: starting)"), ("unhealthy", "(unhealthy)")):
        if mark in status:
            return word
    return "healthy" if "(healthy)" in status else ""


def _exit_code(status: str) -> int:
    # "Exited (137) 4 seconds ago"
    number = status.partition("(")[2].partition(")")[0]
    return int(number) if status.startswith("Exited") and number.isdigit() else 0


def parse_container(line: str) -> Container:
    """Reads one line of `docker ps --format '{{json .}}'`."""
    found: dict[str, str] = json.loads(line)
    labels = dict(pair.partition("=")[::2] for pair in found.get("Labels", "").split(","))
    status = found.get("Status", "")
    return Container(
        id=found["ID"],
        service=labels.get(_NAME_LABEL) or labels.get(_COMPOSE_SERVICE) or found.get("Names", "?"),
        role=labels.get(_ROLE_LABEL) or "stack",
        state=found.get("State", ""),
        health=_health(status),
        status=status,
        ports=found.get("Ports", ""),
        exit_code=_exit_code(status),
    )


def docker(*arguments: str, timeout: float = QUESTION_TIMEOUT_SECONDS) -> str:
    """Runs a docker command and gives what it wrote.

    Raises:
        RuntimeServiceError: it failed, or took too long.
    """
    try:
        done = subprocess.run(  # noqa: S603
            ["docker", *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise RuntimeServiceError("There is no docker on this machine.") from None
    except subprocess.TimeoutExpired:
        raise RuntimeServiceError(
            f"`docker {arguments[0]}` took longer than {timeout:.0f} s."
        ) from None
    if done.returncode:
        raise RuntimeServiceError(f"`docker {arguments[0]}` failed: {done.stderr.strip()}")
    return done.stdout


class Compose:
    """The stack of one checkout."""

    def __init__(self, layout: Layout, project: str, profiles: Sequence[str] = ("*",)) -> None:
        self.layout = layout
        self.project = project
        self.profiles = list(profiles)

    @property
    def values_file(self) -> Path:
        """What a start has computed for docker-compose.yml."""
        return self.layout.state / "compose.env"

    def write_values(self, values: dict[str, str]) -> None:
        """Keeps the values for every later command, ours and `run_compose_options.sh`'s."""
        text = "# Written by `make start`; laid over .env for docker-compose.yml.\n"
        # In single quotes nothing is replaced.
        text += "".join(f"{name}='{value}'\n" for name, value in sorted(values.items()))
        if not self.values_file.exists() or self.values_file.read_text(encoding="utf-8") != text:
            write_text_atomic(self.values_file, text, mode=0o600)

    def command(self, *arguments: str) -> list[str]:
        """Gives a whole command line; which files it reads is COMPOSE_FILE's affair, as everywhere."""
        files = [self.layout.dotenv, self.values_file]
        given = [f"--env-file={path}" for path in files if path.exists()]
        chosen = [f"--profile={profile}" for profile in self.profiles]
        return ["docker", "compose", "-p", self.project, *given, *chosen, *arguments]

    def environment(self) -> dict[str, str]:
        """Gives our environment, without what is set in it and empty: that is meant to be unset."""
        return {name: value for name, value in os.environ.items() if value}

    def run(self, *arguments: str, timeout: float = QUESTION_TIMEOUT_SECONDS) -> str:
        """Runs a compose command and gives what it wrote.

        Raises:
            RuntimeServiceError: it failed, or took too long.
        """
        try:
            done = subprocess.run(  # noqa: S603
                self.command(*arguments),
                cwd=self.layout.root,
                env=self.environment(),
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RuntimeServiceError(
                f"`docker compose {arguments[0]}` took longer than {timeout:.0f} s."
            ) from None
        if done.returncode:
            said = "\n".join(done.stderr.strip().splitlines()[-15:])
            raise RuntimeServiceError(f"`docker compose {arguments[0]}` failed:\n{said}")
        return done.stdout

    def start_up(self, log: Path, *services: str) -> "subprocess.Popen[Any]":
        """Starts bringing the stack up; what it says goes to a file."""
        arguments = ("up", "--detach", "--wait", "--wait-timeout=300", "--quiet-pull", *services)
        with log.open("wb") as file:
            return subprocess.Popen(  # noqa: S603
                self.command("--ansi=never", *arguments),
                cwd=self.layout.root,
                env=self.environment(),
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def containers(self) -> list[Container]:
        """Lists the containers of compose and those that the pipeline made, running or not."""
        found: dict[str, Container] = {}
        for label in (_COMPOSE_PROJECT, PROJECT_LABEL):
            lines = docker(
                *("ps", "--all", "--no-trunc", "--filter", f"label={label}={self.project}"),
                *("--format", "{{json .}}"),
            )
            for line in lines.splitlines():
                container = parse_container(line)
                found[container.id] = container
        return sorted(found.values(), key=lambda container: (container.role, container.service))

    def log_tail(self, container: Container, lines: int = 15) -> str:
        """Gives the last lines of a container's log."""
        done = subprocess.run(  # noqa: S603
            ["docker", "logs", "--tail", str(lines), container.id],  # noqa: S607
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=QUESTION_TIMEOUT_SECONDS,
            check=False,
        )
        return done.stdout.rstrip() or "(no log)"

    def started(self, service: str) -> str:
        """Gives when a service's container was started, as ISO 8601; empty where there is none."""
        ids = [c.id for c in self.containers() if c.service == service and c.alive]
        return docker("inspect", "--format", "{{.State.StartedAt}}", ids[0]).strip() if ids else ""

    def stop(self, grace_seconds: int) -> bool:
        """Ends and removes every container and network of the stack; volumes stay.

        The scheduler and the workers go first, so that nothing makes a container any more; then what
        the pipeline made, since a network can't be removed under a container.

        Returns:
            Whether there was anything.
        """
        before = self.containers()
        if not before:
            return False
        first = ("airflow-scheduler", "airflow-worker")
        first_ids = [c.id for c in before if c.alive and c.service in first]
        if first_ids:
            docker("stop", *first_ids, timeout=STOP_TIMEOUT_SECONDS)
        ours = [c for c in self.containers() if c.role != "stack"]
        if alive := [c.id for c in ours if c.alive]:
            docker("stop", "-t", str(grace_seconds), *alive, timeout=STOP_TIMEOUT_SECONDS)
        if ours := [c for c in self.containers() if c.role != "stack"]:
            docker("rm", "--force", *(c.id for c in ours))  # a stage's container removes itself
        self.run("down", "--remove-orphans", timeout=STOP_TIMEOUT_SECONDS)
        return True
