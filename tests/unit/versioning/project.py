"""A small project for these tests: the real dvc.yaml, and stages that write a few bytes instead of working."""

import copy
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from product_classifier.core.bundle import read_manifest
from product_classifier.core.files import canonical_json, sha256_bytes
from product_classifier.core.params import load_params
from product_classifier.core.releases import point_champion, publish_release
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.features.photos import shard_of, write_shard
from product_classifier.tracking.latest import set_latest
from product_classifier.tracking.record import RunRecord
from product_classifier.versioning.check import Verdict, check_stage
from product_classifier.versioning.record import Recording, record_stage
from product_classifier.versioning.repository import Repository
from product_classifier.versioning.restore import Restored, restore_state
from product_classifier.versioning.verify import Report, verify_workspace

CHECKOUT = Path(__file__).parents[3]
PROBES = ("ingest", "train", "predict")
SHARDS = 8


def photo(name: str) -> bytes:
    return hashlib.sha512(name.encode()).digest() * 20


class Project:
    """A workspace, and what one does in it."""

    def __init__(self, root: Path, make_bundle: Callable[..., Path], **settings: Any) -> None:
        root.mkdir(parents=True)
        self.make_bundle = make_bundle
        self.history: list[tuple[str, dict[str, bytes]]] = []  # run id and all bytes of each run
        self.workspace = Workspace(root)
        # A port where nothing listens: no test waits for a tracking server.
        values = {"mlflow_tracking_uri": "http://127.0.0.1:9", "dvc_lock_wait_seconds": 60}
        self.settings = Settings(_env_file=None, **(values | settings))  # type: ignore[call-arg]
        for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
            (root / name).parent.mkdir(exist_ok=True)
            shutil.copy(CHECKOUT / name, root / name)
        for folder in ("ingest", "train", "gate", "predict", "features", "modeling", "core"):
            self.write(f"src/product_classifier/{folder}/code.py", f"{folder} = 1\n")
        self.write("src/product_classifier/core/catalogue.py", "x = 1\n")
        self.write("src/product_classifier/core/product_types.json", "{}\n")
        for stage in PROBES:
            self.write(f"data/probes/{stage}.json", "{}\n")

    @property
    def root(self) -> Path:
        return self.workspace.root

    def write(self, name: str, content: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def repository(self) -> Repository:
        return Repository(self.workspace, self.settings)

    def check(self, stage: str, **options: Any) -> Verdict:
        with self.repository() as repository:
            return check_stage(repository, stage, **options)

    def version(self, stage: str) -> Recording:
        with self.repository() as repository:
            return record_stage(repository, stage)

    def restore(self, wanted: str | None, stages: tuple[str, ...] = (), **options: Any) -> Restored:
        with self.repository() as repository:
            return restore_state(repository, wanted, stages, **options)

    def verify(self, **options: Any) -> Report:
        with self.repository() as repository:
            return verify_workspace(repository, **options)

    def ingest(self, products: int = 24) -> None:
        self.write(
            "data/raw/X_train_update.csv", "".join(f"{i},title {i}\n" for i in range(products))
        )
        shards: dict[int, dict[str, bytes]] = {number: {} for number in range(SHARDS)}
        for i in range(products):
            name = f"image_{i}_product_{i}.jpg"
            shards[shard_of(name, SHARDS)][name] = photo(name)
        for number, photos in shards.items():
            path = self.workspace.raw / "photos" / f"shard-{number:02d}.zip"
            path.parent.mkdir(exist_ok=True)
            write_shard(path, photos)

    def train(self) -> str:
        """Writes a candidate whose content depends on the parameters and the data; gives the run id."""
        params = load_params(self.workspace.params).train.model_dump()
        data = (self.workspace.raw / "X_train_update.csv").read_text()
        seed = sha256_bytes(canonical_json([params, data]))
        with RunRecord.start(self.workspace.runs, params=params) as record:
            shutil.rmtree(self.workspace.candidate, ignore_errors=True)
            self.make_bundle(self.workspace.candidate, seed)
            self.write(
                "reports/train/metrics.json", json.dumps({"epochs": params["text"]["epochs"]})
            )
            self.write(
                "reports/train/plots/curve.csv", f"epoch,loss\n1,{params['text']['epochs']}\n"
            )
        content_id = read_manifest(self.workspace.candidate).content_id
        set_latest(self.workspace, record.run_id, content_id)
        return record.run_id

    def gate(self) -> None:
        release = publish_release(self.workspace, self.workspace.candidate)
        point_champion(self.workspace, release.release_id, "test")

    def predict(self) -> None:
        champion = json.loads(self.workspace.champion_file.read_text())
        self.write("data/predictions/predictions.json", json.dumps({"0": champion["release"]}))

    def run_all(self) -> str:
        """Runs and records every stage as the DAG does; gives the run id."""
        self.ingest()
        self.version("ingest")
        run_id = self.train()
        self.version("train")
        self.gate()
        self.version("gate")
        self.predict()
        self.version("predict")
        self.history.append((run_id, self.outputs()))
        return run_id

    def duplicate(self, root: Path) -> "Project":
        """Copies the whole workspace: quicker than to run and record all stages again."""
        shutil.copytree(self.root, root, symlinks=True)
        other = copy.copy(self)
        other.workspace = Workspace(root)
        other.history = list(self.history)
        return other

    def clone(self, root: Path) -> "Project":
        """Makes an empty clone with access to this project's folder remote."""
        return Project(root, self.make_bundle, dvc_remote_url=str(self.remote))

    @property
    def remote(self) -> Path:
        return self.root / "dvc-remote"

    def remote_objects(self) -> set[str]:
        files = self.remote / "files" / "md5"
        return {path.parent.name + path.name for path in files.glob("??/*")}

    def outputs(self) -> dict[str, bytes]:
        """Reads all bytes that a state consists of."""
        names = (
            "data/raw",
            "models/candidate",
            "models/champion.json",
            "reports",
            "data/predictions",
        )
        paths = [self.root / name for name in (*names, "params.yaml", "dvc.lock")]
        champion = self.workspace.champion.resolve()
        files = [f for path in paths for f in ([path] if path.is_file() else path.rglob("*"))]
        served = {
            f"served/{f.relative_to(champion)}": f.read_bytes()
            for f in champion.rglob("*")
            if f.is_file()
        }
        return served | {
            str(f.relative_to(self.root)): f.read_bytes() for f in files if f.is_file()
        }
