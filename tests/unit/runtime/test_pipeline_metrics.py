"""What the pipeline's text files say of a workspace, and that docs/metrics.md says the same."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from product_classifier.commands.refresh import changed_stages
from product_classifier.core.errors import ConfigurationError
from product_classifier.core.files import write_json_atomic
from product_classifier.core.releases import point_champion, publish_release
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.runtime.monitoring.stack_started import note_stack_start
from product_classifier.runtime.pipeline_metrics import STAGES, prepare_metrics, refresh
from product_classifier.runtime.staleness import write_limits
from product_classifier.tracking.record import RunRecord
from product_classifier.versioning.push_metrics import noted_push

ROOT = Path(__file__).parents[3]
LOCK = """
schema: '2.0'
stages:
  ingest:
    cmd: product-classifier ingest
    outs:
    - {path: data/raw, hash: md5, md5: 0123456789abcdef0123456789abcdef.dir, size: 1, nfiles: 2}
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    return Workspace(tmp_path)


@pytest.fixture
def full(workspace: Workspace, make_bundle: Callable[..., Path]) -> Workspace:
    """A workspace in which every stage has published something."""
    write_json_atomic(
        workspace.raw / "manifest.json", {"labelled": 80, "unlabelled": 20, "photos": 99}
    )
    (workspace.root / "dvc.lock").write_text(LOCK)
    write_json_atomic(workspace.predictions / "summary.json", {"auto": 15, "review": 5})
    bundle = make_bundle(workspace.candidate)
    release = publish_release(workspace, bundle)
    point_champion(workspace, release.release_id, "for a test")
    with RunRecord.start(workspace.runs):
        pass
    return workspace


def read(workspace: Workspace) -> dict[str, dict[tuple[str, ...], float]]:
    """Gives name -> values of the labels -> value, as the exporter would over all files."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for path in workspace.metrics.glob("*.prom"):
        for family in text_string_to_metric_families(path.read_text()):
            for sample in family.samples:
                key = tuple(value for _, value in sorted(sample.labels.items()))
                assert key not in found.setdefault(sample.name, {})
                found[sample.name][key] = sample.value
    return {name.removeprefix("product_classifier_"): values for name, values in found.items()}


def test_they_say_what_the_stages_have_published(full: Workspace) -> None:
    refresh(full)
    found = read(full)
    assert found["imported_rows"] == {("labelled",): 80, ("unlabelled",): 20}
    assert found["imported_photos"] == {(): 99}
    assert found["data_info"] == {("0123456789ab",): 1}
    assert found["scored_products"] == {("auto",): 15, ("review",): 5}
    assert found["mlflow_unsynced_runs"] == {(): 1}
    (champion,) = found["champion_info"]
    assert champion[0] == full.champion.resolve().name
    assert found["champion_metric_ratio"]
    assert found["champion_published_timestamp_seconds"][()] > 1.7e9
    assert found["dvc_push_failures_total"] == {(stage,): 0 for stage in STAGES}


def test_an_empty_checkout_has_counts_and_no_guesses(workspace: Workspace) -> None:
    refresh(workspace)
    assert set(read(workspace)) == {"dvc_push_failures_total", "mlflow_unsynced_runs"}


def test_what_is_not_there_any_more_is_not_told_any_more(full: Workspace) -> None:
    refresh(full)
    (full.predictions / "summary.json").unlink()
    refresh(full, ["predict"])
    assert "scored_products" not in read(full)
    assert "imported_rows" in read(full)


def test_a_damaged_file_is_a_warning_and_the_others_are_written(
    full: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    (full.raw / "manifest.json").write_text("{")
    (full.root / "dvc.lock").write_text("[")
    (full.champion.resolve() / "manifest.json").chmod(0o644)
    (full.champion.resolve() / "manifest.json").write_text('{"schema_version": 1}')
    refresh(full)
    for stage in ("ingest", "gate"):
        assert f"metrics of {stage} were not written" in caplog.text
    found = read(full)
    assert found["scored_products"]
    assert len(found["dvc_push_failures_total"]) == len(STAGES)


def test_a_folder_that_cannot_be_written_to_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    refresh(Workspace(tmp_path / "file"), ["predict"])
    assert "metrics of predict were not written" in caplog.text


def test_the_state_folder_stays_private_and_the_metrics_can_be_read(workspace: Workspace) -> None:
    refresh(workspace)
    assert (workspace.root / ".state").stat().st_mode & 0o777 == 0o700
    assert (workspace.metrics / "ingest.prom").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("arguments", "stages"),
    [
        (["ingest", "--source", "sample"], ("ingest",)),
        (["check", "train", "--force"], ("train",)),
        (["version", "predict"], ("predict",)),
        (["gate", "--force"], ("gate",)),
        (["predict", "--merge", "3"], ("predict",)),
        (["rollback"], ("gate",)),
        (["sync-runs"], ("train",)),
        (["restore", "--latest"], STAGES),
        (["train", "--help"], ()),
        (["serve"], ()),
        (["check"], ()),
        ([], ()),
    ],
)
def test_a_command_renews_what_it_may_have_changed(
    arguments: list[str], stages: tuple[str, ...]
) -> None:
    assert changed_stages(arguments) == stages


def product_classifier(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "product_classifier", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_command_renews_them_however_it_ends_and_says_its_last_word_after(
    full: Workspace,
) -> None:
    (full.root / "params.yaml").write_text("nonsense: true\n")
    result = product_classifier(full.root, "predict")
    assert result.returncode == 2
    assert read(full)["scored_products"] == {("auto",): 15, ("review",): 5}
    assert "nonsense" in result.stdout.splitlines()[-1]


# Each of them is missing in some stage's image.
_NOT_IN_A_STAGE = ("httpx", "psutil", "supervisor", "mlflow", "boto3", "fastapi", "tensorflow")
_REFRESH = """
import sys
from pathlib import Path
for name in sys.argv[3:]:
    sys.modules[name] = None  # importing it fails
from product_classifier.commands import refresh
from product_classifier.core.workspace import Workspace
Workspace.find = classmethod(lambda cls: cls(Path(sys.argv[1])))
refresh.refresh_metrics([sys.argv[2]])
"""


@pytest.mark.parametrize("stage", STAGES)
def test_they_are_renewed_with_the_packages_of_a_stages_image(full: Workspace, stage: str) -> None:
    command = [sys.executable, "-c", _REFRESH, str(full.root), stage, *_NOT_IN_A_STAGE]
    subprocess.run(command, check=True)
    assert (full.metrics / f"{stage}.prom").is_file()
    assert (full.metrics / f"push-{stage}.prom").is_file()


def test_outside_a_checkout_nothing_is_written(tmp_path: Path) -> None:
    product_classifier(tmp_path, "sync-runs")
    assert not (tmp_path / ".state").exists()


def settings(**values: object) -> Settings:
    return Settings(_env_file=None, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        ({"pipeline_stale_after_hours": 1.5}, 5400),
        ({"pipeline_schedule": "@daily"}, 2 * 86400),
        ({"pipeline_schedule": "0 6 * * 1-5"}, 2 * 3 * 86400),
        ({"pipeline_schedule": "@daily", "pipeline_stale_after_hours": 30}, 108_000),
    ],
)
def test_the_limit_is_the_one_set_or_twice_the_schedules_interval(
    workspace: Workspace, values: dict[str, object], limit: float
) -> None:
    write_limits(workspace, settings(**values))
    assert read(workspace)["pipeline_staleness_limit_seconds"] == {("ml_pipeline",): limit}


def test_a_restart_does_not_begin_the_watch_anew_and_a_limit_taken_away_ends_it(
    workspace: Workspace,
) -> None:
    write_limits(workspace, settings(pipeline_stale_after_hours=2))
    path = workspace.metrics / "limits.prom"
    since = "product_classifier_pipeline_watched_since_timestamp_seconds"
    text = re.sub(rf"^({since}{{.*}}) .*$", r"\1 1000", path.read_text(), flags=re.MULTILINE)
    path.write_text(text)
    write_limits(workspace, settings(pipeline_stale_after_hours=3))
    assert read(workspace)["pipeline_watched_since_timestamp_seconds"] == {("ml_pipeline",): 1000}
    write_limits(workspace, settings())
    assert not path.exists()
    write_limits(workspace, settings())


def test_a_schedule_that_can_not_be_used_ends_the_start(workspace: Workspace) -> None:
    never = settings(pipeline_schedule="0 0 31 2 *", pipeline_stale_after_hours=3)
    with pytest.raises(ConfigurationError, match="PIPELINE_SCHEDULE"):
        prepare_metrics(workspace, never)


def documented(heading: str) -> dict[str, tuple[str, frozenset[str]]]:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    section = text.partition(f"\n## {heading}")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\|", section, re.MULTILINE)
    return {
        name: (kind, frozenset(labels.replace(" ", "").split(",")) - {""})
        for name, kind, labels in rows
    }


def test_docs_describe_exactly_what_is_written(full: Workspace) -> None:
    prepare_metrics(full, settings(pipeline_schedule="@daily"))
    note_stack_start(full, watched=False)
    with pytest.raises(OSError, match="away"), noted_push(full, "ingest"):
        raise OSError("away")
    with noted_push(full, "ingest"):
        pass
    found = {}
    for path in full.metrics.glob("*.prom"):
        for family in text_string_to_metric_families(path.read_text()):
            labels = frozenset(family.samples[0].labels)
            name = family.name + ("_total" if family.type == "counter" else "")
            found[name] = (family.type, labels)
    others = (  # tests of the DAG and of the drift report hold these to the page
        "product_classifier_task_",
        "product_classifier_pipeline_runs",
        "product_classifier_pipeline_last",
        "product_classifier_batch_",
    )
    expected = {k: v for k, v in documented("Pipeline").items() if not k.startswith(others)}
    assert found == expected
