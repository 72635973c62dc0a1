"""auth and serve on a real engine: made once, left alone, replaced without a dropped request, never half replaced."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator

import pytest
from operator_stack import Stack

from docker_program import ROOT, docker

CLIENTS = 8


@pytest.fixture
def gateway(stack: Stack) -> Iterator[str]:
    """The gateway with the project's own configuration; gives the address of serve through it."""
    bake = "tests/containers/standins/docker-bake.hcl"
    docker("buildx", "bake", "--file", bake, "haproxy")
    configuration = ROOT / "containers" / "gateway" / "haproxy.cfg"
    container = docker(
        *("run", "--detach", "--network", stack.project, "--publish", "127.0.0.1::8000"),
        *("--volume", f"{configuration}:/usr/local/etc/haproxy/haproxy.cfg:ro"),
        "product-classifier-standin/haproxy:local",
    )
    port = docker("port", container, "8000/tcp").rpartition(":")[2]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        docker("rm", "--force", container)


def post(url: str) -> dict:
    request = urllib.request.Request(f"{url}/predict", data=b"x" * 1000, method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def wait_for_answer(url: str) -> dict:
    deadline = time.monotonic() + 20
    while True:
        try:
            return post(url)
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < deadline
            time.sleep(0.2)


class Load:
    """Clients that ask without a pause; counts answers and failures."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                self.answers[post(self.url)["workers"]] += 1
            except OSError as error:
                self.failures.append(repr(error))

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def deploy(stack: Stack, name: str = "serve") -> tuple[str, str, str]:
    task = f"serving_stage.deploy_{name}"
    return stack.run(name, "deploy", name, action="deploy", task_id=task)


def test_a_service_is_made_once_and_left_alone(stack: Stack) -> None:
    started = time.monotonic()
    outcome, message, log = deploy(stack)
    made = time.monotonic() - started
    assert outcome == "done", message + log
    (first,) = stack.containers("service", running=True)
    host = json.loads(docker("inspect", first))[0]["HostConfig"]
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    started = time.monotonic()
    outcome, _, log = deploy(stack)
    assert (outcome, "unchanged" in log) == ("done", True)
    assert stack.containers("service") == [first]
    assert time.monotonic() - started < made  # nothing is waited for


def test_auth_keeps_its_keys_across_replacement(stack: Stack) -> None:
    assert deploy(stack, "auth")[0] == "done"
    (first,) = stack.containers("service")
    write = "open('/var/lib/auth/keys.json', 'w').write('the keys')"
    docker("exec", first, "python", "-c", write)
    stack.environment["LOGIN_QUEUE"] = "3"
    assert deploy(stack, "auth")[0] == "done"
    (second,) = stack.containers("service")
    assert second != first
    assert docker("exec", second, "cat", "/var/lib/auth/keys.json") == "the keys"


def test_no_request_is_dropped_while_a_service_is_replaced(stack: Stack, gateway: str) -> None:
    stack.environment["INFERENCE_WORKERS"] = "1"
    assert deploy(stack)[0] == "done"
    assert wait_for_answer(gateway)["workers"] == "1"
    with Load(gateway) as load:
        time.sleep(1)
        stack.environment["INFERENCE_WORKERS"] = "2"
        outcome, message, log = deploy(stack)
        time.sleep(1)
    assert outcome == "done", message + log
    assert load.failures == []
    assert load.answers["1"] > 20
    assert load.answers["2"] > 5
    assert post(gateway)["workers"] == "2"
    assert len(stack.containers("service")) == 1


@pytest.mark.parametrize(
    ("queue", "outcome", "word"),
    [("2", "failed for good", "refuses its settings"), ("13", "timed out", "")],
    ids=["refuses its settings", "never ready"],
)
def test_a_failed_deployment_leaves_the_previous_version_serving(
    stack: Stack, gateway: str, queue: str, outcome: str, word: str
) -> None:
    assert deploy(stack)[0] == "done"
    (first,) = stack.containers("service")
    wait_for_answer(gateway)
    with Load(gateway) as load:
        stack.environment["INFERENCE_QUEUE"] = queue
        task = "serving_stage.deploy_serve"
        found = stack.run("serve", "deploy", "serve", action="deploy", task_id=task, seconds=15)
    assert found[0] == outcome, found
    assert word in found[1]
    assert load.failures == []
    assert stack.containers("service") == [first]


def test_serve_is_ready_only_with_the_champion(stack: Stack) -> None:
    outcome, _, log = deploy(stack)
    assert outcome == "done"
    assert "serve is ready" in log
    champion = stack.checkout / "models" / "champion.json"
    assert json.loads(champion.read_text())["content_id"].startswith("0123456789abcdef")


def test_a_stopped_service_is_deployed_again(stack: Stack) -> None:
    assert deploy(stack)[0] == "done"
    (first,) = stack.containers("service")
    docker("stop", first)
    assert deploy(stack)[0] == "done"
    (second,) = stack.containers("service")
    assert second != first
