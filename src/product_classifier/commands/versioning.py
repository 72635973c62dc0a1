"""Commands that decide, record, bring back and prove: check, version, restore, verify."""

import enum
import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from product_classifier.core.errors import ConfigurationError, ExitCode, NothingToDo
from product_classifier.core.logging import configure_logging
from product_classifier.core.params import load_params
from product_classifier.core.settings import Settings, get_settings
from product_classifier.core.workspace import Workspace

if TYPE_CHECKING:
    from product_classifier.versioning.repository import Repository

logger = logging.getLogger(__name__)

_WITH_PROBE = ("ingest", "train", "predict")


class Stage(enum.StrEnum):
    """The stages of dvc.yaml."""

    INGEST = "ingest"
    TRAIN = "train"
    GATE = "gate"
    PREDICT = "predict"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("check")(check)
    app.command("version")(version)
    app.command("restore")(restore)
    app.command("verify")(verify)


@contextmanager
def open_repository(stage: str) -> "Iterator[Repository]":
    """Opens the workspace's versions for one command; others wait meanwhile."""
    from product_classifier.versioning.repository import Repository
    from product_classifier.versioning.serial import serialised

    configure_logging(stage)
    workspace, settings = Workspace.find(), get_settings()
    if not (workspace.root / "dvc.yaml").is_file():
        raise ConfigurationError(f"There is no dvc.yaml in {workspace.root} or above it.")
    with (
        serialised(workspace, settings.dvc_lock_wait_seconds),
        Repository(workspace, settings) as repository,
    ):
        yield repository


def write_stage_probe(stage: str, workspace: Workspace, settings: Settings) -> None:
    """Writes what the stage's outside input is now, where it has one."""
    if stage in _WITH_PROBE:
        probe: Any = importlib.import_module(f"product_classifier.{stage}.probe")
        section = getattr(load_params(workspace.params), stage)  # each probe takes its own
        probe.write_probe(workspace, settings, section)


def check(
    stage: Annotated[Stage, typer.Argument(help="The stage to look at.")],
    force: bool = typer.Option(False, "--force", help="Run it even if nothing changed."),
) -> None:
    """Says whether a stage must run.

    Exit code 0: its code, inputs, parameters or outputs changed. 99: nothing did.
    """
    from product_classifier.commands.isolation import check_isolated, is_isolated
    from product_classifier.versioning.check import check_stage
    from product_classifier.versioning.record import record_stage

    if is_isolated():
        check_isolated(stage, force=force)
        return
    with open_repository(stage) as repository:
        write_stage_probe(stage, repository.workspace, get_settings())
        verdict = check_stage(repository, stage, force=force)
        for reason in verdict.reasons:
            logger.info("%s must run: %s.", stage, reason)
        if verdict.must_run:
            return
        if verdict.unrecorded:
            logger.info("%s need not run, but %s: recording it.", stage, verdict.unrecorded)
            record_stage(repository, stage)
    raise NothingToDo(f"{stage} need not run: nothing changed since it was recorded.")


def version(
    stage: Annotated[Stage, typer.Argument(help="The stage whose outputs to record.")],
) -> None:
    """Records a stage's outputs with DVC and pushes them.

    It ends well only where the remote proved to have them. With WORKSPACE_SYNC=dvc the stage has recorded them itself:
    only the proof is left.
    """
    from product_classifier.commands.isolation import is_isolated, prove_isolated
    from product_classifier.versioning.record import record_stage

    if is_isolated():
        typer.echo(f"{stage}: {prove_isolated(stage)} objects are on the remote.")
        return
    with open_repository(stage) as repository:
        recording = record_stage(repository, stage)
    typer.echo(
        f"{stage}: {recording.objects} objects on {repository.address}, "
        f"state {recording.entry.entry_id} (lock {recording.entry.lock_id})."
    )


def restore(
    run: str = typer.Option(
        "", "--run", help="Id of a state, run, MLflow run or lock, or its beginning."
    ),
    latest: bool = typer.Option(False, "--latest", help="The newest complete state on the remote."),
    stage: Annotated[
        list[Stage] | None, typer.Option("--stage", help="Only this stage's outputs; repeatable.")
    ] = None,
    force: bool = typer.Option(
        False, "--force", help="Give up local outputs that nothing else holds."
    ),
) -> None:
    """Brings a recorded state back.

    That is data, candidate, reports, predictions, params.yaml and champion. Either --run or --latest says which state.
    """
    if bool(run) == latest:
        raise ConfigurationError("Say which state: either --run <id> or --latest.")
    from product_classifier.core.export import export_champion
    from product_classifier.versioning.restore import restore_state

    with open_repository("restore") as repository:
        result = restore_state(repository, run or None, [str(s) for s in stage or ()], force=force)
        export_champion(repository.workspace, get_settings())
    for line in result.summary():
        typer.echo(line)


def verify(
    remote: bool = typer.Option(
        False, "--remote", help="Download every object of the remote and hash it too."
    ),
) -> None:
    """Hashes everything again: champion, outputs, cache.

    The last line says YES where what is served is what was trained, else NO. Exit code 1: something differs.
    """
    from product_classifier.versioning.verify import verify_workspace

    with open_repository("verify") as repository:
        report = verify_workspace(repository, with_remote=remote)
    for line in report.lines():
        typer.echo(line)
    if not report.is_sound:
        raise typer.Exit(ExitCode.FAULT)
