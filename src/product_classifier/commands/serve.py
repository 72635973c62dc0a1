"""`product-classifier serve`: the prediction API."""

import typer

from product_classifier.core.logging import configure_logging
from product_classifier.core.settings import get_settings
from product_classifier.core.workspace import Workspace


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("serve")(_serve)


def _serve() -> None:
    """Serves predictions over HTTP with the champion.

    Listens on SERVE_HOST and SERVE_PORT until SIGTERM; requests in flight are answered first. Exit code 2: a setting
    can't be used.
    """
    configure_logging("serve")
    settings, workspace = get_settings(), Workspace.find()
    from product_classifier.serve.app import create_app
    from product_classifier.web.server import run_service

    run_service(
        lambda: create_app(settings, workspace),
        settings.serve_host,
        settings.serve_port,
        settings.shutdown_grace_seconds,
        settings.shutdown_delay_seconds,
    )
