"""The socket proxy before a real engine: the ways out of a container are tried, not only listed."""

import json
import subprocess
import urllib.error
import urllib.request
from typing import Any

import pytest
from operator_stack import PREFIX, TAG, USER, Stack

from docker_program import docker


def ask(stack: Stack, method: str, path: str, body: object = None) -> tuple[int, Any]:
    url = stack.environment["DOCKER_HOST"].replace("tcp://", "http://") + path
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if text.startswith((b"{", b"[")) else {}
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def stage(stack: Stack, **host: object) -> dict:
    bind = {"Type": "bind", "Source": str(stack.checkout), "Target": "/workspace"}
    dotenv = {"Type": "bind", "Source": "/dev/null", "Target": "/workspace/.env", "ReadOnly": True}
    labels = {"project": stack.project, "role": "stage"}
    return {
        "Image": f"{PREFIX}/train:{TAG}",
        "Cmd": ["look"],
        "User": f"{USER}:{USER}",
        "Labels": {f"product-classifier.{name}": value for name, value in labels.items()},
        "HostConfig": {
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "ReadonlyRootfs": True,
            "PidsLimit": 100,
            "NetworkMode": stack.project,
            "Mounts": [bind, dotenv],
        }
        | host,
    }


def test_the_engine_takes_what_the_proxy_writes_anew(stack: Stack) -> None:
    status, made = ask(stack, "POST", "/containers/create", stage(stack))
    assert status == 201, made
    status, details = ask(stack, "GET", f"/containers/{made['Id'][:12]}/json")
    assert (status, details["Id"]) == (200, made["Id"])
    assert details["HostConfig"]["Privileged"] is False
    assert ask(stack, "POST", f"/containers/{made['Id']}/start")[0] == 204
    status, ended = ask(stack, "POST", f"/containers/{made['Id']}/wait")
    assert (status, ended["StatusCode"]) == (200, 0)
    assert ask(stack, "DELETE", f"/containers/{made['Id']}?force=1")[0] == 204


@pytest.mark.parametrize(
    "host",
    [
        {"Privileged": True},
        {"CapAdd": ["SYS_ADMIN"]},
        {"PidMode": "host"},
        {"NetworkMode": "host"},
        {"IpcMode": "host"},
        {"UsernsMode": "host"},
        {"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/x"}]},
        {"SecurityOpt": ["seccomp=unconfined"]},
        {"Binds": ["/:/host"]},
        {"VolumesFrom": ["x"]},
        {"privileged": True},
        {"Mounts": [{"Type": "bind", "Source": "/", "Target": "/host", "ReadOnly": True}]},
        {"Mounts": [{"Type": "bind", "Source": "/var/run/docker.sock", "Target": "/s"}]},
        {"Mounts": [{"Type": "volume", "Source": "x", "Target": "/x"}]},
    ],
    ids=lambda host: next(iter(host.items())).__repr__()[:50],
)
def test_no_container_with_a_way_out_is_made(stack: Stack, host: dict) -> None:
    status, answer = ask(stack, "POST", "/containers/create", stage(stack, **host))
    assert status == 403, answer
    assert "socket proxy" in answer["message"]
    assert stack.containers() == []


def test_a_symlink_that_a_stage_lays_does_not_lead_out(stack: Stack) -> None:
    """The stage may write to the checkout; the engine would follow its link on the host."""
    code = "import os; os.symlink('/', '/workspace/exit')"
    docker(
        *("run", "--rm", "--user", f"{USER}:{USER}", "--entrypoint", "python"),
        *("--volume", f"{stack.checkout}:/workspace", f"{PREFIX}/train:{TAG}", "-c", code),
    )
    body = stage(stack)
    for source in ("exit", "exit/etc"):
        path = str(stack.checkout / source)
        mount = {"Type": "bind", "Source": path, "Target": "/host", "ReadOnly": True}
        body["HostConfig"]["Mounts"] = [mount]
        status, answer = ask(stack, "POST", "/containers/create", body)
        assert (status, "symlink" in answer["message"]) == (403, True), answer


def test_containers_of_others_can_be_neither_seen_nor_touched(stack: Stack) -> None:
    neighbour = docker("run", "--detach", f"{PREFIX}/train:{TAG}", "wait")
    try:
        for method, path in (
            ("GET", "json"),
            ("GET", "logs?stdout=1"),
            ("POST", "stop"),
            ("POST", "kill"),
            ("POST", "start"),
            ("POST", "attach?stdout=1"),
        ):
            status, answer = ask(stack, method, f"/containers/{neighbour}/{path}")
            assert status == 404, path
            assert "No such container of this project" in answer["message"]
        assert ask(stack, "DELETE", f"/containers/{neighbour}?force=1")[0] == 404
        assert ask(stack, "DELETE", f"/containers/{stack.proxy}?force=1")[0] == 404
        assert ask(stack, "GET", "/containers/json?all=1") == (200, [])
        assert docker("inspect", "--format", "{{.State.Running}}", neighbour) == "true"
    finally:
        docker("rm", "--force", neighbour)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/build"),
        ("POST", "/images/create?fromImage=alpine"),
        ("GET", "/images/json"),
        ("GET", "/info"),
        ("GET", "/events"),
        ("GET", "/volumes"),
        ("POST", "/volumes/create"),
        ("POST", "/networks/create"),
        ("POST", "/swarm/init"),
        ("GET", "/v1.18/containers/json"),
        ("GET", "/containers/../images/json"),
    ],
)
def test_the_rest_of_the_api_is_not_there(stack: Stack, method: str, path: str) -> None:
    status, answer = ask(stack, method, path)
    assert status in (400, 403), answer
    assert "socket proxy" in answer["message"]


def test_a_program_can_not_be_started_in_a_container(stack: Stack) -> None:
    process = stack.start("train", "wait")
    (container,) = stack.wait_for(1)
    status, _ = ask(stack, "POST", f"/containers/{container}/exec", {"Cmd": ["id"]})
    assert status == 403
    process.terminate()
    process.communicate()


def test_dockers_own_client_is_told_why(stack: Stack) -> None:
    command = ["docker", "--host", stack.environment["DOCKER_HOST"], "run", "--privileged"]
    done = subprocess.run([*command, f"{PREFIX}/train:{TAG}"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "socket proxy" in done.stderr


def test_what_it_refuses_is_in_its_log_without_the_body(stack: Stack) -> None:
    body = stage(stack, Privileged=True) | {"Env": ["PASSWORD=not for the log"]}
    ask(stack, "POST", "/containers/create", body)
    log = docker("logs", stack.proxy)
    assert "HostConfig.Privileged is not allowed" in log
    assert "not for the log" not in log
