"""`product-classifier build`: the container images."""

import time
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("build")(_build)


def _build(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IMAGE]...",
            help="ingest, train, predict, auth, serve, airflow, mlflow, socket-proxy; all if left out.",
        ),
    ] = None,
    print_tag: Annotated[
        bool, typer.Option("--print-tag", help="Only say the tag of the sources as they are.")
    ] = False,
) -> None:
    """Builds the container images, in parallel.

    They are tagged with the commit, or with IMAGE_TAG. With TRAIN_GPUS set, train carries the CUDA libraries. Exit code
    1: the build failed. 2: there is no such image, or Docker with buildx is missing.
    """
    from product_classifier.core.settings import get_settings
    from product_classifier.core.workspace import Workspace
    from product_classifier.runtime.images import IMAGES, build_images, image_tag

    settings, root = get_settings(), Workspace.find().root
    gpu = settings.train_gpus is not None
    tag = settings.image_tag or image_tag(root, gpu=gpu)
    if print_tag:
        typer.echo(tag)
        return
    wanted = names or list(IMAGES)
    started = time.monotonic()
    build_images(root, settings.image_prefix, tag, wanted, gpu=gpu)
    seconds = time.monotonic() - started
    typer.echo(f"Built {settings.image_prefix}/{{{','.join(wanted)}}}:{tag} in {seconds:.1f} s.")
