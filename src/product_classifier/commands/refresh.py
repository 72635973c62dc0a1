"""Which metrics of the workspace a command may have changed: they are written anew when it ends, however it ends."""

from collections.abc import Sequence

from product_classifier.core.workspace import Workspace

_STAGES = ("ingest", "train", "gate", "predict")
_CHANGED = {
    **{stage: (stage,) for stage in _STAGES},
    "rollback": ("gate",),
    "sync-runs": ("train",),
    "drift-report": ("train",),  # it adds to a run's record, which MLflow then lacks or gets
    "restore": _STAGES,
}
_OF_ONE_STAGE = ("check", "version")  # their argument says which


def changed_stages(arguments: Sequence[str]) -> tuple[str, ...]:
    """Names the stages whose published state a command may have changed.

    Args:
        arguments: Those of the program, beginning with the command's name.
    """
    command, *others = arguments or [""]
    if "--help" in others:
        return ()
    if command in _OF_ONE_STAGE:
        return tuple(stage for stage in _STAGES if stage in others)
    return _CHANGED.get(command, ())


def refresh_metrics(arguments: Sequence[str]) -> None:
    """Writes the metrics anew that a command may have changed; nothing outside a checkout."""
    stages = changed_stages(arguments)
    if not stages:
        return
    workspace = Workspace.find()
    if (workspace.root / "dvc.yaml").is_file():
        from product_classifier.runtime.pipeline_metrics import refresh

        refresh(workspace, stages)
