import time
from pathlib import Path

import pytest

from product_classifier.core.errors import VersioningError
from product_classifier.core.textfile import read_metrics
from product_classifier.versioning.push_metrics import (
    FAILURES,
    LAST_FAILURE,
    LAST_PUSH,
    noted_push,
    prepare_push_metrics,
)
from unit.versioning.project import Project


def pushes(project: Project, stage: str = "ingest") -> dict[str, float]:
    found = read_metrics(project.workspace.metrics, f"push-{stage}")
    assert all(labels == frozenset({("stage", stage)}) for _, labels in found)
    return {name: value for (name, _), value in found.items()}


def test_a_push_that_fails_is_counted_and_the_next_that_succeeds_is_noted(
    project: Project,
) -> None:
    started = time.time()
    project.ingest()
    remote = project.root / "dvc-remote"
    remote.write_text("a file is no remote")
    with pytest.raises(VersioningError):
        project.version("ingest")
    failed = pushes(project)
    assert failed[FAILURES] == 1
    assert started <= failed[LAST_FAILURE] <= time.time()
    assert LAST_PUSH not in failed

    remote.unlink()
    project.version("ingest")
    assert pushes(project) == {
        FAILURES: 1,
        LAST_FAILURE: failed[LAST_FAILURE],
        LAST_PUSH: pytest.approx(time.time(), abs=60),
    }
    assert pushes(project)[LAST_PUSH] > failed[LAST_FAILURE]


def test_a_count_begins_at_nothing_and_is_kept(project: Project) -> None:
    prepare_push_metrics(project.workspace, "train")
    assert pushes(project, "train") == {FAILURES: 0}
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), noted_push(project.workspace, "train"):
            raise ZeroDivisionError
    prepare_push_metrics(project.workspace, "train")
    assert pushes(project, "train")[FAILURES] == 2


def test_metrics_that_can_not_be_written_stop_no_push(project: Project) -> None:
    project.write(".state/metrics", "a file is no folder")
    project.ingest()
    assert project.version("ingest").objects > 0
    assert Path(project.root / ".state" / "metrics").is_file()
