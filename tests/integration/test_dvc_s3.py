"""Recording and restoring against a server that speaks the S3 protocol."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from product_classifier.core.errors import VersioningError
from product_classifier.core.settings import Settings
from product_classifier.versioning import remote as remote_module
from unit.versioning.project import Project
from unused_ports import free_port

BUCKET = "dvc"
POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}


class Server:
    """A running S3 server with one bucket and one user."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.post("reset-auth", b"Infinity")  # moto's state is the process's, not the server's
        self.post("reset", b"")
        iam = self.client("iam", "root", "root")
        iam.create_user(UserName="dvc")
        iam.put_user_policy(UserName="dvc", PolicyName="s3", PolicyDocument=json.dumps(POLICY))
        pair = iam.create_access_key(UserName="dvc")["AccessKey"]
        self.key, self.secret = pair["AccessKeyId"], pair["SecretAccessKey"]
        self.s3 = self.client("s3", self.key, self.secret)
        self.s3.create_bucket(Bucket=BUCKET)

    def client(self, service: str, key: str, secret: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key=secret,
        )

    def demand_keys(self) -> None:
        self.post("reset-auth", b"0")

    def post(self, action: str, body: bytes) -> None:
        headers = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{self.url}/moto-api/{action}", body, headers)
        urllib.request.urlopen(request, timeout=60).read()

    def names(self) -> set[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return {item["Key"] for page in pages for item in page.get("Contents", [])}

    def settings(self, **changes: str) -> dict[str, str]:
        return {
            "dvc_remote_url": f"s3://{BUCKET}/project",
            "dvc_s3_endpoint_url": self.url,
            "aws_access_key_id": self.key,
            "aws_secret_access_key": self.secret,
            **changes,
        }


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield Server(f"http://{host}:{port}")
    finally:
        server.stop()


MakeProject = Callable[..., Project]


@pytest.fixture
def make_project(tmp_path: Path, make_bundle: Callable[..., Path]) -> MakeProject:
    def make(name: str, settings: dict[str, str]) -> Project:
        return Project(tmp_path / name, make_bundle, **settings)

    return make


def test_an_empty_clone_gets_everything_back(server: Server, make_project: MakeProject) -> None:
    server.demand_keys()
    project = make_project("a project", server.settings())
    run_id = project.run_all()
    config = (project.root / ".dvc" / "config").read_text()
    assert server.secret not in config
    assert not (project.root / "dvc-remote").exists()
    clone = make_project("clone", server.settings())
    assert clone.restore(None).entry.run_id == run_id
    assert clone.outputs() == project.outputs()
    report = clone.verify(with_remote=True)
    assert report.is_sound
    assert report.served.startswith("YES")


def test_an_object_missing_on_s3_is_found_and_sent_again(
    server: Server, make_project: MakeProject
) -> None:
    project = make_project("project", server.settings())
    project.ingest()
    project.version("ingest")
    names = server.names()
    victims = [n for n in sorted(names) if "/files/md5/" in n and not n.endswith(".dir")][:2]
    for victim in victims:
        server.s3.delete_object(Bucket=BUCKET, Key=victim)
    assert len(project.version("ingest").repaired) == 2
    assert server.names() == names


def test_a_damaged_object_on_s3_is_found(server: Server, make_project: MakeProject) -> None:
    project = make_project("project", server.settings())
    project.ingest()
    project.version("ingest")
    victim = next(n for n in sorted(server.names()) if n.endswith(".dir"))
    server.s3.put_object(Bucket=BUCKET, Key=victim, Body=b"[]")
    report = project.verify(with_remote=True)
    assert not report.is_sound
    assert any("content has the hash" in line for line in report.lines())


def test_wrong_keys_are_refused_with_a_clear_message(
    server: Server, make_project: MakeProject
) -> None:
    server.demand_keys()
    wrong = server.settings(aws_secret_access_key="wrong-secret")
    project = make_project("project", wrong)
    project.ingest()
    started = time.monotonic()
    with pytest.raises(VersioningError, match=r"s3://dvc/project at http.*PermissionError") as e:
        project.version("ingest")
    assert time.monotonic() - started < 60  # refusals are not tried again until a limit is over
    assert "wrong-secret" not in str(e.value)
    assert (project.root / "dvc.lock").exists()
    values = project.settings.model_dump() | server.settings()
    project.settings = Settings(_env_file=None, **values)  # type: ignore[call-arg]
    assert project.version("ingest").objects > 8


def test_a_missing_bucket_is_named(server: Server, make_project: MakeProject) -> None:
    project = make_project("project", server.settings(dvc_remote_url="s3://absent/project"))
    project.ingest()
    with pytest.raises(VersioningError, match="absent"):
        project.version("ingest")


def test_a_server_that_is_down_costs_seconds(server: Server, make_project: MakeProject) -> None:
    down = server.settings(dvc_s3_endpoint_url=f"http://127.0.0.1:{free_port()}")
    project = make_project("project", down)
    project.ingest()
    started = time.monotonic()
    with pytest.raises(VersioningError, match="local commit of ingest is kept"):
        project.version("ingest")
    assert time.monotonic() - started < remote_module.ANSWER_TIMEOUT_SECONDS + 60


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]


def record_in_a_process(
    project: Project, values: dict[str, str], answer_seconds: float
) -> subprocess.CompletedProcess[str]:
    program = (
        "import product_classifier.cli as cli; cli._COMMANDS = ('versioning',);"
        "import product_classifier.versioning.remote as remote;"
        f"remote.ANSWER_TIMEOUT_SECONDS = {answer_seconds}; cli.main()"
    )
    return subprocess.run(
        [sys.executable, "-c", program, "version", "ingest"],
        cwd=project.root,
        env=os.environ | {name.upper(): value for name, value in values.items()},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_a_silent_server_is_given_up_and_the_process_ends(
    server: Server, make_project: MakeProject, silent_port: int
) -> None:
    project = make_project("project", {})
    project.ingest()
    values = server.settings(dvc_s3_endpoint_url=f"http://127.0.0.1:{silent_port}")
    started = time.monotonic()
    done = record_in_a_process(project, values, answer_seconds=2.0)
    assert time.monotonic() - started < 120
    assert done.returncode == 1, done.stderr
    assert "took longer than 2 s" in done.stdout
    assert server.secret not in done.stdout + done.stderr


def test_a_transfer_has_a_total_time_limit(
    server: Server, make_project: MakeProject, silent_port: int
) -> None:
    project = make_project("project", {})
    project.ingest()
    silent = f"http://127.0.0.1:{silent_port}"
    values = server.settings(dvc_s3_endpoint_url=silent, dvc_timeout_seconds="1")
    done = record_in_a_process(project, values, answer_seconds=45.0)
    assert done.returncode == 1, done.stderr
    assert "Sending ingest to the DVC remote took longer than 1 s" in done.stdout
    assert "local commit of ingest is kept" in done.stdout
    assert (project.root / "dvc.lock").exists()
