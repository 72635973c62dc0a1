"""The images that stand in for others' behave as those do, as far as docker-compose.yml relies on it."""

import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from docker_program import ROOT, docker

PASSWORD = "p-3f9c17ab"
HARDENED = (
    "--read-only",
    "--tmpfs",
    "/tmp",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
)
READY_SECONDS = 60

StartContainer = Callable[..., str]


def wait_until(container: str, *command: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        state = docker("inspect", "--format", "{{.State.Running}}", container)
        assert state == "true", docker("logs", container)
        done = docker(
            "exec", container, "sh", "-c", f"{' '.join(command)} && echo ready", check=False
        )
        if done.endswith("ready"):
            return
        time.sleep(0.3)
    pytest.fail(f"Not ready in {READY_SECONDS} s: {docker('logs', container)}")


@pytest.fixture
def start() -> Iterator[StartContainer]:
    started: list[str] = []

    def run(*arguments: str) -> str:
        started.append(docker("run", "--detach", *HARDENED, *arguments))
        return started[-1]

    yield run
    for container in started:
        docker("rm", "--force", "--volumes", container, check=False)


@pytest.fixture
def volume() -> Iterator[str]:
    """A volume; a test asks for it before `start`, so that its containers are gone when it is removed."""
    name = docker("volume", "create", f"standins-test-{uuid.uuid4().hex[:8]}")
    yield name
    docker("volume", "rm", name)


def test_postgres_runs_its_scripts_once_and_asks_for_passwords(
    images: dict[str, str], volume: str, start: StartContainer
):
    options = ["--tmpfs", "/var/run/postgresql:mode=1777"]
    options += ["--env", "PGDATA=/var/lib/postgresql/data/pgdata"]
    options += ["--env", "POSTGRES_INITDB_ARGS=--encoding=UTF8 --auth-host=scram-sha-256"]
    for name in ("POSTGRES", "AIRFLOW_DB", "MLFLOW_DB", "AUTH_DB"):
        options += ["--env", f"{name}_PASSWORD={PASSWORD}"]
    options += ["--volume", f"{volume}:/var/lib/postgresql/data"]
    options += ["--volume", f"{ROOT}/containers/postgres:/docker-entrypoint-initdb.d:ro"]
    ask = "psql --no-psqlrc --tuples-only --no-align postgresql://auth:{}@127.0.0.1/auth -c '{}'"
    first = start(*options, images["standin/postgres"])
    wait_until(first, "pg_isready", "--quiet", "--host=127.0.0.1", "--username=postgres")
    docker("exec", first, "sh", "-c", ask.format(PASSWORD, "CREATE TABLE kept AS SELECT 42 AS n"))
    assert docker("exec", first, "sh", "-c", ask.format("wrong", "SELECT 1"), check=False) == ""
    docker("stop", first)
    second = start(*options, images["standin/postgres"])
    wait_until(second, "pg_isready", "--quiet", "--host=127.0.0.1", "--username=postgres")
    assert docker("exec", second, "sh", "-c", ask.format(PASSWORD, "SELECT n FROM kept")) == "42"
    assert (
        docker("exec", second, "sh", "-c", ask.format(PASSWORD, "SHOW server_encoding")) == "UTF8"
    )


def test_redis_takes_its_configuration_and_keeps_its_data(
    images: dict[str, str], volume: str, start: StartContainer
):
    configuration = f"requirepass {PASSWORD}\\ndir /data\\nappendonly yes\\n"
    command = ["sh", "-c", f"printf '{configuration}' | redis-server -"]
    options = [
        "--user",
        "redis",
        "--volume",
        f"{volume}:/data",
        "--env",
        f"REDISCLI_AUTH={PASSWORD}",
    ]
    first = start(*options, images["standin/redis"], *command)
    wait_until(first, "redis-cli ping | grep -q PONG")
    assert docker("exec", first, "redis-cli", "set", "kept", "42") == "OK"
    refused = docker(
        "exec", "--env", "REDISCLI_AUTH=wrong", first, "redis-cli", "get", "kept", check=False
    )
    assert "42" not in refused
    docker("rm", "--force", first)
    second = start(*options, images["standin/redis"], *command)
    wait_until(second, "redis-cli ping | grep -q PONG")
    assert docker("exec", second, "redis-cli", "get", "kept") == "42"


def test_haproxy_takes_the_gateways_configuration(images: dict[str, str]):
    path = "/usr/local/etc/haproxy/haproxy.cfg"
    mount = f"{ROOT}/containers/gateway/haproxy.cfg:{path}:ro"
    docker(
        "run",
        "--rm",
        *HARDENED,
        "--volume",
        mount,
        images["standin/haproxy"],
        "haproxy",
        "-c",
        "-f",
        path,
    )


def test_s3_takes_its_keys_alone_and_keeps_its_objects(
    images: dict[str, str], volume: str, start: StartContainer
):
    options = ["--volume", f"{volume}:/data", "--env", "AWS_ACCESS_KEY_ID=key"]
    options += ["--env", f"AWS_SECRET_ACCESS_KEY={PASSWORD}"]
    client = (
        "import boto3, sys; from botocore.config import Config;"
        "s3 = boto3.client('s3', endpoint_url='http://127.0.0.1:8333', aws_access_key_id='key',"
        "aws_secret_access_key=sys.argv[1], region_name='us-east-1', config=Config(retries={'total_max_attempts': 1}));"
    )
    write = "s3.create_bucket(Bucket='dvc'); s3.put_object(Bucket='dvc', Key='a/b', Body=b'42'); print('written')"
    read = "print(s3.get_object(Bucket='dvc', Key='a/b')['Body'].read().decode())"

    def ask(container: str, code: str, secret: str = PASSWORD, *, check: bool = True) -> str:
        network = ["--network", f"container:{container}", "--entrypoint", "python"]
        return docker(
            "run", "--rm", *network, images["ingest"], "-c", client + code, secret, check=check
        )

    first = start(*options, images["standin/s3"])
    wait_until(first, "python", "-I", "-S", "/opt/healthcheck.py", "S3_PORT", "8333", "/")
    assert ask(first, write) == "written"
    assert ask(first, read, "wrong", check=False) == ""
    docker("stop", first)
    docker("rm", first)
    second = start(*options, images["standin/s3"])
    wait_until(second, "python", "-I", "-S", "/opt/healthcheck.py", "S3_PORT", "8333", "/")
    assert ask(second, read) == "42"
