from pathlib import Path

from product_classifier.core.releases import point_champion, publish_release
from product_classifier.versioning.params_file import set_params
from unit.versioning.project import Project


def damage(path: Path) -> None:
    path.chmod(0o644)
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


def problems(project: Project, **options: bool) -> str:
    report = project.verify(**options)
    assert not report.is_sound
    return "\n".join(report.lines())


def test_all_is_well(recorded: Project) -> None:
    report = recorded.verify(with_remote=True)
    assert report.is_sound
    assert report.served.startswith("YES: what is served is what was trained")
    assert all(check.checked for check in report.checks)


def test_nothing_recorded_yet_is_no_fault(project: Project) -> None:
    report = project.verify()
    assert report.is_sound
    assert report.served == "Nothing is served yet: there is no champion."


def test_a_changed_file_of_the_champion_is_named(recorded: Project) -> None:
    # A release is made of hard links: damage only the champion's own name.
    file = recorded.workspace.champion.resolve() / "inference" / "text.xml"
    content = file.read_bytes()
    file.parent.chmod(0o755)
    file.unlink()
    file.write_bytes(b"x" + content[1:])
    text = problems(recorded)
    assert "inference/text.xml has sha256" in text
    assert "NO: release" in text


def test_a_champion_file_that_says_something_else_is_named(recorded: Project) -> None:
    recorded.workspace.champion_file.write_text('{"release": "other"}')
    assert "champion.json says release 'other'" in problems(recorded)


def test_changed_missing_and_additional_files_of_an_output_are_named(recorded: Project) -> None:
    raw = recorded.workspace.raw
    damage(raw / "X_train_update.csv")
    (raw / "photos" / "shard-00.zip").unlink()
    (raw / "stray.csv").write_text("x")
    text = problems(recorded)
    assert "data/raw/X_train_update.csv differs" in text
    assert "data/raw/photos/shard-00.zip is missing" in text
    assert "data/raw/stray.csv is not recorded" in text


def test_a_damaged_cache_object_is_named(recorded: Project) -> None:
    victim = next(iter((recorded.root / ".dvc/cache/files/md5").glob("??/*")))
    damage(victim)
    assert f"object {victim.parent.name}{victim.name} is damaged" in problems(recorded)


def test_a_damaged_remote_object_is_found_by_reading_it_back(recorded: Project) -> None:
    victim = sorted((recorded.remote / "files/md5").glob("??/*"))[2]
    damage(victim)
    recorded.version("ingest")  # DVC and a look at names notice nothing
    assert recorded.verify().is_sound
    text = problems(recorded, with_remote=True)
    assert f"object {victim.parent.name}{victim.name}: content has the hash" in text


def test_a_missing_remote_object_is_named(recorded: Project) -> None:
    victim = sorted((recorded.remote / "files/md5").glob("??/*"))[2]
    victim.unlink()
    assert f"object {victim.parent.name}{victim.name}: is missing" in problems(
        recorded, with_remote=True
    )


def test_a_champion_of_an_earlier_training_is_what_that_one_trained(recorded: Project) -> None:
    first = recorded.workspace.champion.resolve().name
    set_params(recorded.workspace.params, {"train.text.epochs": 7})
    recorded.train()
    recorded.version("train")
    report = recorded.verify()
    assert report.is_sound
    assert f"release {first}, made by training" in report.served


def test_a_champion_that_nobody_trained_is_said_to_be_unknown(recorded: Project) -> None:
    recorded.make_bundle(recorded.root / "imported", "by hand")
    release = publish_release(recorded.workspace, recorded.root / "imported")
    point_champion(recorded.workspace, release.release_id, "imported")
    served = recorded.verify().served
    assert f"can't be told which training made release {release.release_id}" in served
