"""Bundles from elsewhere: copied, verified, and kept for the day when the source is away."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from product_classifier.core import bundle as parts
from product_classifier.core.bundle import load_bundle
from product_classifier.core.errors import ArtifactError, ConfigurationError
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.serve.bundle_source import (
    ChampionSource,
    DVCSource,
    FolderSource,
    bundle_source,
)
from unit.versioning.project import Project

MakeBundle = Callable[..., Path]


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)  # type: ignore[call-arg]


def test_the_setting_names_the_source(workspace: Workspace, tmp_path: Path) -> None:
    assert isinstance(bundle_source(settings(), workspace), ChampionSource)
    assert isinstance(bundle_source(settings(bundle_source="dvc"), workspace), DVCSource)
    source = bundle_source(settings(bundle_source=str(tmp_path)), workspace)
    assert isinstance(source, FolderSource)
    assert source.source == tmp_path


def test_a_folder_is_copied_and_verified(
    workspace: Workspace, tmp_path: Path, make_bundle: MakeBundle
) -> None:
    folder = make_bundle(tmp_path / "share")
    source = bundle_source(settings(bundle_source=str(folder)), workspace)
    copy = source.fetch()
    assert copy == workspace.root / ".state/serve/bundle"
    assert load_bundle(copy).manifest == load_bundle(folder).manifest
    before = source.look()
    shutil.rmtree(folder)
    make_bundle(folder, "b")
    assert source.look() != before
    assert load_bundle(source.fetch()).manifest == load_bundle(folder).manifest


def test_a_damaged_folder_leaves_the_copy_as_it_was(
    workspace: Workspace, tmp_path: Path, make_bundle: MakeBundle
) -> None:
    folder = make_bundle(tmp_path / "share")
    source = bundle_source(settings(bundle_source=str(folder)), workspace)
    kept = load_bundle(source.fetch()).manifest
    shutil.rmtree(folder)
    make_bundle(folder, "b")
    (folder / parts.MAPPER).write_bytes(b"other")
    with pytest.raises(ArtifactError, match=r"mapper\.json"):
        source.fetch()
    (folder / parts.MAPPER).unlink()
    with pytest.raises(ArtifactError, match="can't be copied"):
        source.fetch()
    assert load_bundle(workspace.root / ".state/serve/bundle").manifest == kept


def test_a_folder_that_is_away_is_replaced_by_the_copy(
    workspace: Workspace, tmp_path: Path, make_bundle: MakeBundle
) -> None:
    folder = make_bundle(tmp_path / "share")
    source = bundle_source(settings(bundle_source=str(folder)), workspace)
    with_copy = load_bundle(source.fetch()).manifest
    shutil.rmtree(folder)
    assert source.look() is not None
    assert load_bundle(source.fetch()).manifest == with_copy
    shutil.rmtree(workspace.root / ".state")
    assert source.look() is None
    with pytest.raises(ArtifactError, match="BUNDLE_SOURCE gives no bundle"):
        source.fetch()


def test_no_champion_is_told(workspace: Workspace) -> None:
    source = bundle_source(settings(), workspace)
    assert source.look() is None
    with pytest.raises(ArtifactError, match="no champion"):
        source.fetch()


def test_the_newest_champion_comes_from_the_dvc_remote(
    tmp_path: Path, make_bundle: MakeBundle, workspace: Workspace
) -> None:
    remote = tmp_path / "remote"
    project = Project(tmp_path / "project", make_bundle, dvc_remote_url=str(remote))
    project.run_all()
    wanted = load_bundle(project.workspace.champion).manifest
    here = settings(bundle_source="dvc", dvc_remote_url=str(remote))
    source = bundle_source(here, workspace)
    found = source.fetch()
    assert load_bundle(found).manifest == wanted
    assert found.is_relative_to(workspace.root / ".state/serve/dvc")
    assert source.fetch() == found
    # The remote is damaged or away: what was fetched goes on.
    shutil.rmtree(remote)
    remote.write_text("no folder")
    assert source.fetch() == found


def test_a_remote_without_a_champion_is_told(workspace: Workspace, tmp_path: Path) -> None:
    here = settings(bundle_source="dvc", dvc_remote_url=str(tmp_path / "empty"))
    with pytest.raises(ConfigurationError, match="holds no champion"):
        bundle_source(here, workspace).fetch()


def test_a_remote_that_nobody_named_is_told(workspace: Workspace) -> None:
    with pytest.raises(ConfigurationError, match="set DVC_REMOTE_URL"):
        bundle_source(settings(bundle_source="dvc"), workspace).fetch()


def test_a_host_without_dvc_says_what_is_missing(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "sys.modules['dvc'] = None\n"
        "from product_classifier.serve.fetch_champion import main\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        input=b'{"dvc_remote_url": "remote"}',
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == ConfigurationError.exit_code
    assert b"needs the extra 'versioning'" in done.stderr
