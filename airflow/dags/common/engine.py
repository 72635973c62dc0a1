"""What goes wrong between a task and the Docker Engine, in words that name the fix."""

import codecs
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowException, AirflowFailException
from common.containers import ContainerRuntime
from docker.errors import APIError, DockerException
from requests.exceptions import RequestException

_NO_SUCH_PATH = ("bind source path does not exist", "mounts denied", "is not shared from the host")


def output_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Cuts a container's output into lines; empty ones are left out."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    for chunk in chunks:
        *whole, rest = (rest + decoder.decode(chunk)).split("\n")
        yield from (line.rstrip() for line in whole if line.strip())
    rest += decoder.decode(b"", final=True)
    if rest.strip():
        yield rest.rstrip()


@contextmanager
def explained(runtime: ContainerRuntime, image: str) -> Iterator[None]:
    """Turns what the engine says into what to do.

    Raises:
        AirflowFailException: trying again can't help.
        AirflowException: the engine is away or busy.
    """
    try:
        yield
    except APIError as error:
        said = str(error.explanation or error)
        if advice := _advice(runtime, image, error, said):
            raise AirflowFailException(f"{advice} The engine says: {said}") from error
        raise AirflowException(f"The Docker Engine refuses: {said}") from error
    except (DockerException, RequestException) as error:
        raise AirflowException(
            f"The Docker Engine does not answer through DOCKER_HOST ({type(error).__name__}): see "
            f"`make logs S=socket-proxy`. {error}"
        ) from error


def _advice(runtime: ContainerRuntime, image: str, error: APIError, said: str) -> str | None:
    text = said.lower()
    if any(part in text for part in _NO_SUCH_PATH):
        if runtime.host_path in said:
            return (
                f"PROJECT_HOST_PATH={runtime.host_path} is not this project's checkout on the "
                "Docker host. Set it in .env to the absolute path of the checkout as the Docker "
                "host names it, then `make start`."
            )
        return "A path of the settings does not exist on the Docker host."
    if error.status_code == 404 and "image" in text:
        return f"There is no image {image} on the Docker host. `make build` makes it."
    if "network" in text and "not found" in text:
        return f"There is no network {runtime.network} (NETWORK_NAME). `make start` makes it."
    if "device driver" in text:
        return (
            f"TRAIN_GPUS={runtime.gpus}, but the Docker host gives containers no GPU. Install "
            "NVIDIA's container toolkit there, or leave TRAIN_GPUS empty."
        )
    if error.status_code == 403:
        return "The socket proxy does not allow this container."
    return None
