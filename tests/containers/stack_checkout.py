"""A checkout of its own with the stack in it: own project, network and ports, stand-ins for official images."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
from dotenv import dotenv_values

from docker_program import ROOT, docker
from product_classifier.core.releases import current_champion
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.runtime.airflow_api import AirflowAPI
from trained import PARAMS
from unused_ports import free_ports

COMPOSE_FILE = "docker-compose.yml:tests/containers/compose.standins.yml"
USER = 1000  # the checkout's owner, whatever user runs the tests
PORTS = ("AIRFLOW_PORT", "MLFLOW_PORT", "SERVE_PORT", "AUTH_PORT", "PROMETHEUS_PORT")
PORTS += ("ALERTMANAGER_PORT", "NODE_EXPORTER_PORT", "GRAFANA_PORT")


def until(fact, what, seconds):
    deadline = time.monotonic() + seconds
    while not (value := fact()):
        assert time.monotonic() < deadline, f"Waited {seconds} s for: {what}"
        time.sleep(0.5)
    return value


class StackCheckout:
    def __init__(self, root, project, image):
        """Copies the working tree to `root`; `image` is the full name of any of our images."""
        self.root, self.project = root, project
        self.network = f"{project}-network"
        self._airflow = None
        self._copy()
        self.workspace = Workspace(root)
        prefix, tag = re.fullmatch(r"(.*)/[a-z-]+:(.*)", image).groups()
        lines = {
            **dict(zip(PORTS, free_ports(len(PORTS)), strict=True)),
            "PIPELINE_RUNTIME": "docker",
            "COMPOSE_PROJECT_NAME": project,
            "NETWORK_NAME": self.network,
            "IMAGE_PREFIX": prefix,
            "IMAGE_TAG": tag,
            "SHUTDOWN_GRACE_SECONDS": 10,
            "PREDICT_RATE_LIMIT": "600/minute",
        }
        (root / ".env").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        (root / "params.yaml").write_text(PARAMS)
        self.own()

    def _copy(self):
        listed = subprocess.run(
            ["git", "ls-files", "-z", "-c", "-o", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            source, target = ROOT / name, self.root / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)

    def own(self):
        """Gives the checkout to an ordinary user, where the tests may."""
        if os.getuid() == 0:
            subprocess.run(["chown", "-R", f"{USER}:{USER}", str(self.root)], check=True)

    def environment(self):
        names = ("PATH", "HOME", "LANG", "TMPDIR", "DOCKER_HOST", "DOCKER_CONFIG")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        return kept | {"COMPOSE_FILE": COMPOSE_FILE}

    def command(self, *arguments):
        return [str(Path(sys.executable).parent / "product-classifier"), *arguments]

    def call(self, *arguments):
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env=self.environment(),
            capture_output=True,
            text=True,
        )
        self.own()
        return done

    def launch(self, *arguments):
        """Starts a command and goes on; its output is thrown away."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.root,
            env=self.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def settings(self):
        values = {
            name.lower(): value
            for name, value in dotenv_values(self.root / ".env").items()
            if name.lower() in Settings.model_fields
        }
        return Settings(_env_file=None, **values)

    def airflow(self):
        if self._airflow is None:
            self._airflow = AirflowAPI(self.settings())
        return self._airflow

    def states(self):
        """States of the newest run's tasks by id."""
        api = self.airflow()
        run = api.last_run()
        return {name: task["state"] for name, task in api.tasks(run["dag_run_id"]).items()}

    def tries(self, task):
        api = self.airflow()
        return api.tasks(api.last_run()["dag_run_id"])[task]["try_number"]

    def get(self, path, **options):
        url = f"http://127.0.0.1:{self.settings().serve_port}{path}"
        return httpx.get(url, timeout=20, trust_env=False, **options)

    def ask_prometheus(self, path):
        url = f"http://127.0.0.1:{self.settings().prometheus_port}{path}"
        return httpx.get(url, timeout=20, trust_env=False).json()["data"]

    def health(self):
        """Health of Prometheus's targets by job."""
        targets = self.ask_prometheus("/api/v1/targets?state=active")["activeTargets"]
        return {target["labels"]["job"]: target["health"] for target in targets}

    def value(self, expression):
        """Value of an expression's first series; None where it has none."""
        result = self.ask_prometheus(f"/api/v1/query?query={expression}")["result"]
        return float(result[0]["value"][1]) if result else None

    def champion_id(self):
        return current_champion(self.workspace).release_id

    def deployed(self):
        """Ids of the deployed containers by service."""
        return {name: self.containers("name=" + name)[0] for name in ("auth", "serve")}

    def containers(self, label, *options):
        prefix = f"label=product-classifier.{label}"
        mine = f"label=product-classifier.project={self.project}"
        listed = docker(
            "ps", "--quiet", "--no-trunc", *options, "--filter", mine, "--filter", prefix
        )
        return listed.splitlines()

    def service(self, name):
        """Id of a compose service's container."""
        mine = f"label=com.docker.compose.project={self.project}"
        this = f"label=com.docker.compose.service={name}"
        return docker("ps", "--quiet", "--no-trunc", "--filter", mine, "--filter", this)

    def everything(self):
        """What `stop` may not leave: containers and networks."""
        found = []
        for label in ("com.docker.compose.project", "product-classifier.project"):
            wanted = ("--filter", f"label={label}={self.project}")
            found += docker("ps", "--all", "--quiet", *wanted).splitlines()
        networks = docker("network", "ls", "--format", "{{.Name}}").splitlines()
        return found + [name for name in networks if name.startswith(self.project)]

    def volumes(self):
        names = docker("volume", "ls", "--format", "{{.Name}}").splitlines()
        return {name.removeprefix(f"{self.project}_") for name in names if self.project in name}

    def remove(self):
        """Leaves nothing on the engine."""
        if self._airflow is not None:
            self._airflow.close()
        self.call("stop")
        for name in self.volumes():
            docker("volume", "rm", "--force", f"{self.project}_{name}", check=False)
