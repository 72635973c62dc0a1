"""`product-classifier predict`: batch scoring."""

from pathlib import Path
from typing import Annotated

import typer

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.logging import configure_logging
from product_classifier.core.params import load_params
from product_classifier.core.settings import get_settings
from product_classifier.core.workspace import Workspace


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("predict")(_predict)


def _predict(
    dataset: Annotated[
        Path | None,
        typer.Option(
            help="CSV file of products. Default: DATASET_PATH, else the unlabelled products in data/raw."
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder or zip of their photos. Default: IMAGES_PATH, else the photos in data/raw."
        ),
    ] = None,
    bundle: Annotated[
        str | None,
        typer.Option(help="Folder of a bundle or id of a release. Default: the champion."),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Score only every N-th product, beginning with the I-th, and leave a part for --merge.",
        ),
    ] = None,
    merge: Annotated[
        int | None,
        typer.Option(metavar="N", help="Put the parts of N shards together; scores nothing."),
    ] = None,
) -> None:
    """Scores products with the champion.

    Codes, names, confidence and decision go to data/predictions. Every row gets an answer or an error of its own. A
    killed run goes on where it was when it is started again. Exit code 1: the bundle is damaged or parts are missing.
    2: a file can't be read or a column is missing.
    """
    configure_logging("predict")
    if shard is not None and merge is not None:
        raise ConfigurationError("Either --shard I/N or --merge N, not both.")
    from product_classifier.commands.isolation import fetch_parts, hand_part, handed_over
    from product_classifier.predict.checkpoints import Shard
    from product_classifier.predict.job import Request
    from product_classifier.predict.predict import merge_parts, predict, predict_shard

    workspace, settings = Workspace.find(), get_settings()
    request = Request(dataset, images, bundle)
    if shard is not None:
        wanted = Shard.parse(shard)
        with handed_over("predict", record=False):
            params = load_params(workspace.params).predict
            part = predict_shard(workspace, settings, params, request, wanted)
            hand_part(part)
        typer.echo(f"Shard {shard}: {part or 'nothing to score'}")
        return
    with handed_over("predict") as is_to_do:
        if not is_to_do:
            return
        if merge is None:
            params = load_params(workspace.params).predict
            summary = predict(workspace, settings, params, request)
        else:
            fetch_parts()
            summary = merge_parts(workspace, settings, request, merge)
    typer.echo(
        f"{summary['products']} products: {summary['auto']} pass without review, "
        f"{summary['review']} to review, {summary['errors']} without an answer "
        f"(bundle {summary['bundle_id']})"
    )
