"""From the local record to an MLflow run, in steps that can be broken off and taken up again.

The run carries our own id as the tag `product_classifier.run_id`: a run whose creation was
confirmed to nobody is found again by it, so nothing is uploaded twice.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from product_classifier.core.deadline import within
from product_classifier.core.errors import TrackingError
from product_classifier.core.files import sha256_file
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.tracking.ledger import Ledger, fingerprint, is_uploaded, read_ledger
from product_classifier.tracking.payload import (
    MAX_PARAM_CHARACTERS,
    MAX_TAG_CHARACTERS,
    batches,
    clean_name,
    flatten,
    metric_points,
    shorten,
)
from product_classifier.tracking.record import RunRecord, list_records, mark_killed
from product_classifier.tracking.registry import register_bundle
from product_classifier.tracking.scrub import scrub
from product_classifier.tracking.server import (
    Server,
    ServerAway,
    ServerTooSlow,
    connect,
    find_address,
)

logger = logging.getLogger(__name__)

RUN_ID_TAG = "product_classifier.run_id"
LEFT_OUT_FILE = "left_out.json"
PARAMS_FILE = "params.json"
# Uploads of more than 50 MB time out behind proxies, as DagsHub's; the VGG16 base has 59 MB.
LIGHT_MAX_BYTES = 20_000_000
_METRICS_PER_BATCH = 500
_TEXTS_PER_BATCH = 100
_LOCK = ".uploading"
_ONE_REQUEST_SECONDS = 30.0


@dataclass(frozen=True)
class SyncResult:
    """What `sync_runs` did."""

    uploaded: list[str]
    kept: dict[str, str]  # run id → why

    @property
    def nothing_to_do(self) -> bool:
        """Whether there was no run to upload."""
        return not self.uploaded and not self.kept


def upload_record(record: RunRecord, settings: Settings) -> str:
    """Sends what the server does not have yet of a run and of its nested runs.

    Returns:
        The id of the run in MLflow.

    Raises:
        TrackingError: the server is away, refused, or took too long. What it confirmed is kept in
            the ledger, so that the next call goes on from there.
    """

    def send() -> str:
        with _locked(record), connect(settings) as server:
            experiment_id = _open_experiment(server, settings.mlflow_experiment_name)
            return _Upload(server, settings, experiment_id).send(record, parent=None)

    return within(
        # Between two requests the upload looks at the time itself; this ends a request that never does.
        settings.mlflow_upload_timeout_seconds + _ONE_REQUEST_SECONDS,
        "The upload to MLflow (MLFLOW_UPLOAD_TIMEOUT_SECONDS)",
        send,
        ServerTooSlow,
    )


def upload_or_keep(record: RunRecord, settings: Settings) -> bool:
    """Uploads a run or, where that fails for any reason, warns and keeps it for `sync_runs`.

    Returns:
        Whether the server has all of it.
    """
    return _try_upload(record, settings) is None


def sync_runs(workspace: Workspace, settings: Settings) -> SyncResult:
    """Uploads every ended run that the server does not have in full; never raises for it."""
    mark_killed(workspace.runs)
    uploaded: list[str] = []
    kept: dict[str, str] = {}
    away: str | None = None
    for record in pending_records(workspace):
        if away is None:
            problem = _try_upload(record, settings)
            away = str(problem) if isinstance(problem, ServerAway) else None
        if away is None and problem is None:
            uploaded.append(record.run_id)
        else:
            kept[record.run_id] = away or str(problem)
    return SyncResult(uploaded, kept)


def pending_records(workspace: Workspace) -> list[RunRecord]:
    """Lists the runs that have ended and are not uploaded, oldest first."""
    return [
        record
        for record in list_records(workspace.runs)
        if record.status != "RUNNING" and not is_uploaded(record.folder)
    ]


def _try_upload(record: RunRecord, settings: Settings) -> Exception | None:
    try:
        run_id = upload_record(record, settings)
    except Exception as error:  # training must not fail because tracking does
        logger.warning(
            "MLflow does not have run %s. It is kept in %s; `product-classifier sync-runs` uploads "
            "it. Reason: %s",
            record.run_id,
            record.folder,
            error,
        )
        _note_error(record, settings, str(error))
        return error
    logger.info("Run %s is in MLflow as %s.", record.run_id, run_id)
    return None


def _note_error(record: RunRecord, settings: Settings, problem: str) -> None:
    try:
        uri = find_address(settings).uri
        ledger = read_ledger(record.folder) or Ledger(tracking_uri=uri)
        ledger.error = problem
        ledger.save(record.folder)
    except OSError as error:
        logger.warning("Could not note it: %s", error)


@contextmanager
def _locked(record: RunRecord) -> Iterator[None]:
    # Two uploads of one run at a time would both create it.
    descriptor = os.open(record.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open_experiment(server: Server, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = server.client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(server.client.create_experiment(name))
        except MlflowException:
            # Another upload may have created it meanwhile.
            found = server.client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"Experiment {name!r} is deleted on the server: restore it there, or set another "
            "MLFLOW_EXPERIMENT_NAME."
        )
    return str(found.experiment_id)


class _Upload:
    """One upload of a run and its nested runs."""

    def __init__(self, server: Server, settings: Settings, experiment_id: str) -> None:
        self.server = server
        self.client = server.client
        self.settings = settings
        self.experiment_id = experiment_id
        token = settings.dagshub_token
        self.secrets = (*server.secrets, *((token.get_secret_value(),) if token else ()))

    def send(self, record: RunRecord, parent: str | None) -> str:
        """Brings the server's run up to the record; parents end after their nested runs."""
        ledger, run_id = self._open_run(record, parent)
        self._send_tags(record, ledger, run_id)
        self._send_params(record, ledger, run_id)
        self._send_metrics(record, ledger, run_id)
        self._send_artifacts(record, ledger, run_id)
        for child in record.children():
            self.send(child, parent=run_id)
        if parent is None and record.status == "FINISHED" and ledger.registry is None:
            ledger.registry = register_bundle(self.server, record, self.experiment_id, run_id)
        self.client.set_terminated(run_id, status=record.status, end_time=record.ended_at_ms)
        ledger.state, ledger.error = "uploaded", None
        ledger.save(record.folder)
        return run_id

    def _open_run(self, record: RunRecord, parent: str | None) -> tuple[Ledger, str]:
        ledger = read_ledger(record.folder)
        if ledger is None or ledger.tracking_uri != self.server.uri or not self._has_run(ledger):
            ledger = Ledger(tracking_uri=self.server.uri)
        if ledger.mlflow_run_id is None:
            ledger.mlflow_run_id = self._find_run(record) or self._create_run(record, parent)
            ledger.experiment_id = self.experiment_id
        ledger.state = "pending"
        ledger.save(record.folder)
        return ledger, ledger.mlflow_run_id

    def _has_run(self, ledger: Ledger) -> bool:
        # A server that was set up anew does not know the runs of the old one.
        from mlflow.exceptions import MlflowException

        if ledger.mlflow_run_id is None:
            return True
        try:
            run = self.client.get_run(ledger.mlflow_run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return bool(run.info.lifecycle_stage == "active")

    def _find_run(self, record: RunRecord) -> str | None:
        runs = self.client.search_runs(
            [self.experiment_id], f"tags.`{RUN_ID_TAG}` = '{record.run_id}'", max_results=1
        )
        return str(runs[0].info.run_id) if runs else None

    def _create_run(self, record: RunRecord, parent: str | None) -> str:
        tags = {RUN_ID_TAG: record.run_id}
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        run = self.client.create_run(
            self.experiment_id, start_time=record.started_at_ms, tags=tags, run_name=record.name
        )
        return str(run.info.run_id)

    def _send_tags(self, record: RunRecord, ledger: Ledger, run_id: str) -> None:
        from mlflow.entities import RunTag

        lineage = flatten(record.lineage, "lineage.") if record.lineage else {}
        wanted = {
            clean_name(name): shorten(value, MAX_TAG_CHARACTERS)
            for name, value in scrub({**record.tags, **lineage}, self.secrets).items()
        }
        new = [(name, value) for name, value in wanted.items() if ledger.tags.get(name) != value]
        for batch in batches(new, _TEXTS_PER_BATCH):
            self.server.check_deadline()
            self.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in batch])
        ledger.tags = wanted
        ledger.save(record.folder)

    def _send_params(self, record: RunRecord, ledger: Ledger, run_id: str) -> None:
        from mlflow.entities import Param

        if ledger.params_sent:
            return
        params = scrub(record.params, self.secrets)
        flat = flatten(params)
        # The server keeps the first value of a parameter for ever, and refuses another one.
        known = self.client.get_run(run_id).data.params
        new = [(name, value) for name, value in flat.items() if name not in known]
        for batch in batches(new, _TEXTS_PER_BATCH):
            self.server.check_deadline()
            items = [Param(name, shorten(value, MAX_PARAM_CHARACTERS)) for name, value in batch]
            self.client.log_batch(run_id, params=items)
        if any(len(value) > MAX_PARAM_CHARACTERS for value in flat.values()):
            self.client.log_dict(run_id, params, PARAMS_FILE)
        ledger.params_sent = True
        ledger.save(record.folder)

    def _send_metrics(self, record: RunRecord, ledger: Ledger, run_id: str) -> None:
        from mlflow.entities import Metric

        points = metric_points(record)[ledger.metrics_sent :]
        for batch in batches(points, _METRICS_PER_BATCH):
            self.server.check_deadline()
            self.client.log_batch(run_id, metrics=[Metric(*point) for point in batch])
            ledger.metrics_sent += len(batch)
            ledger.save(record.folder)

    def _send_artifacts(self, record: RunRecord, ledger: Ledger, run_id: str) -> None:
        files = record.artifact_files()
        left_out: dict[str, Any] = {}
        for name, path in files.items():
            size = path.stat().st_size
            if self.settings.mlflow_bundle == "light" and size > LIGHT_MAX_BYTES:
                left_out[name] = {"sha256": sha256_file(path), "size": size}
                continue
            mark = fingerprint(path)
            if ledger.artifacts.get(name) == mark:
                continue
            self.server.check_deadline()
            folder = name.rpartition("/")[0]
            self.client.log_artifact(run_id, str(path), folder or None)
            ledger.artifacts[name] = mark
            ledger.save(record.folder)
        if left_out and LEFT_OUT_FILE not in ledger.artifacts:
            reason = "MLFLOW_BUNDLE=light: DVC has these files, MLflow their hashes."
            self.client.log_dict(run_id, {"reason": reason, "files": left_out}, LEFT_OUT_FILE)
            ledger.artifacts[LEFT_OUT_FILE] = str(len(left_out))
            ledger.save(record.folder)
