"""`drift-report` as a user runs it: on a batch, and on what the real services were asked."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from product_classifier.core.catalogue import load_products
from product_classifier.core.files import read_json
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import TRAIN_FILE, Workspace
from product_classifier.features.photos import PhotoStore
from service_processes import (
    ADMIN,
    ADMIN_PASSWORD,
    USER,
    USER_PASSWORD,
    Services,
    prepare_workspace,
    running_services,
)

ASKED = 60


@pytest.fixture(scope="module")
def services(
    trained_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Services]:
    root = tmp_path_factory.mktemp("drift") / "work space"
    prepare_workspace(root, trained_workspace.candidate)
    with running_services(root) as services:
        yield services


def report(root: Path, *options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    taken = {name.upper() for name in Settings.model_fields}
    inherited = {name: value for name, value in os.environ.items() if name not in taken}
    return subprocess.run(
        [sys.executable, "-m", "product_classifier", "drift-report", *options],
        cwd=root,
        env={**inherited, "MLFLOW_TRACKING_URI": "http://127.0.0.1:1", **environment},
        capture_output=True,
        text=True,
        timeout=250,
    )


def ask(services: Services, trained: Workspace) -> None:
    token = services.token()
    photos = PhotoStore(trained.raw / "photos")
    for product in load_products(trained.raw / TRAIN_FILE)[:ASKED]:
        photo = photos.read(product.photo_name) or b""
        body = b"".join(
            b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % part
            for part in (
                (b"designation", b"", product.title.encode()),
                (b"image", b'; filename="p.jpg"', photo),
            )
        )
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        answer = services.serve.request(
            "POST", "/predict", body + b"--b--\r\n", headers, token=token
        )
        assert answer.status == 200, answer.body
    photos.close()


def test_a_report_on_requests_agrees_with_serve_and_keeps_its_secrets(
    services: Services, trained_workspace: Workspace
) -> None:
    ask(services, trained_workspace)
    done = report(
        services.root,
        *("--api", services.serve.url, "--since", "30m"),
        ADMIN_USER=ADMIN,
        ADMIN_PASSWORD=ADMIN_PASSWORD,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    folder = services.root / "reports" / "drift" / "window"
    summary = read_json(folder / "summary.json")
    answer = services.serve.request("GET", "/model/drift", token=services.token())
    served = answer.json()["figures"]
    assert summary["products"] == ASKED
    for name in ("features", "missing", "expected_accuracy", "drifted"):
        assert summary[name] == served[name]
    assert summary["bundle_id"] == answer.json()["bundle_id"]
    assert summary["verdict"] in (folder / "report.html").read_text()
    log = services.serve.log.read_text()
    requests = [line for line in log.splitlines() if "/model/drift/observations" in line]
    assert requests
    assert "token=" not in log
    assert ADMIN_PASSWORD not in log + done.stdout + done.stderr + json.dumps(summary)


def test_a_user_who_is_no_admin_is_refused(services: Services) -> None:
    done = report(
        services.root,
        *("--api", services.serve.url),
        ADMIN_USER=USER,
        ADMIN_PASSWORD=USER_PASSWORD,
    )
    assert done.returncode == 1
    assert "403" in done.stdout + done.stderr


def test_where_nobody_answers_the_address_is_named(services: Services) -> None:
    done = report(services.root, "--api", "http://127.0.0.1:1", ADMIN_PASSWORD="x")
    assert done.returncode == 1
    assert "http://127.0.0.1:1" in done.stdout + done.stderr
