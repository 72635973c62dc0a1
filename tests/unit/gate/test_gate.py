import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from product_classifier.core.errors import ArtifactError, ConfigurationError, ExitCode
from product_classifier.core.files import read_json
from product_classifier.core.params import GateParams
from product_classifier.core.releases import current_champion, list_releases
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.gate.gate import GateRefused, run_gate

MakeBundle = Callable[..., Path]
PARAMS = GateParams(min_accuracy=0.6, min_macro_f1=0.6, max_calibration_error=0.15)
BAD: list[dict[str, Any]] = [
    {"accuracy": 0.59},
    {"macro_f1": 0.5999},
    {"calibration_error": 0.16},
    {"accuracy": math.nan},
    {"calibration_error": math.nan},
    {"macro_f1": None},
    {"macro_f1": "0.9"},
]


@pytest.fixture
def settings() -> Settings:
    return Settings(_env_file=None)


def report(workspace: Workspace) -> dict[str, Any]:
    content: dict[str, Any] = read_json(workspace.reports / "gate.json")
    return content


def test_good_candidate_becomes_champion(
    workspace: Workspace, make_bundle: MakeBundle, settings: Settings
) -> None:
    make_bundle(workspace.candidate)
    outcome = run_gate(workspace, PARAMS, settings)
    champion = current_champion(workspace)
    assert champion is not None
    assert (outcome.decision, outcome.champion) == ("published", champion.release_id)
    assert report(workspace)["champion_after"] == champion.release_id
    assert [floor["passed"] for floor in report(workspace)["floors"]] == [True, True, True]


def test_candidate_exactly_at_the_floors_passes(
    workspace: Workspace, make_bundle: MakeBundle, settings: Settings
) -> None:
    make_bundle(workspace.candidate, accuracy=0.6, macro_f1=0.6, calibration_error=0.15)
    assert run_gate(workspace, PARAMS, settings).decision == "published"


@pytest.mark.parametrize("metrics", BAD, ids=str)
def test_bad_candidate_without_champion_is_a_fault(
    workspace: Workspace,
    make_bundle: MakeBundle,
    settings: Settings,
    metrics: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_bundle(workspace.candidate, **metrics)
    with pytest.raises(GateRefused, match=next(iter(metrics))) as caught:
        run_gate(workspace, PARAMS, settings)
    assert caught.value.exit_code == ExitCode.BAD_INPUT
    assert list_releases(workspace) == []
    assert not workspace.champion_file.exists()
    assert report(workspace)["decision"] == "refused"
    assert "FAIL" in caplog.text


@pytest.mark.parametrize("metrics", BAD, ids=str)
def test_bad_candidate_leaves_the_champion_and_says_why(
    workspace: Workspace,
    make_bundle: MakeBundle,
    settings: Settings,
    metrics: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_bundle(workspace.candidate, "good").rename(workspace.models / "good")
    (workspace.models / "good").rename(workspace.candidate)
    champion = run_gate(workspace, PARAMS, settings).champion
    workspace.candidate.rename(workspace.models / "old")
    make_bundle(workspace.candidate, "bad", **metrics)
    outcome = run_gate(workspace, PARAMS, settings)
    assert (outcome.decision, outcome.champion) == ("refused", champion)
    assert len(outcome.reasons) == 1
    assert f"{champion} stays champion" in caplog.text
    assert report(workspace)["reasons"] == outcome.reasons


def test_judging_the_champion_again_changes_nothing(
    workspace: Workspace, make_bundle: MakeBundle, settings: Settings
) -> None:
    make_bundle(workspace.candidate)
    run_gate(workspace, PARAMS, settings)
    before = workspace.champion_file.read_bytes()
    assert run_gate(workspace, PARAMS, settings).decision == "unchanged"
    assert workspace.champion_file.read_bytes() == before


def test_damaged_candidate_is_a_fault_and_reported(
    workspace: Workspace, make_bundle: MakeBundle, settings: Settings
) -> None:
    (make_bundle(workspace.candidate) / "concatenate.keras").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"concatenate\.keras has 0 bytes"):
        run_gate(workspace, PARAMS, settings)
    assert "concatenate.keras" in report(workspace)["reasons"][0]


def test_missing_candidate_is_a_fault(workspace: Workspace, settings: Settings) -> None:
    with pytest.raises(ArtifactError, match="no bundle at"):
        run_gate(workspace, PARAMS, settings)


def test_export_path_that_can_not_be_used_stops_before_anything_is_published(
    workspace: Workspace, make_bundle: MakeBundle
) -> None:
    make_bundle(workspace.candidate)
    settings = Settings(_env_file=None, mapper_path=Path("models/champion/mapper.json"))
    with pytest.raises(ConfigurationError, match="MAPPER_PATH"):
        run_gate(workspace, PARAMS, settings)
    assert list_releases(workspace) == []
