"""A Docker Engine in memory behind the real SDK: what the operators send is what the API would get."""

import io
import json
import tarfile
from types import SimpleNamespace

from docker import APIClient
from docker.errors import APIError

NETWORK = {
    "Name": "product_classier",
    "IPAM": {"Config": [{"Subnet": "172.20.0.0/29", "Gateway": "172.20.0.1"}]},
}


def api_error(status, explanation):
    response = SimpleNamespace(status_code=status, url="http://engine", reason="fake")
    return APIError(explanation, response=response, explanation=explanation)


class FakeEngine(APIClient):
    """Containers are the bodies that made them; what a container does is said beforehand."""

    def __init__(self, *, output=(), code=0, image_id="sha256:1"):
        super().__init__(base_url="tcp://127.0.0.1:1", version="1.41")
        self.output, self.code, self.image_id = list(output), code, image_id
        self.found = []
        self.bodies = {}
        self.names = {}
        self.calls = []
        self.refusal = None
        self.wait_result = None

    # What the operators call. The SDK's own create_container() builds the body.
    def create_container_from_config(self, config, name=None, platform=None):
        if self.refusal:
            raise self.refusal
        container = f"container{len(self.bodies)}"
        self.bodies[container] = json.loads(json.dumps(config))
        self.names[container] = name
        self.calls.append(("create", container))
        return {"Id": container}

    def attach(self, container, **options):
        self.calls.append(("attach", container))
        return iter(self.output)

    def post(self, url, **options):
        self.calls.append(("wait", url.split("/")[-2], options["params"]))
        result = self.wait_result or {"StatusCode": self.code}
        return SimpleNamespace(raise_for_status=lambda: None, json=lambda: result)

    def start(self, container):
        self.calls.append(("start", container))

    def stop(self, container, timeout=None):
        self.calls.append(("stop", container, timeout))

    def remove_container(self, container, force=False):
        self.calls.append(("remove", container))
        self.found = [one for one in self.found if one["Id"] != container]
        raise api_error(404, "No such container")

    def wait(self, container, timeout=None, condition=None):
        raise api_error(404, "No such container")

    def containers(self, all=False, filters=None):
        wanted = dict(label.split("=", 1) for label in filters["label"])
        return [c for c in self.found if wanted.items() <= c["Labels"].items()]

    def inspect_image(self, image):
        return {"Id": self.image_id}

    def inspect_network(self, network):
        return NETWORK

    def inspect_container(self, container):
        return {
            "State": {"Running": True, "ExitCode": 0},
            "RestartCount": 0,
            "Config": {"StopTimeout": 40, "Env": []},
            "NetworkSettings": {"Networks": {"product_classier": {"IPAddress": "172.20.0.3"}}},
        }

    def logs(self, container, tail=None):
        return b"a line of its log"

    def get_archive(self, container, path):
        content = json.dumps({"content_id": "0123456789abcdef" * 4}).encode()
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            member = tarfile.TarInfo("champion.json")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        return iter([buffer.getvalue()]), {}
