"""What is in our images and what is not, who runs in them, how large they are, and what a rebuild costs."""

import json
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from docker_program import ROOT, docker
from product_classifier.runtime.images import IMAGES, SOURCES, build_images

STAGES = ("ingest", "train", "predict", "auth", "serve")
BASE = "python:3.13-slim-trixie"
MEGABYTE = 1_000_000
LIMITS = {"auth": 120 * MEGABYTE, "serve": 500 * MEGABYTE, "predict": 500 * MEGABYTE}
# As the pipeline starts them: nothing that a stage does not need.
HARDENED = (
    *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges", "--network", "none"),
)
HEALTHY_SECONDS = 240  # MLflow on a busy machine

StartContainer = Callable[..., str]
Say = Callable[[str], None]


def run_python(image: str, code: str) -> str:
    return docker("run", "--rm", *HARDENED, "--entrypoint", "python", image, "-c", code)


def inspect(image: str) -> dict:
    return json.loads(docker("image", "inspect", image))[0]


def wait_for_health(container: str) -> str:
    deadline = time.monotonic() + HEALTHY_SECONDS
    while time.monotonic() < deadline:
        health = docker(
            "inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}", container
        )
        if health != "running starting":
            return health
        time.sleep(0.5)
    return "still starting"


@pytest.fixture
def start() -> Iterator[StartContainer]:
    """Starts containers in the background, and removes them after the test."""
    started: list[str] = []

    def run(*arguments: str) -> str:
        started.append(docker("run", "--detach", *HARDENED, *arguments))
        return started[-1]

    yield run
    for container in started:
        docker("rm", "--force", "--volumes", container, check=False)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Shows a figure of a test that passes."""

    def write(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{text}\n")

    return write


@pytest.fixture
def volume() -> Iterator[str]:
    """A volume; a test asks for it before `start`, so that its containers are gone when it is removed."""
    name = docker("volume", "create", f"images-test-{uuid.uuid4().hex[:8]}")
    yield name
    docker("volume", "rm", name)


@pytest.mark.parametrize("user", [None, "12345:12345"], ids=["own-user", "any-user"])
@pytest.mark.parametrize("stage", STAGES)
def test_stage_image_shows_the_stages_help(images: dict[str, str], stage: str, user: str | None):
    options = ["--user", user] if user else []
    text = docker("run", "--rm", *HARDENED, *options, images[stage], "--help")
    assert f"Usage: product-classifier {stage} " in text


@pytest.mark.parametrize(
    ("stage", "command"),
    [
        ("ingest", "check"),
        ("ingest", "params"),
        ("train", "gate"),
        ("train", "version"),
        ("predict", "version"),
        ("serve", "smoke"),
    ],
)
def test_stage_image_takes_other_commands(images: dict[str, str], stage: str, command: str):
    text = docker("run", "--rm", *HARDENED, images[stage], command, "--help")
    assert f"Usage: product-classifier {command} " in text


@pytest.mark.parametrize(
    ("stage", "modules"),
    [
        ("ingest", "ingest.ingest versioning.repository versioning.check"),
        ("train", "train.train gate.gate versioning.repository versioning.lineage tracking.upload"),
        ("predict", "predict.predict versioning.repository"),
        ("auth", "auth.app web.server"),
        ("serve", "serve.app web.server runtime.smoke"),
    ],
)
def test_stage_image_has_all_that_its_commands_import(
    images: dict[str, str], stage: str, modules: str
):
    imports = "; ".join(f"import product_classifier.{name}" for name in modules.split())
    assert run_python(images[stage], f"{imports}; print('done')").endswith("done")


def test_airflow_image_parses_the_dag_as_any_user_of_its_group(images: dict[str, str]):
    code = (
        "import sys; sys.path.insert(0, '/opt/airflow/dags');"
        "from airflow.dag_processing.dagbag import DagBag; bag = DagBag('/opt/airflow/dags');"
        "print(sorted(bag.dags), bag.import_errors)"
    )
    options = ["--user", "12345:0", "--env", "AIRFLOW_HOME=/tmp/airflow"]
    options += ["--env", "PIPELINE_RUNTIME=docker", "--entrypoint", "python"]
    text = docker("run", "--rm", *HARDENED, *options, images["airflow"], "-W", "ignore", "-c", code)
    assert text.splitlines()[-1] == "['ml_pipeline'] {}"


def test_mlflow_image_has_the_drivers_for_postgres_and_s3(images: dict[str, str]):
    code = "import mlflow, boto3, sqlalchemy as s; s.create_engine('postgresql+psycopg://h/d'); print('done')"
    assert run_python(images["mlflow"], code).endswith("done")


# The proxy's user owns the engine's socket; it too has no capability as the stack starts it.
@pytest.mark.parametrize("name", [name for name in IMAGES if name != "socket-proxy"])
def test_image_has_a_user_without_capabilities(images: dict[str, str], name: str):
    assert inspect(images[name])["Config"]["User"] not in ("", "0", "root")
    status = docker("run", "--rm", "--entrypoint", "cat", images[name], "/proc/self/status")
    assert re.search(r"^Uid:\s+[1-9]", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^CapPrm:\s+0+$", status, re.MULTILINE)


@pytest.mark.parametrize("name", IMAGES)
def test_image_adds_no_program_that_changes_the_user(images: dict[str, str], name: str):
    command = ["/", "-xdev", "-type", "f", "-perm", "/6000"]
    base = [BASE, *command]
    found = docker("run", "--rm", "--user", "0", "--entrypoint", "find", images[name], *command)
    assert set(found.splitlines()) <= set(
        docker("run", "--rm", "--entrypoint", "find", *base).splitlines()
    )


@pytest.mark.parametrize("name", IMAGES)
def test_image_keeps_no_secret_and_no_tool_of_its_build(images: dict[str, str], name: str):
    configuration = inspect(images[name])["Config"]
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", images[name])
    inherited = {entry.split("=")[0] for entry in inspect(BASE)["Config"]["Env"]}
    variables = " ".join({entry.split("=")[0] for entry in configuration["Env"]} - inherited)
    assert not re.search(r"PASSWORD|SECRET|TOKEN|_KEY\b|INDEX_URL", variables)
    assert not re.search(r"(PASSWORD|SECRET|TOKEN|INDEX_URL)\w*=\S", history)
    names = [
        "(",
        "-name",
        ".env",
        "-o",
        "-name",
        ".git",
        "-o",
        "-name",
        "uv",
        "-o",
        "-name",
        "*.pem",
    ]
    command = ["find", images[name], "/opt", "/workspace", "/root", "/tmp", *names, ")"]
    found = docker("run", "--rm", "--user", "0", "--entrypoint", *command, check=False)
    # Lists of authorities, of certifi, botocore and grpc: public.
    public = ("/cacert.pem", "/roots.pem")
    assert [path for path in found.splitlines() if not path.endswith(public)] == []


def test_build_context_takes_nothing_private(tmp_path: Path, engine: str):
    """The real .dockerignore over a tree that has everything a checkout may have."""
    private = (
        *(".env", ".git/config", ".state/airflow/passwords", "data/raw/X.csv", "models/champion/m"),
        *("src/__pycache__/a.pyc", "airflow/.venv/bin/python", "tests/unit/t.py", "key.pem"),
        *("airflow/dags/__pycache__/d.pyc", ".venv/bin/python", "runs/1/r.json", "dvc-remote/f"),
    )
    for name in (*private, "src/a.py", "Dockerfile", "airflow/dags/d.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("private")
    shutil.copy(ROOT / ".dockerignore", tmp_path)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    docker(
        "buildx",
        "build",
        "--quiet",
        "--output",
        f"type=local,dest={tmp_path / 'out'}",
        str(tmp_path),
    )
    out = tmp_path / "out"
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert {"src/a.py", "airflow/dags/d.py"} <= found
    assert found.isdisjoint(private)


@pytest.mark.parametrize("stage", ["ingest", "predict", "auth", "serve"])
def test_only_train_carries_tensorflow(images: dict[str, str], stage: str):
    unwanted = ["tensorflow", "keras", "nncf", "mlflow", "sklearn", "pytest"]
    if stage == "auth":
        unwanted += ["numpy", "openvino", "PIL", "dvc"]
    if stage == "serve":
        unwanted += ["dvc", "boto3", "supervisor"]
    code = f"import importlib.util as u; print([n for n in {unwanted} if u.find_spec(n)])"
    assert run_python(images[stage], code) == "[]"
    assert (
        run_python(images["train"], "import importlib.util as u; print(bool(u.find_spec('keras')))")
        == "True"
    )


@pytest.mark.parametrize("name", IMAGES)
def test_labels_say_what_an_image_was_made_from(images: dict[str, str], name: str, commit: str):
    labels = inspect(images[name])["Config"]["Labels"]
    found = {key.removeprefix("org.opencontainers.image."): value for key, value in labels.items()}
    assert found["title"] == f"product-classifier/{name}"
    assert found["revision"] == commit
    assert found["version"] == images[name].rpartition(":")[2]
    assert found["licenses"] == "MIT"


@pytest.mark.parametrize("name", ["auth", "serve", "mlflow"])
def test_service_has_a_health_check(images: dict[str, str], name: str):
    assert inspect(images[name])["Config"]["Healthcheck"]["Test"][0] == "CMD"


def test_auth_becomes_healthy_and_its_keys_outlive_the_container(
    images: dict[str, str], volume: str, start: StartContainer
):
    options = ["--env", "ADMIN_PASSWORD=correct-horse-1", "--volume", f"{volume}:/var/lib/auth"]
    ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8011/.well-known/jwks.json').read())"
    keys = []
    for _ in range(2):
        container = start(*options, images["auth"])
        assert wait_for_health(container) == "running healthy", docker("logs", container)
        keys.append(docker("exec", container, "python", "-c", ask))
        docker("stop", "--time", "40", container)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "0"
    assert "kid" in keys[0]
    assert keys[0] == keys[1]


def test_serve_without_a_model_is_alive_and_not_healthy(
    images: dict[str, str], start: StartContainer
):
    container = start("--health-start-period", "1s", "--health-interval", "1s", images["serve"])
    assert wait_for_health(container) == "running unhealthy", docker("logs", container)


def test_mlflow_becomes_healthy(images: dict[str, str], start: StartContainer):
    store = ["--env", "MLFLOW_BACKEND_STORE_URI=sqlite:////tmp/mlflow.db"]
    container = start(
        *store, "--env", "MLFLOW_ARTIFACTS_DESTINATION=/tmp/artifacts", images["mlflow"]
    )
    assert wait_for_health(container) == "running healthy", docker("logs", container)


@pytest.mark.parametrize("name", LIMITS)
def test_image_is_small_above_its_base(images: dict[str, str], name: str, say: Say):
    above = inspect(images[name])["Size"] - inspect(BASE)["Size"]
    say(f"{name}: {above / MEGABYTE:.0f} MB above the base image")
    assert above <= LIMITS[name]


@pytest.mark.parametrize("name", [*STAGES, "airflow", "mlflow"])
def test_bytecode_is_compiled(images: dict[str, str], name: str):
    """A read-only root can't keep what Python compiles: it would be compiled at every start."""
    code = (
        "import importlib.util as u, pathlib as p, sys;"
        "files = [f for f in p.Path('/opt').rglob('*.py') if f.parent.name != 'opt'"
        " and not f.is_relative_to('/opt/airflow')];"
        "bare = [f for f in files if not p.Path(u.cache_from_source(str(f))).exists()];"
        "print(len(files), len(bare), sum('product_classifier' in f.parts for f in bare), bare[:5])"
    )
    files, bare, ours, _examples = run_python(images[name], code).split(maxsplit=3)
    assert int(files) > 500
    assert (
        int(bare) <= int(files) * 0.01
    )  # files that are no valid Python: templates, tests of parsers
    assert int(ours) == 0


def test_a_change_of_our_code_makes_one_small_layer(
    images: dict[str, str], tmp_path: Path, say: Say
):
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-c", "-o", "--exclude-standard", "--", *SOURCES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    prefix = f"images-test-{uuid.uuid4().hex[:8]}"
    try:
        build_images(tmp_path, prefix, "before")
        with (tmp_path / "src" / "product_classifier" / "__init__.py").open("a") as code:
            code.write(f"# {prefix}\n")
        started = time.monotonic()
        build_images(tmp_path, prefix, "after")
        say(f"rebuilt after a source change in {time.monotonic() - started:.1f} s")
        for stage in STAGES:
            layers = [
                inspect(f"{prefix}/{stage}:{tag}")["RootFS"]["Layers"]
                for tag in ("before", "after")
            ]
            assert layers[0][:-1] == layers[1][:-1]
            assert layers[0][-1] != layers[1][-1]
    finally:
        made = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"{prefix}/*")
        docker("image", "rm", *made.split(), check=False)
