"""The product and the commands that `start` prints, run by a shell."""

import csv
import shlex
import subprocess

import pytest
from pydantic import SecretStr

from product_classifier.core.errors import ProductClassifierError
from product_classifier.core.files import write_json_atomic
from product_classifier.core.workspace import Workspace
from product_classifier.features.photos import write_shard
from product_classifier.runtime.example import choose_example, example_commands

PHOTO = b"\xff\xd8 the photo"
ROWS = {
    0: ("seen by training", "text", 1),
    1: ("no photo", "text", 2),
    2: ("no description", "", 3),
    3: ('it\'s "a" $(product) @ <b>été</b>; type=x', "text", 4),
    4: ("later", "text", 5),
}


@pytest.fixture
def catalogue(layout):
    """A catalogue in the checkout: the test split is rows 1 to 4."""
    workspace = Workspace(layout.root)
    workspace.raw.mkdir(parents=True)
    for name, rows in (("X_train_update.csv", ROWS), ("X_test_update.csv", {9: ("new", "", 9)})):
        with (workspace.raw / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["", "designation", "description", "productid", "imageid"])
            for row, (title, description, number) in rows.items():
                writer.writerow([row, title, description, number, number])
    write_json_atomic(workspace.raw / "splits.json", {"train": [0], "test": [4, 3, 2, 1]})
    photos = {f"image_{n}_product_{n}.jpg": PHOTO for n in (1, 3, 4, 5)}
    write_shard(workspace.raw / "shard-000.zip", photos)
    return workspace


def test_the_example_is_the_first_complete_product_that_training_never_saw(catalogue):
    example = choose_example(catalogue)
    assert (example.product.row, example.photo) == (3, PHOTO)
    assert choose_example(catalogue) == example


def test_without_photos_it_is_a_text(catalogue):
    (catalogue.raw / "shard-000.zip").unlink()
    example = choose_example(catalogue)
    assert (example.product.row, example.photo) == (1, None)


def test_without_a_split_it_is_an_unlabelled_product(catalogue):
    (catalogue.raw / "splits.json").unlink()
    assert choose_example(catalogue).product.row == 9


def test_without_a_catalogue_it_says_so(tmp_path):
    with pytest.raises(ProductClassifierError):
        choose_example(Workspace(tmp_path))


# Stands where curl is: says what it was called with and what came over standard input.
CURL = """#!/bin/sh
{ for argument; do printf '[%s]' "$argument"; done; printf ' <- '; cat; echo; } >> "$CALLS"
echo '{"access_token": "the-token"}'
"""


def run_commands(layout, tmp_path, commands, **environment):
    binaries = tmp_path / "bin"
    binaries.mkdir(exist_ok=True)
    (binaries / "curl").write_text(CURL)
    (binaries / "curl").chmod(0o755)
    calls = tmp_path / "calls"
    done = subprocess.run(
        ["bash", "-c", "\n".join(commands)],
        cwd=layout.root,
        env={"PATH": f"{binaries}:/usr/bin:/bin", "CALLS": str(calls), **environment},
        input="typed password\n",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [line for line in calls.read_text().splitlines() if line]


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ("ADMIN_PASSWORD=plain-1\n", "plain-1"),
        ("ADMIN_PASSWORD=\nADMIN_PASSWORD=old\nX=1\nADMIN_PASSWORD=the&la$t\n", "the&la$t"),
        ("ADMIN_PASSWORD='quoted one'\n", "typed password"),
        ("", "typed password"),
    ],
    ids=["plain", "the last line wins", "quoted", "not there"],
)
def test_the_commands_work_and_show_no_secret_on_a_command_line(
    layout, settings, catalogue, tmp_path, env, expected
):
    layout.dotenv.write_text(env)
    kept = SecretStr({"typed password": "quoted one"}.get(expected, expected))
    chosen = settings.model_copy(update={"admin_password": kept, "serve_port": 8123})
    commands = example_commands(layout, chosen, catalogue, exported=False)
    token, predict = run_commands(layout, tmp_path, commands)
    assert token.startswith("[-s][http://localhost:8123/token]")
    assert token.endswith(f" <- {expected}")
    assert predict.endswith(" <- Authorization: Bearer the-token")
    assert f"[designation={ROWS[3][0]}]" in predict
    assert "[image=@.state/example/photo.jpg]" in predict
    assert (layout.example / "photo.jpg").read_bytes() == PHOTO
    for call in (token, predict):
        arguments = call.split(" <- ")[0]
        assert expected not in arguments
        assert "the-token" not in arguments
    assert not any(kept.get_secret_value() in command for command in commands)


def test_a_password_of_the_environment_is_taken_from_there(layout, settings, catalogue, tmp_path):
    layout.dotenv.write_text("ADMIN_PASSWORD=another\n")
    commands = example_commands(layout, settings, catalogue, exported=True)
    token, _ = run_commands(layout, tmp_path, commands, ADMIN_PASSWORD="exported one")
    assert token.endswith(" <- exported one")


def test_the_administrators_name_is_quoted(layout, settings, catalogue, tmp_path):
    layout.dotenv.write_text("ADMIN_PASSWORD=x\n")
    chosen = settings.model_copy(
        update={"admin_user": "o'neil & co", "admin_password": SecretStr("x")}
    )
    commands = example_commands(layout, chosen, catalogue, exported=False)
    assert shlex.quote("username=o'neil & co") in commands[0]
    token, _ = run_commands(layout, tmp_path, commands)
    assert "[username=o'neil & co]" in token
