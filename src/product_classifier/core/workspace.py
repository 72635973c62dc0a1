"""Where things are: the one place that knows the folders of a checkout."""

from dataclasses import dataclass
from pathlib import Path

TRAIN_FILE = "X_train_update.csv"
LABELS_FILE = "Y_train_CVw08PX.csv"
TEST_FILE = "X_test_update.csv"


@dataclass(frozen=True)
class Workspace:
    """The folders of one checkout, relative to its root."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> "Workspace":
        """Finds the checkout that holds `start` (default: the current folder): the first parent with a dvc.yaml."""
        here = (start or Path.cwd()).resolve()
        for folder in (here, *here.parents):
            if (folder / "dvc.yaml").is_file():
                return cls(folder)
        return cls(here)

    @property
    def params(self) -> Path:
        """Hyperparameters."""
        return self.root / "params.yaml"

    @property
    def raw(self) -> Path:
        """What `ingest` publishes: CSV files, photo shards, split, statistics, report."""
        return self.root / "data" / "raw"

    @property
    def downloads(self) -> Path:
        """Fetched source files, kept between runs; not versioned."""
        return self.root / "data" / "downloads"

    @property
    def probes(self) -> Path:
        """Small files that say what a stage's outside input is now; DVC depends on them."""
        return self.root / "data" / "probes"

    @property
    def cache(self) -> Path:
        """What can be computed again: photo features, checkpoints."""
        return self.root / "data" / "cache"

    @property
    def predictions(self) -> Path:
        """What batch `predict` publishes."""
        return self.root / "data" / "predictions"

    @property
    def models(self) -> Path:
        """All model artefacts."""
        return self.root / "models"

    @property
    def candidate(self) -> Path:
        """The bundle that `train` publishes."""
        return self.models / "candidate"

    @property
    def releases(self) -> Path:
        """Bundles that passed the gate, one folder per id."""
        return self.models / "releases"

    @property
    def champion(self) -> Path:
        """Symlink to the release that scores and serves."""
        return self.models / "champion"

    @property
    def champion_file(self) -> Path:
        """What the gate wrote about the champion; `predict` depends on it."""
        return self.models / "champion.json"

    @property
    def runs(self) -> Path:
        """Local record of each training run, kept until the tracking server has it and after."""
        return self.root / "runs"

    @property
    def metrics(self) -> Path:
        """Text files for Prometheus that commands write; beside it are folders of other writers."""
        return self.root / ".state" / "metrics" / "workspace"

    @property
    def run_metrics(self) -> Path:
        """Text files for Prometheus that the pipeline's tasks and runs write, where Airflow runs on this machine."""
        return self.root / ".state" / "metrics" / "airflow"

    @property
    def reports(self) -> Path:
        """Metrics and plots that DVC compares between versions."""
        return self.root / "reports"
