"""`product-classifier drift-report`: what the model was tested on, against what it is asked now."""

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from product_classifier.core.errors import ConfigurationError, NothingToDo
from product_classifier.core.logging import configure_logging
from product_classifier.core.settings import Settings, get_settings
from product_classifier.core.workspace import Workspace

if TYPE_CHECKING:
    from product_classifier.drift.comparison import Comparison

_NICE = 10  # it runs beside serve, whose answers come first
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("drift-report")(_drift_report)


def _drift_report(
    api: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Address of serve: report on its requests. Default: the last batch prediction.",
        ),
    ] = None,
    since: Annotated[
        str, typer.Option(help="With --api: how far back, as 90m, 24h or 7d.")
    ] = "24h",
    user: Annotated[
        str | None,
        typer.Option(
            help="With --api: an admin, whose password is asked for. Default: ADMIN_USER, with ADMIN_PASSWORD."
        ),
    ] = None,
) -> None:
    """Compares what came in with the model's test.

    The report on the last batch, or with --api on serve's requests, is in reports/drift and in MLflow. Drift is a
    finding, not a failure: exit code 0. 2: there is no batch, or no such bundle here. 99: there is nothing to compare,
    or the bundle is from before there were references.
    """
    configure_logging("drift")
    os.nice(_NICE)
    from product_classifier.drift.report import make_report

    workspace, settings = Workspace.find(), get_settings()
    comparison = (
        _window(workspace, settings, api, since, user) if api else _batch(workspace, settings)
    )
    folder = make_report(workspace, settings, comparison)
    typer.echo(f"{comparison.verdict} {comparison.figures.products} products, {folder}")


def _batch(workspace: Workspace, settings: Settings) -> "Comparison":
    from product_classifier.commands.isolation import receive_for_report
    from product_classifier.drift.batch import compare_batch, read_batch
    from product_classifier.drift.report import forget_batch
    from product_classifier.predict.inputs import resolve_inputs
    from product_classifier.predict.rows import read_scoring_rows
    from product_classifier.predict.scoring import open_photos

    receive_for_report()
    batch = read_batch(workspace)
    inputs = resolve_inputs(workspace, settings)
    if inputs is None or batch.dataset is None:
        forget_batch(workspace)
        raise NothingToDo("There was nothing to score: no drift report.")
    batch.check_dataset(inputs.dataset)
    rows = read_scoring_rows(inputs.dataset)
    products = {one.product.row: one.product for one in rows if one.product is not None}
    photos = open_photos(inputs.photos)
    try:
        return compare_batch(workspace, batch, products, photos)
    except NothingToDo:
        forget_batch(workspace)
        raise
    finally:
        if photos is not None:
            photos.close()


def _window(
    workspace: Workspace, settings: Settings, api: str, since: str, user: str | None
) -> "Comparison":
    from product_classifier.client import Client
    from product_classifier.drift.window import compare_window, parse_span

    until = datetime.now(UTC)
    start = until - parse_span(since)
    name, password = _credentials(settings, user)
    try:
        # A proxy of the environment is for the outside.
        client = Client(api, trust_env=urlsplit(api).hostname not in _LOOPBACK)
    except ValueError as error:
        raise ConfigurationError(f"--api: {error}") from error
    with client:
        client.login(name, password)
        table = client.drift_observations(start, until)
        client.logout()
    return compare_window(workspace, table, start, until)


def _credentials(settings: Settings, user: str | None) -> tuple[str, str]:
    if user is not None and user != settings.admin_user:
        return user, str(typer.prompt(f"Password of {user}", hide_input=True, err=True))
    if settings.admin_password is None:
        raise ConfigurationError(
            "ADMIN_PASSWORD is not set: `make start` generates it into .env. Or name an admin with --user."
        )
    return settings.admin_user, settings.admin_password.get_secret_value()
