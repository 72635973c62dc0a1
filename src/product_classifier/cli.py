"""The command line: one program, a command per stage and per task of its users."""

import importlib
import logging
import os
import signal
import sys
from types import FrameType

import typer

from product_classifier import __version__
from product_classifier.commands.refresh import refresh_metrics
from product_classifier.core.deadline import leave_what_hangs
from product_classifier.core.errors import ExitCode, NothingToDo, ProductClassifierError

logger = logging.getLogger(__name__)

_COMMANDS = (
    "ingest",
    "train",
    "gate",
    "predict",
    "drift",
    "models",
    "versioning",
    "params",
    "tracking",
    "runtime",
    "statsd_exporter",
    "auth",
    "serve",
    "deploy",
    "dagshub",
    "images",
    "monitoring",
)

# Set in a stage's image, to the stage.
STAGE_VARIABLE = "PRODUCT_CLASSIFIER_STAGE"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def build_app() -> typer.Typer:
    """Puts the commands together."""
    app = typer.Typer(
        name="product-classifier",
        help="Puts every product of a catalogue into its product type code.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @app.callback()
    def _root(
        version: bool = typer.Option(
            False,
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Show the version and exit.",
        ),
    ) -> None:
        """Puts every product of a catalogue into its product type code."""

    for name in _COMMANDS:
        importlib.import_module(f"product_classifier.commands.{name}").register(app)
    return app


def stage_arguments(arguments: list[str], stage: str | None) -> list[str]:
    """Completes the arguments in a stage's image: there, options alone are the stage's.

    So `docker run product-classifier/train --help` is about `train`, while any other word is a
    command as everywhere: `check train`. `--version` stays the program's.
    """
    only_options = all(argument.startswith("-") for argument in arguments[:1])
    return (
        [stage, *arguments] if stage and only_options and arguments != ["--version"] else arguments
    )


def _terminate(signum: int, _frame: FrameType | None) -> None:
    # As an exception, so that open files, locks and temporary folders are cleaned up on the way out.
    raise SystemExit(128 + signum)


def main() -> None:
    """Runs a command and ends the process with the exit code that the DAG understands (see `ExitCode`)."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        _run()
    except SystemExit as outcome:
        leave_what_hangs(outcome.code)
        raise


def _run() -> None:
    arguments = stage_arguments(sys.argv[1:], os.environ.get(STAGE_VARIABLE))
    try:
        try:
            build_app()(arguments)
        finally:
            refresh_metrics(arguments)  # before the last line of the log: Airflow shows that one
    except NothingToDo as outcome:
        logger.info("%s", outcome)
        sys.exit(ExitCode.NOTHING_TO_DO)
    except ProductClassifierError as error:
        configured = bool(logging.getLogger().handlers)
        if configured:  # else logging would write it to standard error by itself
            logger.error("%s", error)
        if not configured or sys.stderr.isatty():
            typer.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output left (as `| head` does): not a fault.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.DONE)
