"""Deploying under a real supervisor; the services are small real HTTP servers."""

import json
import os
import signal
import sys
import textwrap

import pytest
from pydantic import SecretStr
from test_ports import taken_port as taken_port  # noqa: PLC0414
from test_supervision import until

from product_classifier.core.errors import ConfigurationError, RuntimeServiceError
from product_classifier.core.releases import point_champion, publish_release
from product_classifier.core.workspace import Workspace
from product_classifier.runtime.api_services import USERS_FILE, deployed_names
from product_classifier.runtime.deploy import deploy
from product_classifier.runtime.supervision import Supervisor
from unused_ports import free_port

# Stands where the program is: `product-classifier auth|serve` answers /ready with what a file says.
PROGRAM = """\
import http.server, json, os, pathlib, sys
name = sys.argv[1]
said = pathlib.Path({folder!r}) / f"{{name}}.json"
print("this is the log of", name, flush=True)
if not said.exists():
    sys.exit("nothing to say")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, content = json.loads(said.read_text())
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())
    def log_message(self, *_): pass
port = int(os.environ[f"{{name.upper()}}_PORT"])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
READY = [200, {"status": "ready"}]
PATIENCE_SECONDS = 180


@pytest.fixture
def said(layout, tmp_path):
    """A folder whose files say what the services answer."""
    program = layout.program("product-classifier")
    program.parent.mkdir(parents=True)
    code = program.with_name("said.py")
    code.write_text(textwrap.dedent(PROGRAM).format(folder=str(tmp_path)))
    # A shebang takes no path with a space.
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{code}" "$@"\n')
    program.chmod(0o755)
    return tmp_path


@pytest.fixture
def settings(settings):
    values = {"auth_port": free_port(), "serve_port": free_port()}
    secrets = {"admin_password": "an administrator's", "smoke_password": "smoke and mirrors"}
    return settings.model_copy(update=values | {k: SecretStr(v) for k, v in secrets.items()})


@pytest.fixture
def supervisor(layout):
    supervisor = Supervisor(layout)
    supervisor.apply([])
    yield supervisor
    supervisor.stop()


def say(said, name, answer):
    (said / f"{name}.json").write_text(json.dumps(answer))


def test_a_service_is_started_waited_for_and_then_left_alone(layout, settings, supervisor, said):
    say(said, "auth", READY)
    assert deploy(layout, settings, "auth", PATIENCE_SECONDS) is True
    pid = supervisor.states()["auth"].pid
    assert deploy(layout, settings, "auth", PATIENCE_SECONDS) is False
    assert supervisor.states()["auth"].pid == pid
    assert deployed_names(layout) == ["auth"]


def test_a_changed_setting_replaces_it(layout, settings, supervisor, said):
    say(said, "auth", READY)
    deploy(layout, settings, "auth", PATIENCE_SECONDS)
    pid = supervisor.states()["auth"].pid
    assert (
        deploy(layout, settings.model_copy(update={"login_queue": 3}), "auth", PATIENCE_SECONDS)
        is True
    )
    assert supervisor.states()["auth"].pid != pid


def test_a_killed_service_comes_back_by_itself(layout, settings, supervisor, said):
    say(said, "auth", READY)
    deploy(layout, settings, "auth", PATIENCE_SECONDS)
    pid = supervisor.states()["auth"].pid
    until(lambda: supervisor.states()["auth"].state == "RUNNING")
    os.kill(pid, signal.SIGKILL)
    until(lambda: supervisor.states()["auth"].pid not in (0, pid))
    assert deploy(layout, settings, "auth", PATIENCE_SECONDS) is False


def test_one_that_never_gets_ready_fails_in_time_with_the_end_of_its_log(
    layout, settings, supervisor, said
):
    say(said, "auth", READY)
    deploy(layout, settings, "auth", PATIENCE_SECONDS)  # it listens: two seconds are enough
    say(said, "auth", [503, {}])
    with pytest.raises(RuntimeServiceError, match="(?s)answers 503.*this is the log of auth"):
        deploy(layout, settings, "auth", 2)


def test_one_that_ends_again_and_again_fails_with_the_end_of_its_log(
    layout, settings, supervisor, said
):
    with pytest.raises(RuntimeServiceError, match="(?s)again and again.*nothing to say"):
        deploy(layout, settings, "auth", PATIENCE_SECONDS)


def test_serve_has_to_answer_with_the_champion(
    layout, settings, supervisor, said, make_bundle, tmp_path
):
    with pytest.raises(ConfigurationError, match="There is no champion"):
        deploy(layout, settings, "serve", PATIENCE_SECONDS)
    workspace = Workspace(layout.root)
    release = publish_release(workspace, make_bundle(tmp_path / "bundle"))
    point_champion(workspace, release.release_id, "a test")
    say(said, "serve", [200, {"bundle_id": release.release_id}])
    assert deploy(layout, settings, "serve", PATIENCE_SECONDS) is True
    say(said, "serve", [200, {"bundle_id": "0" * 16}])
    with pytest.raises(RuntimeServiceError, match=f"expected {release.release_id}"):
        deploy(layout, settings, "serve", 2)
    # It exchanges its model by itself: nothing is restarted for that.
    say(said, "serve", [200, {"bundle_id": release.release_id}])
    assert deploy(layout, settings, "serve", PATIENCE_SECONDS) is False


def test_without_a_supervisor_it_says_what_to_do(layout, settings, said):
    with pytest.raises(
        ConfigurationError, match="`make start` starts them.*`product-classifier auth`"
    ):
        deploy(layout, settings, "auth")
    assert deployed_names(layout) == []


@pytest.mark.parametrize("value", [None, "changeme", "short"])
@pytest.mark.parametrize("name", ["admin_password", "smoke_password"])
def test_a_missing_or_useless_secret_is_named(layout, settings, supervisor, said, name, value):
    secret = SecretStr(value) if value else None
    with pytest.raises(ConfigurationError, match=f"{name.upper()} is missing"):
        deploy(layout, settings.model_copy(update={name: secret}), "auth")
    assert "auth" not in supervisor.states()


def test_the_first_password_is_not_needed_once_there_are_users(layout, settings, supervisor, said):
    (layout.auth_home).mkdir(exist_ok=True)
    (layout.auth_home / USERS_FILE).touch()
    say(said, "auth", READY)
    assert (
        deploy(
            layout, settings.model_copy(update={"admin_password": None}), "auth", PATIENCE_SECONDS
        )
        is True
    )


def test_a_taken_port_is_named(layout, settings, supervisor, said, taken_port):
    with pytest.raises(ConfigurationError, match=f"Port {taken_port} for auth is taken"):
        deploy(layout, settings.model_copy(update={"auth_port": taken_port}), "auth")
    assert "auth" not in supervisor.states()
