"""`product-classifier sync-runs`: MLflow gets the runs that it missed."""

import logging

import typer

from product_classifier.core.errors import NothingToDo, TrackingError
from product_classifier.core.logging import configure_logging
from product_classifier.core.settings import get_settings
from product_classifier.core.workspace import Workspace

logger = logging.getLogger(__name__)


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command("sync-runs")
    def sync_runs_command() -> None:
        """Uploads the training runs that MLflow does not have yet.

        Exit code 0: it has all of them now. 1: some are still kept here. 99: nothing to do.
        """
        configure_logging("tracking")
        from product_classifier.tracking.registry import champion_alias_is_due, mark_champion
        from product_classifier.tracking.upload import sync_runs

        workspace, settings = Workspace.find(), get_settings()
        result = sync_runs(workspace, settings)
        alias_was_due = champion_alias_is_due(workspace)
        # After a failed upload the server is away: asking it again only costs time.
        told = not result.kept and mark_champion(workspace, settings)
        for run_id in result.uploaded:
            typer.echo(f"uploaded  {run_id}")
        for run_id, reason in result.kept.items():
            typer.echo(f"kept      {run_id}  {reason}")
        if result.kept or (alias_was_due and not told):
            raise TrackingError("MLflow does not have everything yet; run this again later.")
        if result.nothing_to_do and not alias_was_due:
            raise NothingToDo("MLflow has every run.")
