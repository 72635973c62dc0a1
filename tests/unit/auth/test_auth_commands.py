import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from auth_testing import ADMIN_PASSWORD
from typer.testing import CliRunner

from product_classifier.auth.service import open_service
from product_classifier.cli import build_app
from product_classifier.core.errors import ConfigurationError, ExitCode
from product_classifier.core.settings import Settings, get_settings
from unused_ports import free_port

Invoke = Callable[..., None]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "AUTH_DATA_PATH": str(tmp_path / "auth"),
        "ADMIN_PASSWORD": ADMIN_PASSWORD,
    }


@pytest.fixture
def run(tmp_path: Path, environment: dict[str, str]) -> Run:
    def run_command(
        *arguments: str, stdin: str = "", **settings: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "product_classifier", "auth", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env={**environment, **settings},
            cwd=tmp_path,
            timeout=240,
            check=False,
        )

    return run_command


@pytest.fixture
def invoke(tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs a command in this process and passes its error on."""
    monkeypatch.chdir(tmp_path)
    for name in ("AUTH_DATA_PATH", "ADMIN_PASSWORD"):
        monkeypatch.setenv(name, environment[name])

    def invoke_command(*arguments: str, stdin: str = "") -> None:
        get_settings.cache_clear()
        CliRunner().invoke(build_app(), ["auth", *arguments], input=stdin, catch_exceptions=False)

    return invoke_command


def audit(tmp_path: Path) -> list[tuple[str, str, str | None]]:
    settings = Settings(_env_file=None, auth_data_path=tmp_path / "auth")
    service = open_service(settings, rounds=4, make_users=False)
    entries = service.administration.read_audit(50)
    service.close()
    return [(str(e["event"]), str(e["actor"]), e["subject"]) for e in entries]  # type: ignore[misc]


def test_users_are_made_and_given_passwords_from_stdin(run: Run, tmp_path: Path) -> None:
    made = run("add-user", "Bob", "--role", "admin", stdin="bobs-pass-word\n")
    assert made.returncode == 0, made.stderr
    assert "User Bob made, role admin." in made.stdout
    changed = run("set-password", "bob", stdin="another-pass-1")
    assert changed.returncode == 0, changed.stderr
    assert "pass-" not in made.stdout + made.stderr + changed.stdout + changed.stderr
    assert audit(tmp_path) == [
        ("password_changed", "command line", "Bob"),
        ("user_created", "command line", "Bob"),
    ]


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (("add-user", "ADMIN"), "long-enough-1", "already"),
        (("add-user", "a b"), "long-enough-1", "A user name has"),
        (("add-user", "bob"), "short", "at least 8 characters"),
        (("add-user", "bob"), "", "at least 8 characters"),
        (("add-user", "bob", "--role", "root"), "long-enough-1", "--role"),
        (("add-user", "bob", "--full-name", "x" * 201), "long-enough-1", "--full-name"),
        (("set-password", "nobody"), "long-enough-1", "no such user"),
    ],
)
def test_bad_input_is_refused_with_exit_code_2(
    invoke: Invoke, tmp_path: Path, arguments: tuple[str, ...], stdin: str, message: str
) -> None:
    settings = Settings(
        _env_file=None, auth_data_path=tmp_path / "auth", admin_password=ADMIN_PASSWORD
    )
    open_service(settings, rounds=4).close()
    with pytest.raises(ConfigurationError, match=message) as caught:
        invoke(*arguments, stdin=stdin)
    assert caught.value.exit_code is ExitCode.BAD_INPUT


def test_bad_settings_are_refused_with_exit_code_2(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTH_DATABASE_URL", "mysql://u:hunter2@h/n")
    with pytest.raises(ConfigurationError, match="AUTH_DATABASE_URL") as caught:
        invoke("migrate")
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("ALGORITHM", "HS256")
    monkeypatch.setenv("SECRET_KEY", "0123456789abcdef" * 4)
    with pytest.raises(ConfigurationError, match="HS256"):
        invoke("rotate-keys")


def test_commands_leave_the_accounts_of_settings_alone(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"admin_password": ADMIN_PASSWORD, "smoke_password": "smoke-password-1"}
    settings = Settings(_env_file=None, auth_data_path=tmp_path / "auth", **values)
    open_service(settings, rounds=4).close()
    monkeypatch.delenv("ADMIN_PASSWORD")
    invoke("migrate")
    invoke("rotate-keys")
    service = open_service(settings, rounds=4, make_users=False)
    assert service.administration.find("smoke").active
    service.close()


def test_keys_are_rotated_with_overlap_or_at_once(run: Run, tmp_path: Path) -> None:
    assert run("rotate-keys").returncode == 0
    assert len(json.loads((tmp_path / "auth" / "keys.json").read_text())["keys"]) == 2
    leaked = run("rotate-keys", "--leaked")
    assert leaked.returncode == 0, leaked.stderr
    keys = json.loads((tmp_path / "auth" / "keys.json").read_text())["keys"]
    assert [key["kid"] for key in keys] == [leaked.stdout.rpartition(": ")[2].strip()]
    assert [entry[0] for entry in audit(tmp_path)[:2]] == ["keys_rotated", "keys_rotated"]
    assert "PRIVATE" not in leaked.stdout + leaked.stderr


def test_a_first_start_without_admin_password_ends_with_exit_code_2(run: Run) -> None:
    completed = run(AUTH_PORT=str(free_port()), ADMIN_PASSWORD="")
    assert completed.returncode == 2, completed.stdout + completed.stderr
    assert "ADMIN_PASSWORD is missing" in completed.stdout + completed.stderr


def test_the_service_runs_signs_in_and_ends_at_sigterm(
    environment: dict[str, str], tmp_path: Path
) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "product_classifier", "auth"],
        env={**environment, "AUTH_PORT": str(port)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as caller:
            _wait_until_ready(caller, process)
            form = {"username": "admin", "password": ADMIN_PASSWORD}
            tokens = caller.post("/token", data=form).json()
            headers = {"Authorization": f"Bearer {tokens['access_token']}"}
            assert caller.get("/users/me", headers=headers).json()["role"] == "admin"
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode in (0, 128 + signal.SIGTERM), output
    assert ADMIN_PASSWORD not in output
    assert tokens["access_token"] not in output
    login = next(
        json.loads(line)
        for line in output.splitlines()
        if '"product_classifier.audit"' in line and '"login"' in line
    )
    assert (login["subject"], login["address"], login["stage"]) == ("admin", "127.0.0.1", "auth")


def _wait_until_ready(caller: httpx.Client, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 180
    while True:
        try:
            if caller.get("/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
