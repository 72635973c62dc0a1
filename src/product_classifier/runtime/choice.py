"""Which runtime carries the pipeline, and why."""

import shutil
import subprocess
from dataclasses import dataclass
from typing import Literal

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.settings import Settings
from product_classifier.runtime.compose import Compose
from product_classifier.runtime.layout import Layout
from product_classifier.runtime.supervision import Supervisor

ANSWER_TIMEOUT_SECONDS = 20
LEAST_ENGINE, LEAST_COMPOSE = (20, 10), (2, 26)  # what the stack was run on


@dataclass(frozen=True)
class RuntimeChoice:
    """A runtime, and the reason in words for the terminal."""

    name: Literal["docker", "process"]
    reason: str


@dataclass(frozen=True)
class Engine:
    """A container engine as it answered; `problem` says why it can't be used, or is None."""

    version: str = ""
    compose: str = ""
    problem: str | None = None


def _ask(*command: str) -> tuple[bool, str]:
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=ANSWER_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, type(error).__name__
    said = (done.stdout if done.returncode == 0 else done.stderr).strip()
    return done.returncode == 0, (said.splitlines() or ["no answer"])[-1]


def _version(text: str) -> tuple[int, ...]:
    numbers = text.lstrip("v").split("-")[0].split("+")[0].split(".")
    return tuple(int(number) for number in numbers if number.isdigit())


def find_engine() -> Engine:
    """Asks for a container engine with Compose and BuildKit; takes tenths of a second."""
    if shutil.which("docker") is None:
        return Engine(problem="there is no docker on this machine")
    answered, version = _ask("docker", "version", "--format", "{{.Server.Version}}")
    if not answered:
        return Engine(problem=f"no container engine answers ({version})")
    found, compose = _ask("docker", "compose", "version", "--short")
    if not found:
        return Engine(version, problem="docker has no Compose plugin")
    if not _ask("docker", "buildx", "version")[0]:
        return Engine(version, compose, "docker has no buildx plugin, which builds the images")
    if _version(version) < LEAST_ENGINE or _version(compose) < LEAST_COMPOSE:
        engine_version, compose_version = (
            ".".join(map(str, least)) for least in (LEAST_ENGINE, LEAST_COMPOSE)
        )
        wanted = f"Docker Engine {engine_version} and Compose {compose_version}"
        return Engine(version, compose, f"{wanted} are needed, {version} and {compose} are here")
    return Engine(version, compose)


def choose_runtime(settings: Settings) -> RuntimeChoice:
    """Picks the runtime that PIPELINE_RUNTIME names; with `auto`, docker where it can be used.

    Raises:
        ConfigurationError: docker is asked for and can't be used; says why.
    """
    if settings.pipeline_runtime == "process":
        return RuntimeChoice("process", "PIPELINE_RUNTIME asks for it")
    engine = find_engine()
    if engine.problem is None:
        return RuntimeChoice("docker", f"engine {engine.version}, Compose {engine.compose}")
    if settings.pipeline_runtime == "docker":
        raise ConfigurationError(
            f"PIPELINE_RUNTIME=docker, but {engine.problem}. Install Docker Engine with its Compose "
            "and buildx plugins and start it, or set PIPELINE_RUNTIME=process."
        )
    return RuntimeChoice("process", f"{engine.problem}; PIPELINE_RUNTIME=auto")


def choose_running(layout: Layout, settings: Settings) -> RuntimeChoice:
    """Picks the runtime in which something of this checkout runs already; where nothing does, as a start would.

    Raises:
        ConfigurationError: see `choose_runtime`.
    """
    if Supervisor(layout).answers():
        return RuntimeChoice("process", "what runs here runs as processes")
    if stack_runs(layout, settings):
        return RuntimeChoice("docker", "the stack runs")
    return choose_runtime(settings)


def stack_runs(layout: Layout, settings: Settings) -> bool:
    """Tells whether containers of this checkout run."""
    stack = Compose(layout, settings.compose_project_name)
    # Without the file this checkout has started nothing: the containers would be another one's.
    answers = stack.values_file.exists() and find_engine().problem is None
    return answers and any(container.alive for container in stack.containers())
