import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from product_classifier.core import releases
from product_classifier.core.bundle import load_bundle
from product_classifier.core.errors import ArtifactError, ConfigurationError
from product_classifier.core.files import read_json, sha256_file
from product_classifier.core.releases import (
    champion_history,
    current_champion,
    find_release,
    heal_champion,
    list_releases,
    point_champion,
    publish_release,
    rollback,
)
from product_classifier.core.workspace import Workspace

MakeBundle = Callable[..., Path]


@pytest.fixture
def three(workspace: Workspace, make_bundle: MakeBundle) -> list[str]:
    """Ids of three published releases."""
    folders = [make_bundle(workspace.models / name, name) for name in "abc"]
    return [publish_release(workspace, folder).release_id for folder in folders]


def test_release_holds_what_the_manifest_lists_and_nothing_else(
    workspace: Workspace, make_bundle: MakeBundle
) -> None:
    folder = make_bundle(workspace.candidate)
    (folder / "left-over.txt").write_text("x")
    release = publish_release(workspace, folder)
    assert release.path == workspace.releases / load_bundle(folder).bundle_id
    files = {p.relative_to(release.path).as_posix() for p in release.path.rglob("*") if p.is_file()}
    assert files == {*load_bundle(folder).manifest.files, "manifest.json"}


def test_release_files_are_read_only(workspace: Workspace, make_bundle: MakeBundle) -> None:
    release = publish_release(workspace, make_bundle(workspace.candidate))
    modes = {p.stat().st_mode & 0o222 for p in release.path.rglob("*") if p.is_file()}
    assert modes == {0}


def test_publishing_again_changes_nothing(workspace: Workspace, make_bundle: MakeBundle) -> None:
    make_bundle(workspace.candidate)
    first = publish_release(workspace, workspace.candidate)
    inode = first.path.stat().st_ino
    assert publish_release(workspace, workspace.candidate) == first
    assert first.path.stat().st_ino == inode


def test_publishing_refuses_a_damaged_bundle(workspace: Workspace, make_bundle: MakeBundle) -> None:
    (make_bundle(workspace.candidate) / "mapper.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"mapper\.json has 2 bytes"):
        publish_release(workspace, workspace.candidate)
    assert list_releases(workspace) == []


def test_publishing_repairs_a_damaged_release(
    workspace: Workspace, make_bundle: MakeBundle
) -> None:
    release = publish_release(workspace, make_bundle(workspace.candidate))
    (release.path / "mapper.json").unlink()
    publish_release(workspace, workspace.candidate)
    assert load_bundle(release.path).bundle_id == release.release_id


def test_candidate_may_be_symlinks_into_a_cache(
    workspace: Workspace, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    cache = make_bundle(tmp_path / "cache")
    workspace.candidate.mkdir(parents=True)
    for file in (p for p in cache.rglob("*") if p.is_file()):
        link = workspace.candidate / file.relative_to(cache)
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(file)
    release = publish_release(workspace, workspace.candidate)
    assert not any(path.is_symlink() for path in release.path.rglob("*"))
    load_bundle(release.path)


def test_champion_is_a_relative_symlink_with_its_file(
    workspace: Workspace, three: list[str]
) -> None:
    release = point_champion(workspace, three[0], "first")
    assert os.readlink(workspace.champion) == f"releases/{three[0]}"
    assert read_json(workspace.champion_file) == {
        "release": three[0],
        "content_id": release.content_id,
        "manifest_sha256": sha256_file(release.path / "manifest.json"),
    }
    assert current_champion(workspace) == release


def test_workspace_can_be_moved(workspace: Workspace, three: list[str], tmp_path: Path) -> None:
    point_champion(workspace, three[0], "first")
    moved = Workspace(workspace.root.rename(tmp_path / "elsewhere"))
    champion = current_champion(moved)
    assert champion is not None
    assert champion.release_id == three[0]


def test_no_champion_at_first(workspace: Workspace, three: list[str]) -> None:
    assert current_champion(workspace) is None
    with pytest.raises(ConfigurationError, match="no earlier champion"):
        rollback(workspace)


def test_pointing_at_the_champion_adds_no_history(workspace: Workspace, three: list[str]) -> None:
    point_champion(workspace, three[0], "first")
    point_champion(workspace, three[0], "again")
    assert [move.reason for move in champion_history(workspace)] == ["first"]


def test_pointing_at_a_damaged_release_leaves_the_champion(
    workspace: Workspace, three: list[str]
) -> None:
    point_champion(workspace, three[0], "first")
    damaged = workspace.releases / three[1] / "mapper.json"
    damaged.chmod(0o644)
    damaged.write_text("{}")
    with pytest.raises(ArtifactError, match="damaged"):
        point_champion(workspace, three[1], "second")
    assert os.readlink(workspace.champion) == f"releases/{three[0]}"


def test_rolling_back_twice_goes_two_champions_back(workspace: Workspace, three: list[str]) -> None:
    for release_id in three:
        point_champion(workspace, release_id, "better")
    assert rollback(workspace).release_id == three[1]
    assert rollback(workspace).release_id == three[0]
    with pytest.raises(ConfigurationError, match="no earlier champion"):
        rollback(workspace)


def test_publishing_after_a_rollback_goes_back_to_the_rolled_back_to(
    workspace: Workspace, three: list[str]
) -> None:
    point_champion(workspace, three[0], "first")
    point_champion(workspace, three[1], "second")
    rollback(workspace)
    point_champion(workspace, three[2], "third")
    assert rollback(workspace).release_id == three[0]


def test_rollback_takes_the_beginning_of_an_id(workspace: Workspace, three: list[str]) -> None:
    point_champion(workspace, three[0], "first")
    assert rollback(workspace, three[2][:8]).release_id == three[2]


@pytest.mark.parametrize("unknown", ["", "ffffffff", "../releases", ".."])
def test_unknown_release_is_refused_with_the_known_ones(
    workspace: Workspace, three: list[str], unknown: str
) -> None:
    with pytest.raises(ConfigurationError, match=three[0]):
        find_release(workspace, unknown)


def test_history_survives_a_torn_line(workspace: Workspace, three: list[str]) -> None:
    point_champion(workspace, three[0], "first")
    with (workspace.models / "champion_history.jsonl").open("a") as file:
        file.write('{"at": "2026')
    point_champion(workspace, three[1], "second")
    assert [move.to_release for move in champion_history(workspace)] == three[:2]


def test_champion_file_is_healed_from_the_symlink(workspace: Workspace, three: list[str]) -> None:
    point_champion(workspace, three[0], "first")
    right = workspace.champion_file.read_bytes()
    workspace.champion_file.write_text("{")
    heal_champion(workspace)
    assert workspace.champion_file.read_bytes() == right


def test_lost_symlink_is_healed_from_the_champion_file(
    workspace: Workspace, three: list[str]
) -> None:
    point_champion(workspace, three[0], "first")
    workspace.champion.unlink()
    champion = current_champion(workspace)
    assert champion is not None
    assert champion.release_id == three[0]
    assert workspace.champion.is_symlink()


def test_champion_file_without_its_release_makes_no_champion(workspace: Workspace) -> None:
    workspace.models.mkdir()
    said = {"release": "0" * 16, "content_id": "0" * 64, "manifest_sha256": "0" * 64}
    workspace.champion_file.write_text(json.dumps(said))
    assert current_champion(workspace) is None
    assert read_json(workspace.champion_file) == said


@pytest.mark.parametrize("step", ["write_json_atomic", "symlink_atomic", "append_move"])
def test_move_broken_off_at_any_step_is_healed(
    workspace: Workspace, three: list[str], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    point_champion(workspace, three[0], "first")
    calls = 0

    def break_off(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if step == "write_json_atomic" and calls == 1:
            original(*arguments)  # the intent; the second is champion.json
            return
        raise KeyboardInterrupt

    original = getattr(releases, step)
    monkeypatch.setattr(releases, step, break_off)
    with pytest.raises(KeyboardInterrupt):
        point_champion(workspace, three[1], "second")
    monkeypatch.undo()
    champion = current_champion(workspace)
    assert champion is not None
    swapped = step != "symlink_atomic"
    assert champion.release_id == three[1 if swapped else 0]
    assert read_json(workspace.champion_file) == champion.as_champion()
    assert champion_history(workspace)[-1].to_release == champion.release_id
    assert not (workspace.models / ".champion_intent.json").exists()


_SWAPPER = """
import itertools, sys
from pathlib import Path
from product_classifier.core.releases import point_champion
from product_classifier.core.workspace import Workspace

workspace = Workspace(Path(sys.argv[1]))
for count in itertools.count():
    point_champion(workspace, sys.argv[2 + count % 3], f"swap {count}")
    print(count, flush=True)
"""


def test_forty_kills_leave_no_broken_or_mixed_champion(
    workspace: Workspace, three: list[str]
) -> None:
    point_champion(workspace, three[0], "first")
    for kill in range(40):
        process = subprocess.Popen(
            [sys.executable, "-c", _SWAPPER, str(workspace.root), *three], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        with process.stdout:
            for _ in range(3):
                process.stdout.readline()
            # Readers that know nothing of healing see one whole release.
            for _ in range(1 + kill % 8):
                load_bundle(workspace.champion)
            process.kill()
            process.wait()
        bundle = load_bundle(workspace.champion)
        champion = current_champion(workspace)
        assert champion is not None
        assert champion.release_id == bundle.bundle_id
        assert read_json(workspace.champion_file) == champion.as_champion()
        history = champion_history(workspace)
        assert history[-1].to_release == champion.release_id
        chain = zip(history, history[1:], strict=False)
        assert all(before.to_release == after.from_release for before, after in chain)
    assert len(champion_history(workspace)) > 80
