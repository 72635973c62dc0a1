"""`product-classifier monitoring` and `alert-log`."""

import os
from typing import Annotated

import typer


def _monitoring() -> None:
    """Starts Prometheus, Alertmanager, their exporters and Grafana.

    Beside what runs, in containers or as processes, or alone, where a start would run; no pipeline is run. As
    processes without Grafana, where it is not installed. `make stop` ends them. Exit code 2: a program is missing
    (says how to install it), a port is taken, or a setting can't be used.
    """
    from rich.console import Console

    from product_classifier.core.settings import get_settings
    from product_classifier.core.workspace import Workspace
    from product_classifier.runtime.choice import choose_running
    from product_classifier.runtime.layout import Layout
    from product_classifier.runtime.monitoring.start import start_monitoring

    root = Workspace.find().root
    os.chdir(root)  # .env and relative paths in it belong to the checkout
    layout, console = Layout(root), Console(highlight=False)
    choice = choose_running(layout, get_settings())
    if choice.name == "docker":
        from product_classifier.runtime.compose_monitoring import start_stack_monitoring

        start_stack_monitoring(layout, console, choice)
    else:
        start_monitoring(layout, console)


def _alert_log(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port; ALERT_LOG_PORT if left out.")
    ] = None,
) -> None:
    """Logs each of Alertmanager's notifications, until SIGTERM."""
    from product_classifier.core.logging import configure_logging
    from product_classifier.core.settings import get_settings
    from product_classifier.runtime.monitoring.alert_log import AlertLog

    configure_logging("alert-log")
    with AlertLog(host, port or get_settings().alert_log_port) as server:
        try:
            server.serve_forever()
        except (KeyboardInterrupt, SystemExit):
            raise typer.Exit(0) from None


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    app.command("monitoring")(_monitoring)
    app.command("alert-log")(_alert_log)
