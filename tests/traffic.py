"""Scripted traffic for the running services: good, bad, slow, unauthorised, sign-in attack, drifting.

Everything goes to 127.0.0.1 and is bounded twice: by a number of requests and by a time. The products are those that a
catalogue of the trained workspace holds, so that the model sees what it knows until `drift` says otherwise.
"""

import http.client
import random
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from product_forms import MULTIPART, Item, batch_form_of, drifted, form_of
from service_processes import ADMIN, ADMIN_PASSWORD, Answer, ServiceProcess, Services

SCRIPT_SECONDS = 300.0
MAX_REQUESTS = 20_000
SLOW_SECONDS = 1.4  # above the second that the latency objective allows
FORM = "application/x-www-form-urlencoded"


@dataclass
class Traffic:
    """Sends requests of every kind and counts what came back; may be used from several threads."""

    services: Services
    items: Sequence[Item]
    seed: int = 1
    max_requests: int = MAX_REQUESTS
    # By kind and status; 0 is no answer.
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    token: str = ""  # the administrator's, once signed in
    _number: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    @property
    def sent(self) -> int:
        """Requests so far."""
        return self._number

    def sign_in(self) -> None:
        """Signs the administrator in; his token goes with every request from now on."""
        self.token = self.services.token()

    def count(self, kind: str) -> Counter[int]:
        """Says what the requests of a kind were answered."""
        with self._lock:
            return Counter({s: n for (name, s), n in self.statuses.items() if name == kind})

    # --- single requests --------------------------------------------------------------------------------------------

    def good(self) -> int:
        """Asks for a product as it was trained on."""
        return self._predict("good", self._pick())

    def one_part(self, number: int) -> int:
        """Asks with a title alone, or with a photo alone."""
        item = self._pick()
        only = Item(item.title, None, None) if number % 2 else Item(None, None, item.photo)
        return self._predict("one part", only if any(only) else item)

    def batch(self) -> int:
        """Asks for four products at once."""
        body = batch_form_of([self._pick() for _ in range(4)])
        return self._serve("batch", "POST", "/predict/batch", body, {"Content-Type": MULTIPART})

    def look(self, number: int) -> int:
        """Reads one of the pages."""
        paths = ("/model/info", "/metrics/model", "/logs", "/health", "/ready", "/status")
        return self._serve("look", "GET", paths[number % len(paths)])

    def bad(self, number: int) -> int:
        """Sends what can't be answered: no content, a broken photo, no form, a path that is not there."""
        empty, broken = Item(None, None, None), Item("Livre", None, b"not a photo at all")
        requests: tuple[Callable[[], int], ...] = (
            lambda: self._predict("bad", empty),
            lambda: self._predict("bad", broken),
            lambda: self._serve("bad", "POST", "/predict", b"{}", {"Content-Type": "text/plain"}),
            lambda: self._serve("bad", "GET", f"/wp-login-{number}.php"),
        )
        return requests[number % len(requests)]()

    def unauthorized(self, number: int) -> int:
        """Asks without a token, with a text that is none, or for what only others may."""
        item, sent = self._pick(), {"Content-Type": MULTIPART}
        token = (None, "not-a-token")[number % 2]
        if number % 4 == 3:
            return self._send("unauthorized", self.services.auth, "GET", "/users/me", token=token)
        body = form_of(item)
        serve = self.services.serve
        return self._send("unauthorized", serve, "POST", "/predict", body, sent, token=token)

    def failing(self) -> int:
        """Asks for what the service can't do now: training is started by an Airflow that is away, which is a 503."""
        headers = {"Content-Type": "application/json"}
        return self._serve("failing", "POST", "/train", b"{}", headers)

    def signing_in(self, number: int) -> int:
        """Signs in with the right password, at auth or through serve."""
        service = self.services.auth if number % 2 else self.services.serve
        return self._password("signing in", service, ADMIN, ADMIN_PASSWORD)

    def attack(self, number: int) -> int:
        """Guesses a password: five user names, so that each is locked out soon."""
        service = self.services.auth if number % 3 else self.services.serve
        return self._password("attack", service, f"victim-{number % 5}", f"guess-{number}")

    def drift(self) -> int:
        """Asks for a product that is unlike those of the training."""
        item = self._pick()
        return self._predict("drift", drifted(item, self._random.randrange(1000)))

    def slow(self) -> int:
        """Sends a product's body so slowly that the answer is late."""
        body = form_of(self._pick())
        head = {"Content-Type": MULTIPART, "Content-Length": str(len(body)), **self._bearer()}
        connection = http.client.HTTPConnection("127.0.0.1", self.services.serve.port, timeout=30)
        status = 0
        self._begin()
        with suppress(OSError, http.client.HTTPException):
            connection.putrequest("POST", "/predict")
            for name, value in head.items():
                connection.putheader(name, value)
            connection.endheaders()
            connection.send(body[:-2])
            time.sleep(SLOW_SECONDS)
            connection.send(body[-2:])
            status = connection.getresponse().status
        connection.close()
        return self._note("slow", status)

    # --- how they are sent ------------------------------------------------------------------------------------------

    def _pick(self) -> Item:
        with self._lock:
            return self._random.choice(self.items)

    def _bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def _predict(self, kind: str, item: Item) -> int:
        return self._serve(kind, "POST", "/predict", form_of(item), {"Content-Type": MULTIPART})

    def _password(self, kind: str, service: ServiceProcess, user: str, password: str) -> int:
        body = urllib.parse.urlencode({"username": user, "password": password})
        return self._send(kind, service, "POST", "/token", body, {"Content-Type": FORM})

    def _serve(
        self,
        kind: str,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> int:
        serve = self.services.serve
        return self._send(kind, serve, method, path, body, headers, token=self.token or None)

    def _send(
        self,
        kind: str,
        service: ServiceProcess,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: dict[str, str] | None = None,
        *,
        token: str | None = None,
    ) -> int:
        self._begin()
        status = 0
        with suppress(OSError, http.client.HTTPException):
            answer: Answer = service.request(method, path, body, headers, token=token, timeout=30)
            status = answer.status
        return self._note(kind, status)

    def _begin(self) -> None:
        with self._lock:
            if self._number >= self.max_requests:
                raise TooManyRequests(f"The traffic is bounded to {self.max_requests} requests.")
            self._number += 1

    def _note(self, kind: str, status: int) -> int:
        with self._lock:
            self.statuses[kind, status] += 1
        return status


class TooManyRequests(AssertionError):
    """The script would send more than it may."""


@dataclass(frozen=True)
class Script:
    """How often what is sent, per second; the parts come in an order that is the same each time."""

    seconds: float = SCRIPT_SECONDS
    good: float = 4.0
    one_part: float = 0.2
    batch: float = 0.1
    look: float = 0.5
    bad: float = 0.2
    unauthorized: float = 0.2
    failing: float = 0.02
    signing_in: float = 0.05
    attack: float = 0.0
    drift: float = 0.0
    slow: float = 0.05

    @classmethod
    def only(cls, seconds: float, **rates: float) -> "Script":
        """A script of nothing but what is named."""
        nothing = dict.fromkeys((*_KINDS, *_MORE), 0.0)
        return cls(seconds=seconds, **{**nothing, **rates})

    def with_everything(self) -> "Script":
        """Adds what is wrong on purpose: attack and drift."""
        return replace(self, attack=0.5, drift=3.0, failing=0.1, slow=0.2)


_KINDS = ("good", "one_part", "batch", "look", "bad", "unauthorized", "failing")
_MORE = ("signing_in", "attack", "drift", "slow")
_NUMBERED = {"one_part", "look", "bad", "unauthorized", "signing_in", "attack"}


def run_script(traffic: Traffic, script: Script, stop: threading.Event | None = None) -> None:
    """Sends what the script says until its time is over or `stop` is set.

    Slow requests have a thread of their own; all others go out one after the other. Where the
    machine can't keep up, requests are left out, not sent later.
    """
    ended = stop or threading.Event()
    end = time.monotonic() + script.seconds
    if not traffic.token:
        traffic.sign_in()
    kinds = [kind for kind in (*_KINDS, *_MORE) if getattr(script, kind) > 0]
    threads = [
        threading.Thread(
            target=_send_evenly, args=(traffic, script, group, end, ended), daemon=True
        )
        for group in ([k for k in kinds if k != "slow"], [k for k in kinds if k == "slow"])
        if group
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(script.seconds + 60)
        assert not thread.is_alive(), "the traffic does not end"


def _send_evenly(
    traffic: Traffic, script: Script, kinds: list[str], end: float, stop: threading.Event
) -> None:
    started = time.monotonic()
    due = {kind: started + index * 0.05 for index, kind in enumerate(kinds)}
    numbers = dict.fromkeys(kinds, 0)
    while (now := time.monotonic()) < end and not stop.is_set():
        kind = min(due, key=lambda name: due[name])
        if due[kind] > now:
            stop.wait(min(due[kind], end) - now)
            continue
        due[kind] = max(due[kind] + 1 / getattr(script, kind), now)
        send = getattr(traffic, kind)
        try:
            send(numbers[kind]) if kind in _NUMBERED else send()
        except TooManyRequests:
            return
        numbers[kind] += 1


@contextmanager
def traffic_running(traffic: Traffic, script: Script) -> Iterator[Traffic]:
    """Runs a script beside the test's own work; ends it with the block."""
    stop = threading.Event()
    if not traffic.token:
        traffic.sign_in()
    thread = threading.Thread(target=run_script, args=(traffic, script, stop), daemon=True)
    thread.start()
    try:
        yield traffic
    finally:
        stop.set()
        thread.join(90)
        assert not thread.is_alive(), "the traffic does not end"
