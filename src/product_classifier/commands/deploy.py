"""`product-classifier deploy` and `smoke`: the pipeline's serving stage."""

import os
from typing import Annotated

import typer


def _deploy(
    service: Annotated[str, typer.Argument(metavar="auth|serve", help="Which service.")],
) -> None:
    """Brings auth or serve up, or up to date.

    Waits until it is ready. Of the embedded run: in containers the pipeline's tasks deploy_auth and deploy_serve do
    this. Exit code 1: it is not ready within two minutes; the end of its log says why. 2: nothing runs to deploy to, a
    setting is unusable, or its port is taken.
    """
    from product_classifier.core.errors import ConfigurationError
    from product_classifier.core.logging import configure_logging
    from product_classifier.core.settings import get_settings
    from product_classifier.runtime.api_services import API_SERVICES
    from product_classifier.runtime.deploy import deploy
    from product_classifier.runtime.layout import Layout

    if service not in API_SERVICES:
        raise ConfigurationError(
            f"Expected one of {', '.join(API_SERVICES)}. Received: {service!r}."
        )
    layout = Layout.find()
    os.chdir(layout.root)  # .env and relative paths in it belong to the checkout
    # Not the service's own word: its log file is written by the service alone.
    configure_logging("deploy")
    deploy(layout, get_settings(), service)


def _smoke() -> None:
    """Asks the deployed API about a real product.

    Signs in as SMOKE_USER. Exit code 1: the API refuses, or answers with another model or otherwise than the model
    does here. 2: SMOKE_PASSWORD is not set.
    """
    from product_classifier.core.logging import configure_logging
    from product_classifier.core.settings import get_settings
    from product_classifier.runtime.layout import Layout
    from product_classifier.runtime.smoke import smoke

    layout = Layout.find()
    os.chdir(layout.root)
    configure_logging("smoke")
    smoke(layout, get_settings())


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    app.command("deploy")(_deploy)
    app.command("smoke")(_smoke)
