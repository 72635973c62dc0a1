"""WORKSPACE_SYNC=dvc: how a stage's commands begin and end where no folder is shared between them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from product_classifier.commands.versioning import open_repository, write_stage_probe
from product_classifier.core.errors import NothingToDo
from product_classifier.core.params import load_params
from product_classifier.core.settings import get_settings
from product_classifier.core.workspace import Workspace

logger = logging.getLogger(__name__)

_RAW, _CANDIDATE, _CHAMPION = "data/raw", "models/candidate", "models/champion.json"
_PREDICTIONS = "data/predictions"
# What a command reads besides the code: outputs of other stages. An import starts from its source alone.
_RUN_NEEDS = {
    "ingest": (),
    "train": (_RAW,),
    "gate": (_CANDIDATE, _CHAMPION),
    "predict": (_RAW, _CHAMPION),
}
# `check` compares hashes. Only the probe of `predict` looks into the data, for the photos' fingerprint.
_CHECK_NEEDS = {"ingest": (), "train": (), "gate": (), "predict": (_RAW,)}


def is_isolated() -> bool:
    """Says whether each command works in a workspace of its own."""
    return get_settings().workspace_sync == "dvc"


def _needs(stage: str, table: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    # To reuse branches is to read the champion's.
    reuses = load_params(Workspace.find().params).train.branches == "reuse"
    return (*table[stage], _CHAMPION) if stage == "train" and reuses else table[stage]


def _receive(stage: str, table: dict[str, tuple[str, ...]]) -> None:
    from product_classifier.versioning.handover import receive

    with open_repository(stage) as repository:
        receive(repository, ())  # the run's parameters first: they say what is needed
        receive(repository, _needs(stage, table))
        write_stage_probe(stage, repository.workspace, get_settings())


def check_isolated(stage: str, *, force: bool) -> None:
    """Says whether a stage must run, as `check` does.

    Raises:
        NothingToDo: it need not.
    """
    from product_classifier.versioning.handover import check_received

    _receive(stage, _CHECK_NEEDS)
    with open_repository(stage) as repository:  # anew: DVC keeps what it has read of dvc.lock
        verdict = check_received(repository, stage, force=force)
    for reason in verdict.reasons:
        logger.info("%s must run: %s.", stage, reason)
    if not verdict.must_run:
        raise NothingToDo(f"{stage} need not run: nothing changed since it was recorded.")


def receive_for_report() -> None:
    """Fetches what the drift report reads: the predictions, what was scored, and the bundle that did it."""
    if not is_isolated():
        return
    from product_classifier.versioning.handover import receive

    with open_repository("drift") as repository:
        receive(repository, (_RAW, _PREDICTIONS, _CHAMPION))


def prove_isolated(stage: str) -> int:
    """Proves that the remote holds what a stage recorded; gives the number of objects."""
    from product_classifier.versioning.handover import prove, receive

    with open_repository(stage) as repository:
        receive(repository, ())
    with open_repository(stage) as repository:
        return prove(repository, stage)


@contextmanager
def handed_over(stage: str, *, record: bool = True) -> Iterator[bool]:
    """Surrounds the work of a stage: what it needs is fetched before, what it made is recorded and sent after.

    Args:
        stage: The stage's word.
        record: Whether the work makes the stage's outputs; a shard makes only a part of them.

    Yields:
        Whether the work is to be done; not where an earlier try did it and could not send it.
    """
    if not is_isolated():
        yield True
        return
    if record and _send_earlier(stage):
        yield False
        return
    _receive(stage, _RUN_NEEDS)
    yield True
    if record:
        _record(stage)


def _record(stage: str) -> None:
    from product_classifier.versioning.record import record_stage

    with open_repository(stage) as repository:
        recording = record_stage(repository, stage)
    logger.info("%s: %d objects sent to %s.", stage, recording.objects, repository.address)


def _send_earlier(stage: str) -> bool:
    """Sends what an earlier try in this workspace made and committed, if nothing changed since."""
    from product_classifier.versioning.check import check_stage
    from product_classifier.versioning.notes import is_recorded

    with open_repository(stage) as repository:
        lock = repository.lock_file()
        if stage not in lock.stages:
            return False
        if is_recorded(repository.workspace, lock, stage, repository.address):
            return False
        if check_stage(repository, stage).must_run:
            return False
    logger.info("%s was made by an earlier try that could not send it: sending it now.", stage)
    _record(stage)
    return True


def hand_part(part: Path | None) -> None:
    """Hands a shard's part to the merge; None where the shard had nothing to score."""
    if part is None or not is_isolated():
        return
    from product_classifier.versioning.handover import send_part

    with open_repository("predict") as repository:
        send_part(repository, part)


def fetch_parts() -> None:
    """Fetches the parts that the shards of this run have handed over."""
    if not is_isolated():
        return
    from product_classifier.versioning.handover import receive_parts

    with open_repository("predict") as repository:
        logger.info("Fetched %d parts.", receive_parts(repository))


def hand_params(own: bytes) -> None:
    """Hands the parameters to the run's other commands; `own` is `params.yaml` as it was before."""
    from product_classifier.versioning.handover import send_params

    with open_repository("params") as repository:
        send_params(repository, own)


def take_back_params(workspace: Workspace) -> None:
    """Makes `params.yaml` the checkout's own again, whatever an earlier run handed over."""
    from product_classifier.versioning.handover import own_params

    own_params(workspace)
