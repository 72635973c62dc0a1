"""`product-classifier dagshub`: first-time set-up of a repository on DagsHub."""

import os
from pathlib import Path
from typing import Annotated

import typer

TOKEN_VARIABLE = "DAGSHUB_TOKEN"  # noqa: S105 (a name)


def register(app: typer.Typer) -> None:
    """Adds the group of commands."""
    group = typer.Typer(no_args_is_help=True)
    group.command("login")(_login)
    group.command("init")(_init)
    app.add_typer(group, name="dagshub", help="Sets up DagsHub for MLflow and DVC, once.")


def _dotenv() -> Path:
    from product_classifier.core.workspace import Workspace

    root = Workspace.find().root
    os.chdir(root)  # .env belongs to the checkout
    return root / ".env"


def _login(
    token: Annotated[
        bool,
        typer.Option(
            "--token", help="Ask for a token made on DagsHub's page, instead of opening a browser."
        ),
    ] = False,
) -> None:
    """Signs in at DagsHub.

    Writes DAGSHUB_USERNAME and DAGSHUB_TOKEN to .env. A browser's sign-in gives a token that expires; one made on
    the page need not (DagsHub, Settings, Tokens).
    """
    dotenv = _dotenv()
    from product_classifier.core.settings import get_settings
    from product_classifier.runtime import dagshub_setup as setup

    settings = get_settings()
    if token:
        # Hidden, and never an argument: those are seen by every program of this machine.
        given = typer.prompt("Token", hide_input=True)
        signed_in = setup.check_token(settings, given.strip())
    else:
        signed_in = setup.sign_in_with_browser(settings)
    setup.write_settings(
        dotenv, {"DAGSHUB_USERNAME": signed_in.username, TOKEN_VARIABLE: signed_in.token}
    )
    until = f", which expires on {signed_in.expires}" if signed_in.expires else ""
    typer.echo(f"Signed in as {signed_in.username}; .env has the token{until}.")
    if settings.dagshub_slug() is None:
        typer.echo(f"Next: product-classifier dagshub init {signed_in.username}/NAME")


def _init(
    repository: Annotated[
        str,
        typer.Argument(metavar="OWNER/NAME", help="The owner: you, or an organisation of yours."),
    ],
) -> None:
    """Makes the repository, if there is none.

    Writes DAGSHUB_REPOSITORY to .env and checks token, repository, MLflow and storage. Exit code 1: one of them fails.
    """
    dotenv = _dotenv()
    from rich.console import Console

    from product_classifier.core.errors import ConfigurationError
    from product_classifier.core.settings import dagshub_slug, get_settings
    from product_classifier.runtime import dagshub_setup as setup
    from product_classifier.runtime.dagshub_check import check_dagshub
    from product_classifier.runtime.doctor import print_findings

    try:
        slug = dagshub_slug(repository)
    except ValueError as error:
        raise ConfigurationError(f"{error}. Received: {repository!r}.") from None
    if slug is None:
        raise ConfigurationError("Expected owner/name of a repository on DagsHub.")
    address = setup.ensure_repository(get_settings(), slug)
    setup.write_settings(dotenv, {"DAGSHUB_REPOSITORY": slug})
    typer.echo(f"{address} is ready; .env names it.")
    chosen = get_settings().model_copy(update={"dagshub_repository": slug})
    if not print_findings(list(check_dagshub(chosen)), Console(highlight=False)):
        raise typer.Exit(1)
