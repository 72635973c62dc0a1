"""Names for models in MLflow: its registry where the server has one, tags on the runs elsewhere.

DagsHub has answered 404 to the registry and 500 to newer calls (DagsHub/client#629, #457), so what
a server can do is tried, not assumed.
"""

import logging

from product_classifier.core.deadline import within
from product_classifier.core.files import read_json, write_json_atomic
from product_classifier.core.releases import current_champion
from product_classifier.core.settings import Settings
from product_classifier.core.workspace import Workspace
from product_classifier.tracking.ledger import is_uploaded
from product_classifier.tracking.record import RunRecord, list_records
from product_classifier.tracking.server import Server, ServerTooSlow, connect

logger = logging.getLogger(__name__)

MODEL_NAME = "ProductCodeClassifier"
BUNDLE_FOLDER = "bundle"  # where a training's artifacts have the bundle
CONTENT_ID_TAG = "content_id"
MODEL_NAME_TAG = "registered_model_name"
ALIAS_TAG_PREFIX = "alias."
CANDIDATE = "candidate"
CHAMPION = "champion"
_MARK_SECONDS = 60.0  # five small questions
_TOLD_FILE = "champion_alias.json"


def register_bundle(
    server: Server, record: RunRecord, experiment_id: str, run_id: str
) -> str | None:
    """Registers a run's bundle as the newest version, with the alias `candidate`.

    Returns:
        "version N", "tags" where the server has no registry, or None where the run has no bundle.
    """
    content_id = bundle_content_id(record)
    if content_id is None:
        return None
    server.client.set_tag(run_id, CONTENT_ID_TAG, content_id)
    try:
        version = _find_version(server, run_id) or _create_version(server, run_id, content_id)
        server.client.set_registered_model_alias(MODEL_NAME, CANDIDATE, version)
    except Exception as error:
        # Still there without a registry? Then tags have to do. Gone? Then this raises.
        server.client.get_run(run_id)
        logger.info(
            "MLflow at %s has no model registry for us (%s): using tags.", server.uri, error
        )
        server.client.set_tag(run_id, MODEL_NAME_TAG, MODEL_NAME)
        _move_alias_tag(server, experiment_id, run_id, CANDIDATE)
        return "tags"
    return f"version {version}"


def _find_version(server: Server, run_id: str) -> str | None:
    found = server.client.search_model_versions(f"run_id = '{run_id}'")
    versions = [str(item.version) for item in found if item.name == MODEL_NAME]
    return versions[0] if versions else None


def _create_version(server: Server, run_id: str, content_id: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        server.client.create_registered_model(
            MODEL_NAME, description="Product type from title, description and photo: VGG16 + LSTM."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    artifact_uri = server.client.get_run(run_id).info.artifact_uri
    version = server.client.create_model_version(
        MODEL_NAME,
        f"{artifact_uri}/{BUNDLE_FOLDER}",
        run_id,
        tags={CONTENT_ID_TAG: content_id},
        await_creation_for=0,
    )
    return str(version.version)


def _move_alias_tag(server: Server, experiment_id: str, run_id: str, alias: str) -> None:
    tag = f"{ALIAS_TAG_PREFIX}{alias}"
    for run in server.client.search_runs([experiment_id], f"tags.`{tag}` = 'true'"):
        if run.info.run_id != run_id:
            server.client.delete_tag(run.info.run_id, tag)
    server.client.set_tag(run_id, tag, "true")


def champion_alias_is_due(workspace: Workspace) -> bool:
    """Says whether the champion is another one than the server was last told."""
    champion = current_champion(workspace)
    return champion is not None and _told(workspace) != champion.content_id


def mark_champion(workspace: Workspace, settings: Settings) -> bool:
    """Moves the alias `champion` to the present one; warns where that fails, never raises.

    Returns:
        Whether the server knows it now, or has no run that made this bundle.
    """
    champion = current_champion(workspace)
    if champion is None or _told(workspace) == champion.content_id:
        return True

    def mark() -> bool:
        with connect(settings) as server:
            return _mark(server, settings.mlflow_experiment_name, champion.content_id)

    try:
        found = within(_MARK_SECONDS, "Telling MLflow the champion", mark, ServerTooSlow)
        if not found and _is_waiting(workspace, champion.content_id):
            return False  # sync-runs uploads its run and then asks for this again
        write_json_atomic(workspace.runs / _TOLD_FILE, {CONTENT_ID_TAG: champion.content_id})
    except Exception as error:  # the champion has moved; only its label in MLflow is late
        logger.warning(
            "MLflow was not told that %s is champion: %s `product-classifier sync-runs` does it.",
            champion.release_id,
            error,
        )
        return False
    return True


def _mark(server: Server, experiment: str, content_id: str) -> bool:
    found = server.client.get_experiment_by_name(experiment)
    if found is None:
        return False
    query = f"tags.{CONTENT_ID_TAG} = '{content_id}'"
    runs = server.client.search_runs([found.experiment_id], query)
    if not runs:
        logger.info("MLflow has no run that made the champion.")
        return False
    run_id = runs[0].info.run_id
    try:
        version = _find_version(server, run_id)
        if version is not None:
            server.client.set_registered_model_alias(MODEL_NAME, CHAMPION, version)
            return True
    except Exception:
        server.client.get_run(run_id)
    _move_alias_tag(server, found.experiment_id, run_id, CHAMPION)
    return True


def bundle_content_id(record: RunRecord) -> str | None:
    """Gives the content id of the bundle that a run made, or None where it made none."""
    manifest = record.artifacts / BUNDLE_FOLDER / "manifest.json"
    return str(read_json(manifest).get(CONTENT_ID_TAG, "")) if manifest.is_file() else None


def _is_waiting(workspace: Workspace, content_id: str) -> bool:
    return any(
        not is_uploaded(record.folder) and bundle_content_id(record) == content_id
        for record in list_records(workspace.runs)
    )


def _told(workspace: Workspace) -> str | None:
    try:
        return str(read_json(workspace.runs / _TOLD_FILE)[CONTENT_ID_TAG])
    except (FileNotFoundError, ValueError, KeyError):
        return None
