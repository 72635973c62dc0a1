"""From candidate to champion, or a reason why not."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from product_classifier.core.bundle import Bundle, load_bundle
from product_classifier.core.errors import ArtifactError, ExitCode, ProductClassifierError
from product_classifier.core.export import export_champion, plan_exports
from product_classifier.core.files import write_json_atomic
from product_classifier.core.params import GateParams
from product_classifier.core.releases import current_champion, point_champion, publish_release
from product_classifier.core.settings import ExportSettings
from product_classifier.core.workspace import Workspace
from product_classifier.gate.decide import Floor, measure_floors

logger = logging.getLogger(__name__)

REPORT_FILE = "gate.json"

Decision = Literal["published", "unchanged", "refused"]


class GateRefused(ProductClassifierError):
    """The candidate is not good enough and there is no champion that could stay."""

    # The same candidate is refused again however often the task is retried.
    exit_code = ExitCode.BAD_INPUT


@dataclass(frozen=True)
class GateOutcome:
    """What the gate decided."""

    decision: Decision
    champion: str | None
    floors: list[Floor]
    reasons: list[str]


def run_gate(workspace: Workspace, params: GateParams, settings: ExportSettings) -> GateOutcome:
    """Makes the candidate champion where it clears the floors, else reports why not.

    Raises:
        ArtifactError: the candidate is missing or damaged; the champion stays.
        ConfigurationError: an export path can't be used; nothing was published.
        GateRefused: the candidate is below a floor and there is no champion.
    """
    plan_exports(workspace, settings)
    champion = current_champion(workspace)
    before = champion.release_id if champion else None
    try:
        bundle = load_bundle(workspace.candidate)
    except ArtifactError as error:
        _report(workspace, None, before, GateOutcome("refused", before, [], [str(error)]))
        raise
    floors = measure_floors(bundle.manifest, params)
    for floor in floors:
        logger.log(logging.INFO if floor.passed else logging.WARNING, "Gate: %s", floor.as_text())
    reasons = [floor.as_text() for floor in floors if not floor.passed]
    if reasons:
        outcome = GateOutcome("refused", before, floors, reasons)
    else:
        outcome = _publish(workspace, before, floors)
        export_champion(workspace, settings)
    _report(workspace, bundle, before, outcome)
    if reasons and before is None:
        raise GateRefused(
            f"Candidate {bundle.bundle_id} is refused and there is no champion: "
            + "; ".join(reasons)
        )
    if reasons:
        logger.warning(
            "Candidate %s is refused, %s stays champion: %s",
            bundle.bundle_id,
            before,
            "; ".join(reasons),
        )
    return outcome


def _publish(workspace: Workspace, before: str | None, floors: list[Floor]) -> GateOutcome:
    release = publish_release(workspace, workspace.candidate)
    point_champion(workspace, release.release_id, "cleared the floors of params.yaml")
    decision: Decision = "unchanged" if release.release_id == before else "published"
    return GateOutcome(decision, release.release_id, floors, [])


def _report(
    workspace: Workspace, bundle: Bundle | None, before: str | None, outcome: GateOutcome
) -> None:
    write_json_atomic(
        workspace.reports / REPORT_FILE,
        {
            "schema_version": 1,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "decision": outcome.decision,
            "candidate": bundle.manifest.content_id if bundle else None,
            "champion_before": before,
            "champion_after": outcome.champion,
            "floors": [floor.as_json() for floor in outcome.floors],
            "reasons": outcome.reasons,
        },
    )
