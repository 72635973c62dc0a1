from collections.abc import Callable
from pathlib import Path

import pytest

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.export import export_champion
from product_classifier.core.releases import point_champion, publish_release, rollback
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace

MakeBundle = Callable[..., Path]
PARTS = {
    "TOKENIZER_CONFIG_PATH": "tokenizer_config.json",
    "LSTM_MODEL_PATH": "best_lstm_model.keras",
    "VGG16_MODEL_PATH": "best_vgg16_model.keras",
    "BEST_WEIGHTS_PATH": "best_weights.json",
    "MAPPER_PATH": "mapper.json",
    "CONCATENATED_MODEL_PATH": "concatenate.keras",
}


@pytest.fixture
def champion(workspace: Workspace, make_bundle: MakeBundle) -> Path:
    """Folder of the champion's release."""
    for name in ("old", "new"):
        release = publish_release(workspace, make_bundle(workspace.models / name, name))
        point_champion(workspace, release.release_id, name)
    return release.path


def test_nothing_is_exported_where_nothing_is_set(workspace: Workspace, champion: Path) -> None:
    assert export_champion(workspace, Settings(_env_file=None)) == []


@pytest.mark.parametrize(("name", "part"), PARTS.items(), ids=PARTS)
def test_each_path_gets_its_part(
    workspace: Workspace, champion: Path, name: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, f"legacy folder/copy{Path(part).suffix}")
    [target] = export_champion(workspace, Settings(_env_file=None))
    assert target == workspace.root / f"legacy folder/copy{Path(part).suffix}"
    assert target.read_bytes() == (champion / part).read_bytes()


@pytest.mark.parametrize("name", ["LSTM_MODEL_PATH", "VGG16_MODEL_PATH", "CONCATENATED_MODEL_PATH"])
def test_hdf5_path_gets_the_keras_file_beside_and_a_notice(
    workspace: Workspace,
    champion: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(name, "models/legacy/model.h5")
    [target] = export_champion(workspace, Settings(_env_file=None))
    assert target == workspace.models / "legacy/model.keras"
    assert target.read_bytes() == (champion / PARTS[name]).read_bytes()
    assert not (workspace.models / "legacy/model.h5").exists()
    assert "no HDF5 is written" in caplog.text


@pytest.mark.parametrize("name", ["BEST_WEIGHTS_PATH_PKL", "MAPPER_PATH_PKL"])
def test_pickle_path_is_ignored_with_a_notice(
    workspace: Workspace,
    champion: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(name, "legacy.pkl")
    assert export_champion(workspace, Settings(_env_file=None)) == []
    assert f"{name} is ignored: no pickle is written" in caplog.text
    assert not (workspace.root / "legacy.pkl").exists()


@pytest.mark.parametrize(
    "path",
    [
        "models/candidate/mapper.json",
        "models/releases/mapper.json",
        "models/champion/mapper.json",
        "models/../models/champion/mapper.json",
        "models/champion.json",
        "data/raw/mapper.json",
        "models",
    ],
)
def test_path_among_our_own_artefacts_is_refused(
    workspace: Workspace, champion: Path, path: str
) -> None:
    with pytest.raises(ConfigurationError, match="MAPPER_PATH must be a file outside"):
        export_champion(workspace, Settings(_env_file=None, mapper_path=Path(path)))


def test_one_path_for_two_parts_is_refused(workspace: Workspace, champion: Path) -> None:
    settings = Settings(
        _env_file=None, lstm_model_path=Path("m.h5"), vgg16_model_path=Path("m.keras")
    )
    with pytest.raises(ConfigurationError, match="LSTM_MODEL_PATH are one path"):
        export_champion(workspace, settings)


def test_export_after_a_rollback_is_the_old_champions(workspace: Workspace, champion: Path) -> None:
    settings = Settings(_env_file=None, mapper_path=Path("mapper.json"))
    export_champion(workspace, settings)
    old = rollback(workspace)
    [target] = export_champion(workspace, settings)
    assert target.read_bytes() == (old.path / "mapper.json").read_bytes()


def test_copy_may_be_written_to_without_harm_to_the_release(
    workspace: Workspace, champion: Path
) -> None:
    [target] = export_champion(workspace, Settings(_env_file=None, mapper_path=Path("mapper.json")))
    target.write_text("mine")
    assert (champion / "mapper.json").read_text() != "mine"


def test_without_champion_nothing_is_exported(workspace: Workspace) -> None:
    settings = Settings(_env_file=None, mapper_path=Path("mapper.json"))
    assert export_champion(workspace, settings) == []
