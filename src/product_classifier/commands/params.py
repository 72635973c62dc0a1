"""Commands that read and change the hyperparameters: params show, params set."""

import logging
from typing import Annotated

import typer

from product_classifier.core.logging import configure_logging
from product_classifier.core.params import load_params
from product_classifier.core.workspace import Workspace

logger = logging.getLogger(__name__)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(
        help="Shows or changes the hyperparameters in params.yaml.", no_args_is_help=True
    )
    group.command("show")(show)
    group.command("set")(set_values)
    app.add_typer(group, name="params")


def show(
    key: str = typer.Argument("", help="A parameter or a section, as train.text; all if left out."),
) -> None:
    """Prints parameters as key=value.

    Those that params.yaml leaves out are shown too.
    """
    from product_classifier.versioning.params_file import check_key, flatten_params

    values = flatten_params(load_params(Workspace.find().params))
    shown = {k: v for k, v in values.items() if not key or k == key or k.startswith(f"{key}.")}
    if not shown:
        check_key(key)
    for name, value in shown.items():
        typer.echo(f"{name}={value}")


def set_values(
    assignments: Annotated[
        list[str], typer.Argument(help="One or more key=value, as train.text.epochs=12.")
    ],
) -> None:
    """Changes parameters: all of them or, if one is not allowed, none."""
    from product_classifier.commands.isolation import hand_params, is_isolated, take_back_params
    from product_classifier.versioning.params_file import parse_assignment, set_params

    configure_logging("params")
    workspace = Workspace.find()
    if is_isolated():
        take_back_params(workspace)
    own = workspace.params.read_bytes()
    changes = set_params(workspace.params, dict(parse_assignment(text) for text in assignments))
    if is_isolated():
        hand_params(own)
    for key, (before, after) in changes.items():
        logger.info("%s: %s -> %s", key, before, after)
