"""Names of the container images, what a tag follows, and what a stage's image makes of its arguments."""

import re
import subprocess
from pathlib import Path

import pytest

from product_classifier.cli import stage_arguments
from product_classifier.core.errors import ConfigurationError
from product_classifier.runtime import images
from product_classifier.runtime.bootstrap import UV_VERSION
from product_classifier.runtime.images import IMAGES, build_images, image_name, image_tag

ROOT = Path(__file__).resolve().parents[3]
STAGES = ("ingest", "train", "predict", "auth", "serve")


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@localhost"]
    command = ["git", *identity, "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "work space"
    (root / "src" / "product_classifier").mkdir(parents=True)
    (root / "Dockerfile").write_text("FROM scratch\n")
    (root / "src" / "product_classifier" / "code.py").write_text("A = 1\n")
    (root / "params.yaml").write_text("train: {}\n")
    (root / ".gitignore").write_text("__pycache__/\n")
    git(tmp_path, "init", "--quiet", str(root))
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "First")
    return root


def test_clean_checkout_is_tagged_with_its_commit(checkout: Path) -> None:
    assert image_tag(checkout) == git(checkout, "rev-parse", "HEAD")[:12]


def test_images_for_a_gpu_have_a_tag_of_their_own(checkout: Path) -> None:
    assert image_tag(checkout, gpu=True) == image_tag(checkout) + "-gpu"
    (checkout / "Dockerfile").write_text("FROM python\n")
    assert image_tag(checkout, gpu=True) == image_tag(checkout) + "-gpu"


def test_what_is_in_no_image_does_not_change_the_tag(checkout: Path) -> None:
    before = image_tag(checkout)
    (checkout / "params.yaml").write_text("train: {epochs: 2}\n")
    (checkout / "src" / "__pycache__").mkdir()
    (checkout / "src" / "__pycache__" / "code.pyc").write_bytes(b"0")
    assert image_tag(checkout) == before


def test_changed_source_is_tagged_with_its_hash(checkout: Path) -> None:
    code = checkout / "src" / "product_classifier" / "code.py"
    tags = [image_tag(checkout)]
    for text in ("A = 2\n", "A = 3\n"):
        code.write_text(text)
        tags.append(image_tag(checkout))
    code.unlink()
    tags.append(image_tag(checkout))
    (checkout / "src" / "new.py").write_text("")
    tags.append(image_tag(checkout))
    assert len(set(tags)) == 5
    assert all(re.fullmatch(tags[0] + "-dirty-[0-9a-f]{8}", tag) for tag in tags[1:])
    (checkout / "src" / "new.py").unlink()
    code.write_text("A = 1\n")
    assert image_tag(checkout) == tags[0]


def test_without_git_the_sources_name_themselves(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images.shutil, "which", lambda _name: None)
    tag = image_tag(checkout)
    assert re.fullmatch("source-[0-9a-f]{12}", tag)
    (checkout / "src" / "__pycache__").mkdir()
    (checkout / "src" / "__pycache__" / "code.pyc").write_bytes(b"0")
    assert image_tag(checkout) == tag
    (checkout / "src" / "new.py").write_text("")
    assert image_tag(checkout) != tag


def test_tag_is_one_that_docker_takes(checkout: Path) -> None:
    assert re.fullmatch(r"[\w][\w.-]{0,127}", image_tag(checkout))


def test_unknown_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Received: 'web'"):
        image_name("product-classifier", "web", "local")
    with pytest.raises(ConfigurationError, match="Received: 'web'"):
        build_images(tmp_path, "product-classifier", "local", ["auth", "web"])


def test_build_without_docker_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images.shutil, "which", lambda _name: None)
    with pytest.raises(ConfigurationError, match="Install Docker Engine with buildx"):
        build_images(tmp_path, "product-classifier", "local")


def test_every_image_is_in_the_bake_file() -> None:
    text = (ROOT / images.BAKE_FILE).read_text()
    targets = re.findall(r'^target "([a-z-]+)"', text, re.MULTILINE)
    assert targets == ["common", *IMAGES]
    for name in IMAGES:
        assert f'["${{IMAGE_PREFIX}}/{name}:${{IMAGE_TAG}}"]' in text


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_a_target_of_the_dockerfile(stage: str) -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(rf"^FROM \S+ AS {stage}$", text, re.MULTILINE)
    assert f"/requirements/{stage}.txt" in text


@pytest.mark.parametrize(
    "path", ["Dockerfile", "airflow/Dockerfile", "containers/mlflow/Dockerfile"]
)
def test_images_are_built_with_the_same_uv_as_the_environments(path: str) -> None:
    assert f"ARG UV_VERSION={UV_VERSION}\n" in (ROOT / path).read_text()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["train"]),
        (["--help"], ["train", "--help"]),
        (["check", "train"], ["check", "train"]),
        (["gate", "--force"], ["gate", "--force"]),
        (["--version"], ["--version"]),
    ],
    ids=["none", "option", "command", "command-with-option", "version"],
)
def test_options_alone_are_the_stages_in_its_image(
    arguments: list[str], expected: list[str]
) -> None:
    assert stage_arguments(arguments, "train") == expected


@pytest.mark.parametrize("arguments", [[], ["--help"], ["check", "train"]])
def test_arguments_stay_as_they_are_outside_an_image(arguments: list[str]) -> None:
    assert stage_arguments(arguments, None) == arguments
