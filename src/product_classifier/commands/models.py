"""`product-classifier models list` and `rollback`: the releases and which of them is champion."""

import json
import logging
from typing import Any

import typer

from product_classifier.core.errors import NothingToDo, ProductClassifierError
from product_classifier.core.logging import configure_logging
from product_classifier.core.settings import get_settings
from product_classifier.core.workspace import Workspace

logger = logging.getLogger(__name__)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    models = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(models, name="models", help="Shows the published models.")

    @models.command("list")
    def list_command(
        as_json: bool = typer.Option(False, "--json", help="Print JSON, one list."),
        history: bool = typer.Option(False, "--history", help="Print the champion's moves."),
    ) -> None:
        """Lists the releases, oldest first; the champion has a star."""
        workspace = Workspace.find()
        rows = _moves(workspace) if history else _releases(workspace)
        if as_json:
            typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        else:
            _print_table(rows)

    @app.command("rollback")
    def rollback_command(
        to: str | None = typer.Option(
            None, "--to", help="Id of a release or its beginning. Default: the champion before."
        ),
    ) -> None:
        """Makes an earlier release champion again.

        Its files are checked first.
        """
        configure_logging("gate")
        from product_classifier.core.export import export_champion, plan_exports
        from product_classifier.core.releases import rollback
        from product_classifier.tracking.registry import mark_champion

        workspace, settings = Workspace.find(), get_settings()
        plan_exports(workspace, settings)
        release = rollback(workspace, to)
        export_champion(workspace, settings)
        _record()
        mark_champion(workspace, settings)
        typer.echo(f"Champion: {release.release_id}")


def _record() -> None:
    """Tells DVC about the move, so that the next gate does not take it for a change and undo it."""
    from product_classifier.commands.versioning import Stage, check

    try:
        # Not `version`: a candidate that the gate has not judged yet must stay so.
        check(Stage.GATE, force=False)
    except NothingToDo:
        return
    except ProductClassifierError as error:
        logger.warning("The champion has moved, but DVC was not told: %s", error)


def _releases(workspace: Workspace) -> list[dict[str, Any]]:
    from product_classifier.core.releases import current_champion, list_releases

    champion = current_champion(workspace)
    rows = []
    for release in list_releases(workspace):
        fusion = release.metrics.get("fusion", {})
        rows.append(
            {
                "champion": champion is not None and champion.release_id == release.release_id,
                "release": release.release_id,
                "created_at": release.created_at,
                "accuracy": fusion.get("accuracy"),
                "macro_f1": fusion.get("macro_f1"),
                "calibration_error": fusion.get("calibration_error"),
            }
        )
    return rows


def _moves(workspace: Workspace) -> list[dict[str, Any]]:
    from product_classifier.core.releases import champion_history

    return [move.as_json() for move in champion_history(workspace)]


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "*" if value else ""
    if isinstance(value, float):
        return f"{value:.4f}"
    return "-" if value is None else str(value)


def _print_table(rows: list[dict[str, Any]]) -> None:
    if not rows:
        typer.echo("No model was published yet.")
        return
    lines = [list(rows[0]), *([_as_text(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())
