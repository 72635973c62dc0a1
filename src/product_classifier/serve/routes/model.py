"""The model that is live: where it comes from, how good it was in its test, and what it sees now."""

from typing import Any

import psutil
from fastapi import APIRouter, Depends, Request

from product_classifier import __version__
from product_classifier.core.bundle import Manifest
from product_classifier.serve.dependencies import (
    AdminUser,
    EngineDep,
    MetricsDep,
    ReloaderDep,
    current_user,
)
from product_classifier.web.problems import Problem, problem_responses

_STATUSES = problem_responses(401, 413, 429, 431, 503)

router = APIRouter(tags=["model"], dependencies=[Depends(current_user)], responses=_STATUSES)


@router.get("/model-info", deprecated=True, operation_id="show_model_model_info_get_deprecated")
@router.get("/model/info")
async def show_model(request: Request, engine: EngineDep) -> dict[str, Any]:
    """Show the live bundle's lineage, labels, preprocessing, thresholds and test results."""
    model = engine.current()
    request.state.bundle_id = model.bundle_id
    manifest = model.manifest
    return {
        "bundle_id": model.bundle_id,
        "content_id": manifest.content_id,
        "created_at": manifest.created_at,
        "loaded_at": model.loaded_at,
        "trained_with_version": manifest.package_version,
        "version": __version__,
        "labels": [
            {"code": code, **manifest.names[str(code)].model_dump()} for code in manifest.labels
        ],
        "precision": model.precision,
        "preprocessing": manifest.preprocessing.model_dump(),
        "backbone": manifest.backbone.model_dump(),
        "thresholds": manifest.thresholds.model_dump(),
        "metrics": manifest.metrics,
        "warnings": manifest.warnings,
    }


@router.post("/model/reload", responses=problem_responses(403, 408, 409))
async def reload_model(_admin: AdminUser, reloader: ReloaderDep) -> dict[str, Any]:
    """Look for a new champion now: verify, load and warm it up, then swap; the old one answers meanwhile."""
    result = await reloader.reload()
    if result["outcome"] == "refused":
        raise Problem(
            409,
            "Conflict",
            "The new bundle was refused; what was live goes on.",
            outcome="refused",
            bundle_id=result["bundle_id"],
            reason=result["detail"],
        )
    return result


@router.get("/metrics/model")
async def show_model_metrics(engine: EngineDep) -> dict[str, Any]:
    """Show the live bundle's test results, branch by branch and class by class."""
    model = engine.current()
    return {"bundle_id": model.bundle_id, "metrics": model.manifest.metrics}


@router.get("/metrics/system")
def show_system(engine: EngineDep) -> dict[str, Any]:
    """Show what this process and its machine use."""
    process = psutil.Process()
    with process.oneshot():
        times = process.cpu_times()
        used = {
            "memory_bytes": process.memory_info().rss,
            "cpu_seconds": times.user + times.system,
            "threads": process.num_threads(),
            "started_at": process.create_time(),
        }
    memory, disk = psutil.virtual_memory(), psutil.disk_usage(".")
    return {
        "process": used,
        "machine": {
            "cpu_percent": psutil.cpu_percent(interval=None),
            "cpu_count": psutil.cpu_count(),
            "load_average": list(psutil.getloadavg()),
            "memory_total_bytes": memory.total,
            "memory_available_bytes": memory.available,
            "disk_total_bytes": disk.total,
            "disk_free_bytes": disk.free,
        },
        "engine": {
            "workers": engine.workers,
            "waiting": engine.waiting,
            "in_flight": engine.in_flight,
        },
    }


@router.get("/metrics/kpis")
async def show_kpis(engine: EngineDep, metrics: MetricsDep) -> dict[str, Any]:
    """Show what the test promised beside what was seen since the start."""
    model = engine.current()
    return {
        "bundle_id": model.bundle_id,
        "expected": _expected_kpis(model.manifest),
        "live": metrics.live.kpis(),
    }


def _expected_kpis(manifest: Manifest) -> dict[str, Any]:
    fusion = manifest.metrics.get("fusion", {})
    return {
        "accuracy": fusion.get("accuracy"),
        "macro_f1": fusion.get("macro_f1"),
        "weighted_f1": fusion.get("weighted_f1"),
        "calibration_error": fusion.get("calibration_error"),
        "auto_share": fusion.get("coverage"),
        "auto_precision": fusion.get("auto_precision"),
        "target_precision": manifest.thresholds.target_precision,
        "auto_from": manifest.thresholds.auto_from,
        "test_products": fusion.get("n"),
    }


@router.get("/metrics/feature-distribution")
async def show_feature_distribution(engine: EngineDep, metrics: MetricsDep) -> dict[str, Any]:
    """Show the training catalogue's figures beside those of the products seen since the start."""
    model = engine.current()
    return {
        "bundle_id": model.bundle_id,
        "reference": model.manifest.reference,
        "live": metrics.live.feature_distribution(),
    }
