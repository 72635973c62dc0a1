"""Which runtime carries the pipeline, and why."""

from dataclasses import dataclass
from typing import Literal

from product_classifier.core.errors import ConfigurationError
from product_classifier.core.settings import Settings


@dataclass(frozen=True)
class RuntimeChoice:
    """A runtime, and the reason in words for the terminal."""

    name: Literal["docker", "process"]
    reason: str


def choose_runtime(settings: Settings) -> RuntimeChoice:
    """Picks the runtime that PIPELINE_RUNTIME names.

    Raises:
        ConfigurationError: docker is asked for; this version has no container runtime yet.
    """
    if settings.pipeline_runtime == "docker":
        raise ConfigurationError(
            "This version runs the stages as processes only. Expected PIPELINE_RUNTIME=auto or "
            "process. Received: PIPELINE_RUNTIME=docker."
        )
    if settings.pipeline_runtime == "process":
        return RuntimeChoice("process", "PIPELINE_RUNTIME asks for it")
    return RuntimeChoice("process", "it needs nothing but Python; PIPELINE_RUNTIME=auto")
