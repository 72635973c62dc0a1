"""One project on the engine for the operators' tests: network, checkout, proxy, and a worker that runs operators."""

import json
import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from docker_program import ROOT, docker

PREFIX, TAG = "product-classifier-operators", "test"
NAMES = ("ingest", "train", "predict", "auth", "serve")
USER = 1234 if os.getuid() == 0 else os.getuid()
CONTENT_ID = "0123456789abcdef" * 4


@dataclass
class Stack:
    """One project of its own on the engine."""

    project: str
    checkout: Path
    proxy: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, stage: str, *command: str, **asked: object) -> subprocess.Popen:
        """Starts an operator in Airflow's environment."""
        asked = {"stage": stage, "command": list(command), **asked}
        arguments = [str(ROOT / "airflow" / ".venv" / "bin" / "python")]
        arguments += [str(Path(__file__).parent / "run_operator.py"), json.dumps(asked)]
        return subprocess.Popen(
            arguments,
            env=self.environment,
            cwd=self.checkout,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, stage: str, *command: str, **asked: object) -> tuple[str, str, str]:
        """Runs an operator to its end; gives outcome, message and log."""
        return finish(self.start(stage, *command, **asked))

    def containers(self, role: str = "stage", *, running: bool = False) -> list[str]:
        """Lists the containers that the operators made."""
        arguments = ["ps", "--quiet", "--no-trunc", *([] if running else ["--all"])]
        labels = (f"project={self.project}", f"role={role}")
        for label in labels:
            arguments += ["--filter", f"label=product-classifier.{label}"]
        return docker(*arguments).split()

    def wait_for(self, number: int, seconds: float = 60) -> list[str]:
        """Waits until so many stages run and wait to be stopped."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.containers(running=True)
            waiting = [one for one in found if (self.checkout / f"waiting {one[:12]}").exists()]
            if len(waiting) == number:
                return found
            assert time.monotonic() < deadline, f"{len(waiting)} containers, not {number}"
            time.sleep(0.1)

    def wait_until_gone(self, seconds: float = 30) -> None:
        """Waits until the engine has removed every stage's container."""
        deadline = time.monotonic() + seconds
        while found := self.containers():
            assert time.monotonic() < deadline, f"{found} is left behind"
            time.sleep(0.1)


def finish(process: subprocess.Popen) -> tuple[str, str, str]:
    """Waits for an operator; gives outcome, message and log."""
    log, _ = process.communicate(timeout=300)
    try:
        last = json.loads(log.strip().splitlines()[-1])
    except (ValueError, IndexError):
        pytest.fail(f"The operator ended without an outcome:\n{log[-3000:]}")
    return last["outcome"], last["message"], log


def make_checkout(folder: Path) -> Path:
    checkout = folder / "check out"
    (checkout / "models").mkdir(parents=True)
    (checkout / "dvc.yaml").write_text("stages: {}\n")
    (checkout / ".env").write_text("SECRET=of others\n")
    (checkout / "models" / "champion.json").write_text(json.dumps({"content_id": CONTENT_ID}))
    for path in (checkout, *checkout.rglob("*")):
        if os.getuid() == 0:
            os.chown(path, USER, USER)
    return checkout


def start_proxy(stack: Stack, settings: dict[str, str]) -> str:
    """Starts the proxy as docker-compose.yml does; gives its port."""
    variables = [option for item in settings.items() for option in ("--env", "=".join(item))]
    stack.proxy = docker(
        *("run", "--detach", "--user", "0:0", "--read-only", "--cap-drop", "ALL"),
        *("--cap-add", "DAC_READ_SEARCH", "--security-opt", "no-new-privileges"),
        *("--volume", "/var/run/docker.sock:/var/run/docker.sock"),
        *("--volume", f"{stack.checkout}:{stack.checkout}:ro"),
        *("--publish", "127.0.0.1::2375", *variables, f"{PREFIX}/socket-proxy:{TAG}"),
    )
    port = docker("port", stack.proxy, "2375/tcp").rpartition(":")[2]
    deadline = time.monotonic() + 20
    while "{" not in docker(
        "run",
        "--rm",
        "--network",
        f"container:{stack.proxy}",
        "--entrypoint",
        "python",
        f"{PREFIX}/train:{TAG}",
        "-c",
        PROBE,
        check=False,
    ):
        assert time.monotonic() < deadline, docker("logs", stack.proxy)
        time.sleep(0.2)
    return port


PROBE = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:2375/version').read())"


def remove(stack: Stack) -> None:
    label = f"label=product-classifier.project={stack.project}"
    found = docker("ps", "--all", "--quiet", "--filter", label).split()
    for container in (*found, *([stack.proxy] if stack.proxy else [])):
        docker("rm", "--force", "--volumes", container, check=False)
    docker("network", "rm", stack.project)
    docker("volume", "rm", "--force", f"{stack.project}_auth-data", check=False)
