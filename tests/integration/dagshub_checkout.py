"""A checkout whose settings name the stand-in for DagsHub, and what one runs in it."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from containers.dagshub.hub import Hub
from product_classifier.core.settings import Settings
from product_classifier.versioning.lockfile import parse_lock
from trained import PARAMS

ROOT = Path(__file__).resolve().parents[2]
TOKEN, EXPIRED = "0123456789abcdef0123456789abcdef01234567", "fedcba9876543210" * 2
USER, FIRST, SECOND, THIRD = "jane", "jane/shop", "jane/second", "jane/third"
GIVEN_UP_SECONDS = (
    300  # most of it is starts of programs on a busy machine; a server that drips would take hours
)
# On a busy machine an answer may take longer than a user should wait for a server that is away.
PATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30", "TF_CPP_MIN_LOG_LEVEL": "3"}
STEPS = (
    *("check ingest", "ingest", "version ingest"),
    *("check train", "train", "version train", "gate"),
    *("check predict", "predict", "version predict"),
)


# What is looked at here is the way, not the model: two epochs of each branch.
SHORT = PARAMS.replace("epochs: 12", "epochs: 2").replace("epochs: 15", "epochs: 2")


class Checkout:
    """A checkout with small parameters, whose `.env` would hold three lines."""

    def __init__(self, root: Path, hub: Hub, slug: str) -> None:
        self.root, self.hub = root, hub
        root.mkdir()
        shutil.copytree(ROOT / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
        shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("dvc.yaml", ".dvcignore"):
            shutil.copy(ROOT / name, root)
        (root / "params.yaml").write_text(SHORT)
        self.settings = {
            "DAGSHUB_URL": hub.url,
            "DAGSHUB_REPOSITORY": slug,
            "DAGSHUB_USERNAME": USER,
            "DAGSHUB_TOKEN": TOKEN,
            "MLFLOW_EXPERIMENT_NAME": slug,
        }

    def run(self, command: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        taken = {name.upper() for name in Settings.model_fields}
        environment = {k: v for k, v in os.environ.items() if k not in taken}
        return subprocess.run(
            [sys.executable, "-m", "product_classifier", *command.split()],
            cwd=self.root,
            env=environment | PATIENT | self.settings | settings,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def must(self, command: str, **settings: str) -> str:
        done = self.run(command, **settings)
        assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-1000:]}"
        return done.stdout

    def fails(self, command: str, said: str, **settings: str) -> None:
        started = time.monotonic()
        done = self.run(command, **settings)
        output = done.stdout + done.stderr
        assert done.returncode == 1, output[-3000:]
        assert said in output
        assert TOKEN not in output
        assert time.monotonic() - started < GIVEN_UP_SECONDS

    def hashes(self) -> dict[str, str]:
        lock = parse_lock((self.root / "dvc.lock").read_bytes())
        return {entry.path: entry.md5 for entry in lock.outs()}

    def content_id(self) -> str:
        manifest = json.loads((self.root / "models/candidate/manifest.json").read_text())
        return str(manifest["content_id"])

    def typed(self) -> Settings:
        values: dict[str, Any] = {name.lower(): value for name, value in self.settings.items()}
        return Settings(_env_file=None, **values)
