"""The gateway's own configuration before a service: /metrics is not for callers, everything below it is.

What it tells of itself has a port of its own, and shows which answers no service has given.
"""

import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

import pytest

import metrics_page
from guarded_app import AUTHORIZATION, guarded_app
from live_server import RawAnswer, live_server, read_answer
from unused_ports import free_port, free_ports

CONFIGURATION = Path(__file__).parents[3] / "containers" / "gateway" / "haproxy.cfg"
TEXT = CONFIGURATION.read_text(encoding="utf-8")
FRONTENDS = ("serve", "auth")
OWN = ("health", "metrics")  # of the gateway itself
RULES = Path(__file__).parents[3] / "monitoring" / "prometheus" / "rules" / "gateway.yml"
METRICS = (
    "/metrics",
    "/metrics?",
    "/metrics?name=up",
    "/metrics/",
    "/metrics//",
    "//metrics",
    "/Metrics",
    "/METRICS",
    "/%6detrics",
    "/%6Detric%73",
    "/%6d%65%74%72%69%63%73",
    "/%2fmetrics",
    "/metrics%2f",
    "/metrics%2F%2F",
    "/metrics%0a",
    "/metrics%0A/",
    "/metrics%20",
    "http://test/metrics",
    "HTTP://test//%6Detrics?x",
)
# The service sees these otherwise than as its page of metrics; it says itself that they are nothing.
OTHERS = (
    "/metrics/kpis",
    "/metrics/nothing",
    "/metricsx",
    "/xmetrics",
    "/x/metrics",
    "/./metrics",
    "/x/../metrics",
    "/metrics/.",
    "/metrics/..",
    "/metrics;x",
    "/metrics%00",
    "/metrics%3fx",
    "/metrics%",
    "/metric%zzs",
    "/%256detrics",
    "/metric%c5%bf",
    "/metrics%c2%a0",
    "/?/metrics",
)


def rule_of(frontend: str) -> str:
    """Gives the expression of the paths that a front end denies."""
    block = re.search(rf"^frontend {frontend}\n((?:  .*\n)+)", TEXT, re.MULTILINE)
    assert block
    deny = r"http-request deny deny_status 404 if { path,url_dec -m reg -i (\S+) }\n"
    found = re.search(deny, block[1])
    assert found, f"the front end {frontend} lets everybody read /metrics"
    return found[1].replace("[:space:]", r"\s")


@pytest.mark.parametrize("frontend", FRONTENDS)
def test_every_front_end_keeps_the_page_of_metrics_to_itself(frontend: str) -> None:
    rule = re.compile(rule_of(frontend), re.IGNORECASE)
    ways = [re.sub("^[Hh]\\w+://[^/]+", "", path).partition("?")[0] for path in METRICS]
    assert [path for path in ways if not rule.search(unquote(path))] == []
    for path in ("/metrics/kpis", "/metrics/model", "/predict", "/"):
        assert not rule.search(path)


def test_no_front_end_is_forgotten() -> None:
    assert set(re.findall(r"^frontend (\w+)", TEXT, re.MULTILINE)) == {*OWN, *FRONTENDS}


def own_configuration(ports: dict[str, int], service: int) -> str:
    """The configuration with ports of this machine, and one service that is there in place of Docker's DNS."""
    text = TEXT.replace("127.0.0.1:8404", f"127.0.0.1:{ports['health']}")
    text = text.replace("bind :8405", f"bind 127.0.0.1:{ports['metrics']}")
    text = text.replace("maxconn 4000", "maxconn 100")  # needs no more files than anybody may open
    for name, port in (("serve", 8000), ("auth", 8011)):
        text = text.replace(f"bind :{port}", f"bind 127.0.0.1:{ports[name]}")
        servers = rf"server-template {name} 4 {name}-backend:{port}\n"
        text, count = re.subn(servers, f"server only 127.0.0.1:{service} no-check\n", text)
        assert count == 1
    return text


@contextmanager
def running(folder: Path, service: int) -> Iterator[dict[str, int]]:
    """A real HAProxy before a service's port; the ports of its front ends by name."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        pytest.skip("NOT TESTED: there is no haproxy. Debian: apt-get install haproxy")
    ports = dict(zip((*OWN, *FRONTENDS), free_ports(4), strict=True))
    path = folder / "haproxy.cfg"
    path.write_text(own_configuration(ports, service), encoding="utf-8")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-db", "-f", path], stdout=log, stderr=log)
        try:
            for port in ports.values():
                wait_for(port, process, folder / "log")
            yield ports
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """The front ends of a gateway before a real service."""
    with (
        live_server(guarded_app()) as service,
        running(tmp_path_factory.mktemp("gateway"), service.port) as ports,
    ):
        yield ports


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):
            connected(port).close()
            return
        time.sleep(0.05)
    raise AssertionError(f"haproxy does not listen: {log.read_text(errors='replace')}")


def ask(port: int, target: str) -> RawAnswer:
    """Sends a request's target as it stands: a client would tidy it up."""
    given = [f"{name}: {value}" for name, value in AUTHORIZATION.items()]
    head = "\r\n".join([f"GET {target} HTTP/1.1", "Host: test", *given, "", ""])
    with connected(port) as sock:
        sock.sendall(head.encode("latin-1"))
        return read_answer(sock)


@pytest.mark.parametrize("frontend", FRONTENDS)
@pytest.mark.parametrize("target", METRICS)
def test_no_spelling_shows_the_metrics(ports: dict[str, int], frontend: str, target: str) -> None:
    answer = ask(ports[frontend], target)
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["title"] == "Not Found"
    assert "x-request-id" not in answer.headers  # the service was not asked


@pytest.mark.parametrize("method", ["HEAD", "POST", "OPTIONS", "PURGE"])
def test_no_method_reaches_the_page(ports: dict[str, int], method: str) -> None:
    with connected(ports["serve"]) as sock:
        sock.sendall(f"{method} /metrics HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        head = sock.recv(65536)
    assert head.startswith(b"HTTP/1.1 404 ")
    assert b"x-request-id" not in head.lower()


@pytest.mark.parametrize("frontend", FRONTENDS)
@pytest.mark.parametrize("target", OTHERS)
def test_what_is_not_that_page_is_the_services_to_answer(
    ports: dict[str, int], frontend: str, target: str
) -> None:
    answer = ask(ports[frontend], target)
    assert "x-request-id" in answer.headers
    assert b"http_requests_total" not in answer.body
    assert answer.status == 404


def test_other_pages_pass(ports: dict[str, int]) -> None:
    for name in FRONTENDS:
        assert ask(ports[name], "/open").status == 200
        assert ask(ports[name], "/who?/metrics").json()["user"] == "alice"


def own_page(ports: dict[str, int], path: str = "/metrics") -> tuple[int, str]:
    """Asks the gateway about itself: status and text."""
    url = f"http://127.0.0.1:{ports['metrics']}{path}"
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def answers(ports: dict[str, int], side: str, code: str) -> float:
    """How many answers of a kind the front end, or the servers, of `serve` have counted."""
    status, text = own_page(ports)
    assert status == 200
    name = f'haproxy_{side}_http_responses_total{{proxy="serve",'
    found = metrics_page.series(text).items()
    return sum(n for key, n in found if key.startswith(name) and f'code="{code}"' in key)


def test_the_gateway_tells_of_itself_what_the_rules_ask_for(ports: dict[str, int]) -> None:
    status, text = own_page(ports, "/metrics?scope=frontend&scope=backend&scope=server")
    names = {series.partition("{")[0] for series in metrics_page.series(text)}
    assert status == 200
    asked = set(re.findall(r"haproxy_\w+", RULES.read_text(encoding="utf-8")))
    assert len(asked) >= 3
    assert asked <= names


def test_beside_its_page_there_is_nothing(ports: dict[str, int]) -> None:
    status, text = own_page(ports, "/predict")
    assert status == 404
    assert "Not Found" in text


def test_what_the_gateway_answers_by_itself_is_no_servers_answer(
    ports: dict[str, int],
) -> None:
    before = [answers(ports, side, "4xx") for side in ("frontend", "server")]
    for target in ("/metrics", "/metrics", "/nothing"):
        assert ask(ports["serve"], target).status == 404
    after = [answers(ports, side, "4xx") for side in ("frontend", "server")]
    assert [new - old for new, old in zip(after, before, strict=True)] == [3, 1]


def test_a_service_that_is_away_leaves_errors_of_the_gateway_alone(tmp_path: Path) -> None:
    with running(tmp_path, free_port()) as ports:
        answer = ask(ports["serve"], "/predict")
        assert answer.status == 503
        assert answer.headers["retry-after"] == "5"
        assert (answers(ports, "frontend", "5xx"), answers(ports, "server", "5xx")) == (1, 0)
