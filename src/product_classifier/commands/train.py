"""`product-classifier train`: makes a candidate bundle."""

import os

import typer

from product_classifier.core.logging import configure_logging
from product_classifier.core.params import load_params
from product_classifier.core.settings import get_settings
from product_classifier.core.workspace import Workspace


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command("train")
    def train_command() -> None:
        """Trains text and image branch and their fusion.

        The result, measured and exported, is the bundle models/candidate. Hyperparameters are in params.yaml, section
        train. A killed training goes on where it was when it is started again. Exit code 2: the data or the
        parameters can't be used.
        """
        # TensorFlow's C++ log is not ours to read: a line per optimised graph. Set it to 0 to see it.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        configure_logging("train")
        from product_classifier.commands.isolation import handed_over
        from product_classifier.train.train import candidate_summary, train

        workspace = Workspace.find()
        with handed_over("train") as wanted:
            if not wanted:
                return
            result = train(workspace, get_settings(), load_params(workspace.params).train)
        typer.echo(candidate_summary(workspace.candidate, result.manifest))
        typer.echo(
            f"Run {result.run_id}, {result.seconds:.0f} s"
            + ("" if result.uploaded else "; not uploaded yet: `product-classifier sync-runs`")
        )
