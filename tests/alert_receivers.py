"""Who is told of alerts, on 127.0.0.1: an HTTP server as Slack, webhook and log, and a mail server with STARTTLS."""

import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from handler_server import handler_server

HOST = "127.0.0.1"
T = TypeVar("T")


@dataclass
class Inbox(Generic[T]):
    """What came, in its order."""

    items: list[T] = field(default_factory=list)
    _came: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def put(self, item: T) -> None:
        """Takes one more."""
        with self._came:
            self.items.append(item)
            self._came.notify_all()

    def wait_for(self, fits: Callable[[T], bool], seconds: float, what: str) -> T:
        """Gives the first that fits, as soon as it is there; fails with all that came."""
        with self._came:
            self._came.wait_for(lambda: any(map(fits, self.items)), seconds)
            found = [item for item in self.items if fits(item)]
            came = list(self.items)
        assert found, f"Not within {seconds:.0f} s: {what}. Came: {came}"
        return found[0]


@dataclass(frozen=True)
class Post:
    """One request with JSON."""

    path: str
    content: Any


@dataclass
class HTTPReceivers:
    """The HTTP server: what was posted."""

    port: int
    posts: Inbox[Post] = field(default_factory=Inbox)
    hangs_up_on: set[str] = field(default_factory=set)  # paths that get no answer now


@contextmanager
def http_receivers() -> Iterator[HTTPReceivers]:
    """Takes what is posted, on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            receivers.posts.put(Post(self.path, json.loads(body)))
            if self.path in receivers.hangs_up_on:
                self.close_connection = True
                return
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: Any) -> None:
            """Stays silent."""

    with handler_server(Handler) as port:
        receivers = HTTPReceivers(port)
        yield receivers


@dataclass(frozen=True)
class Mail:
    """One message, with what the envelope and the connection say."""

    sender: str
    recipients: list[str]
    encrypted: bool
    message: EmailMessage

    @property
    def subject(self) -> str:
        """Its subject on one line."""
        return str(self.message["Subject"])

    @property
    def html(self) -> str:
        """Its text."""
        body = self.message.get_body(("html",))
        assert body is not None, self.message.as_string()
        return str(body.get_content())


@dataclass
class MailServer:
    """The mail server: what came, and who signed in."""

    port: int
    mails: Inbox[Mail] = field(default_factory=Inbox)
    logins: list[tuple[str, str]] = field(default_factory=list)
    refuses: bool = False  # all passwords

    async def handle_DATA(self, server: Any, _session: Any, envelope: Envelope) -> str:
        """Takes a message."""
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        encrypted = server.transport.get_extra_info("ssl_object") is not None
        self.mails.put(Mail(str(envelope.mail_from), envelope.rcpt_tos, encrypted, message))
        return "250 OK"

    def authenticate(self, _s: Any, _e: Any, _v: Any, _mechanism: str, data: Any) -> AuthResult:
        """Notes who signs in, with which password."""
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=not self.refuses, handled=False)


TLS = Literal["none", "asked for", "from the start"]


@contextmanager
def mail_server(port: int, certificate: Path, tls: TLS = "asked for") -> Iterator[MailServer]:
    """Takes mail on a port.

    Args:
        port: A free one.
        certificate: With its key.
        tls: By STARTTLS, without which it then takes nothing; from the first byte, as on port 465; or none, and
            passwords and mail are taken in clear.
    """
    server = MailServer(port)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    asked = tls == "asked for"
    controller = Controller(
        server,
        hostname=HOST,
        port=port,
        ssl_context=context if tls == "from the start" else None,
        tls_context=context if asked else None,
        require_starttls=asked,
        auth_require_tls=asked,
        auth_required=asked,
        authenticator=server.authenticate,
        # Its LOGIN asks in words of its own ("User Name"), which Alertmanager does not know; PLAIN stays.
        auth_exclude_mechanism=["LOGIN"],
    )
    controller.start()
    try:
        yield server
    finally:
        controller.stop()


def make_certificate(path: Path) -> Path:
    """Writes a certificate for 127.0.0.1, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a mail server of a test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(pem))
    return path
