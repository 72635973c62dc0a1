"""`product-classifier gate`: may the candidate become champion?"""

import typer

from product_classifier.core.logging import configure_logging
from product_classifier.core.params import load_params
from product_classifier.core.settings import get_settings
from product_classifier.core.workspace import Workspace


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command("gate")
    def gate_command(
        force: bool = typer.Option(False, "--force", help="Judge it even if nothing changed."),
        record: bool = typer.Option(
            True, help="Ask DVC whether anything changed, and tell it what was decided."
        ),
    ) -> None:
        """Makes the candidate champion, if it is good enough.

        It is held against the floors of params.yaml, section gate. Exit code 0: it is champion, or was refused and
        another one stays (a warning says why). 1: it is damaged. 2: it was refused and there is no champion. 99:
        nothing changed.
        """
        configure_logging("gate")
        from product_classifier.commands.isolation import handed_over, is_isolated
        from product_classifier.commands.versioning import Stage, check, version
        from product_classifier.gate.gate import run_gate
        from product_classifier.tracking.registry import mark_champion

        workspace, settings = Workspace.find(), get_settings()
        if record:
            check(Stage.GATE, force=force)  # ends the command where nothing changed
        with handed_over("gate", record=record):
            outcome = run_gate(workspace, load_params(workspace.params).gate, settings)
        if record and not is_isolated():
            version(Stage.GATE)
        mark_champion(workspace, settings)
        typer.echo(f"Gate: {outcome.decision}. Champion: {outcome.champion}")
