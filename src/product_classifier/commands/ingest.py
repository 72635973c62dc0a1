"""`product-classifier ingest`."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("ingest")(_ingest)


def _ingest(
    source: Annotated[
        str | None,
        typer.Option(
            help="Import from here instead of DATA_SOURCE: sample, rakuten, a folder, a zip, an "
            "https:// or s3:// address, all in the Rakuten layout."
        ),
    ] = None,
) -> None:
    """Imports a catalogue into data/raw.

    It is fetched, checked, split, and put in place as a whole. Bad input ends with exit code 2 and a report in
    reports/ingest/; data/raw is as it was.
    """
    from product_classifier.commands.isolation import handed_over
    from product_classifier.core.logging import configure_logging
    from product_classifier.core.params import load_params
    from product_classifier.core.settings import get_settings
    from product_classifier.core.workspace import Workspace
    from product_classifier.ingest.ingest import ingest

    configure_logging("ingest")
    workspace = Workspace.find()
    with handed_over("ingest") as wanted:
        if wanted:
            params = load_params(workspace.params).ingest
            ingest(workspace, get_settings(), params, source=source)
