"""`product-classifier status` and `logs` where the stack runs in containers."""

import subprocess
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.settings import Settings
from product_classifier.runtime.compose import Compose, Container
from product_classifier.runtime.status import last_run_line

_STAGE_ROLE = "stage"


def _addresses(container: Container) -> str:
    # "127.0.0.1:8000->8000/tcp, 5000/tcp": only what is published.
    found = [part.split("->")[0] for part in container.ports.split(", ") if "->" in part]
    return " ".join(part.replace("127.0.0.1", "localhost") for part in found)


def _since(container: Container) -> str:
    # "Up 7 minutes (healthy)"; of the others all words are worth reading.
    return container.status.removeprefix("Up ").split(" (")[0] if container.alive else ""


def _state(container: Container) -> str:
    if container.state == "exited" and container.healthy:
        return "[bright_black]done[/]"
    if not container.alive:
        return f"[red]{container.state} {container.exit_code or ''}[/]"
    return "[green]healthy[/]" if container.healthy else f"[yellow]{container.health}[/]"


def print_stack_status(compose: Compose, settings: Settings, console: Console) -> bool:
    """Prints a line per container and how the last run stands; True where all are as they should be."""
    containers = compose.containers()
    if not containers:
        console.print("Nothing runs. `make start` starts it.")
        return False
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("service", "state", "for", "address"):  # fits 80 columns
        table.add_column(title, no_wrap=True)
    for container in containers:
        cells = (_state(container), _since(container), _addresses(container))
        table.add_row(container.service, *cells)
    console.print(table)
    console.print(last_run_line(settings), soft_wrap=True, markup=False)
    return all(c.healthy for c in containers if c.role != _STAGE_ROLE)


def show_stack_logs(
    compose: Compose, service: str | None, *, lines: int, follow: bool
) -> Sequence[int]:
    """Hands docker's own output through; gives the exit codes.

    Raises:
        ConfigurationError: no container of this service is there.
    """
    containers = [c for c in compose.containers() if service in (None, c.service)]
    if not containers:
        names = sorted({c.service for c in compose.containers()})
        raise ConfigurationError(
            f"No container of this service. Expected one of: {', '.join(names) or 'none runs'}. "
            f"Received: {service!r}."
        )
    options = ["--tail", str(lines), *(["--follow"] if follow else [])]
    commands = []
    if stack := sorted({c.service for c in containers if c.role == "stack"}):
        commands.append(compose.command("logs", *options, *stack))
    commands += [["docker", "logs", *options, c.id] for c in containers if c.role != "stack"]
    running = [
        subprocess.Popen(command, cwd=compose.layout.root, env=compose.environment())  # noqa: S603
        for command in commands
    ]
    try:
        return [process.wait() for process in running]
    except KeyboardInterrupt:
        return [process.wait() for process in running]  # they got the signal too
