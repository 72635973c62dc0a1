"""Where the embedded run keeps its things: `.state/` in the checkout, which git ignores."""

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from product_classifier.core.errors import RuntimeServiceError
from product_classifier.core.workspace import Workspace

# Every process that we start carries this variable, and its children inherit it: so `stop` finds
# them all.
STATE_VARIABLE = "PRODUCT_CLASSIFIER_STATE"


@dataclass(frozen=True)
class Layout:
    """Folders and programs of the embedded run of one checkout."""

    root: Path

    @classmethod
    def find(cls) -> "Layout":
        """Finds the checkout whose embedded run this process belongs to, else the one it is in.

        A task of the pipeline knows the first by the variable that it inherits.
        """
        state = os.environ.get(STATE_VARIABLE)
        return cls(Path(state).parent if state else Workspace.find().root)

    @property
    def state(self) -> Path:
        """All state of the embedded run; private."""
        return self.root / ".state"

    @property
    def logs(self) -> Path:
        """One log file per service."""
        return self.state / "logs"

    @property
    def services(self) -> Path:
        """What each service runs, as JSON; private, since environments hold secrets."""
        return self.state / "services"

    @property
    def airflow_home(self) -> Path:
        """Airflow's database, task logs and password file."""
        return self.state / "airflow"

    @property
    def mlflow_home(self) -> Path:
        """MLflow's database and artefacts."""
        return self.state / "mlflow"

    @property
    def monitoring(self) -> Path:
        """Configuration and data of the monitoring's programs; private, as receivers are secrets."""
        return self.state / "monitoring"

    @property
    def monitoring_source(self) -> Path:
        """What the project says about monitoring: jobs, rules, routes, dashboards."""
        return self.root / "monitoring"

    @property
    def dags(self) -> Path:
        """The folder that Airflow reads."""
        return self.root / "airflow" / "dags"

    @property
    def airflow_config(self) -> Path:
        """Modules of ours that Airflow itself imports."""
        return self.root / "airflow" / "config"

    @property
    def deployed(self) -> Path:
        """Names of the services that the pipeline deployed, as JSON."""
        return self.state / "deployed.json"

    @property
    def auth_home(self) -> Path:
        """Folder that auth runs in, and where its keys and database are unless set otherwise."""
        return self.state / "auth"

    @property
    def example(self) -> Path:
        """A product of the catalogue for the commands that `start` prints."""
        return self.state / "example"

    @property
    def dotenv(self) -> Path:
        """The settings file of this checkout."""
        return self.root / ".env"

    def program(self, name: str) -> Path:
        """Gives a program of the project's environment."""
        return self.root / ".venv" / "bin" / name

    def airflow_program(self, name: str) -> Path:
        """Gives a program of Airflow's own environment."""
        return self.root / "airflow" / ".venv" / "bin" / name

    @property
    def socket(self) -> Path:
        """The supervisor's socket, not in the checkout: its path may have 107 bytes at most."""
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:10]
        base = Path("/tmp") if os.access("/tmp", os.W_OK) else Path(tempfile.gettempdir())  # noqa: S108
        return base / f"product-classifier-{os.getuid()}-{digest}" / "supervisor.sock"

    def prepare(self) -> None:
        """Creates the folders, all private to this user.

        Raises:
            RuntimeServiceError: somebody else owns the socket's folder.
        """
        for folder in (self.state, self.logs, self.services, self.airflow_home, self.mlflow_home):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory = self.socket.parent
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
        private = stat.S_ISDIR(found.st_mode) and not stat.S_IMODE(found.st_mode) & 0o077
        if not private or found.st_uid != os.getuid():
            raise RuntimeServiceError(
                f"{directory} must be a folder of this user with mode 700. Remove it and try again."
            )
