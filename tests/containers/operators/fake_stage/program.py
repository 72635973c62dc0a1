"""What a container of the tests does: the first argument says it."""

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

WORKSPACE = Path("/workspace")


def say(message, level="INFO", **more):
    sys.stdout.write(json.dumps({"level": level, "message": message, **more}) + "\n")
    sys.stdout.flush()


def status(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.split()[1]
    return None


def may_write(path):
    try:
        (Path(path) / "probe").write_text("x")
        (Path(path) / "probe").unlink()
    except OSError:
        return False
    return True


def look():
    """Tells everything about the place it runs in."""
    facts = {
        "user": f"{os.getuid()}:{os.getgid()}",
        "capabilities": status("CapEff"),
        "no_new_privileges": status("NoNewPrivs"),
        "first_process": Path("/proc/1/comm").read_text().strip(),
        "writes": [p for p in ("/", "/opt", "/tmp", "/workspace", "/data") if may_write(p)],
        "dotenv": (WORKSPACE / ".env").read_text(),
        "variables": sorted(os.environ),
        "source": os.environ.get("DATA_SOURCE"),
        "home": os.environ.get("HOME"),
    }
    say("looked", facts=json.dumps(facts))


def wait(ignore):
    """Waits to be stopped; notes in the workspace that it was asked to."""

    def stop(number, frame):
        (WORKSPACE / "asked to stop").touch()
        if not ignore:
            sys.exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    (WORKSPACE / f"waiting {os.uname()[1]}").touch()
    say("waiting")
    while True:
        time.sleep(0.1)


class Service(BaseHTTPRequestHandler):
    """Answers /ready as serve does, and POSTs after a moment with the model it has."""

    ending = False

    def log_message(self, *arguments):
        """Says nothing."""

    def answer(self, code, content):
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        champion = WORKSPACE / "models" / "champion.json"
        known = json.loads(champion.read_text()) if champion.exists() else {}
        ready = os.environ.get("INFERENCE_QUEUE") != "13" and not Service.ending
        bundle = known.get("content_id", "")[:16]
        self.answer(200 if ready else 503, {"ready": ready, "bundle_id": bundle})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(0.2)
        self.answer(200, {"workers": os.environ.get("INFERENCE_WORKERS"), "host": os.uname()[1]})


def serve(port):
    if os.environ.get("INFERENCE_QUEUE") == "2":
        say("INFERENCE_QUEUE can't be used.", level="ERROR")
        sys.exit(2)
    server = ThreadingHTTPServer(("0.0.0.0", port), Service)
    server.daemon_threads = False

    def end():
        # The gateway looks every half second: it sends nothing any more when the listening ends.
        time.sleep(3)
        server.shutdown()

    def stop(number, frame):
        Service.ending = True
        Thread(target=end).start()

    signal.signal(signal.SIGTERM, stop)
    say("listening")
    server.serve_forever(poll_interval=0.05)
    server.server_close()  # waits for the answers that were begun


def main(command, *arguments):
    if command == "exit":
        code = int(arguments[0])
        say("the last word", level="ERROR" if code not in (0, 99) else "INFO")
        sys.exit(code)
    elif command == "look":
        look()
    elif command == "wait":
        wait(ignore=bool(arguments))
    elif command == "eat":
        b"x" * (1024**3)
    elif command == "talk":
        for number in range(3):
            say(f"line {number}")
            time.sleep(0.7)
    elif command == "flood":
        for number in range(20_000):
            say(f"line {number}")
    elif command in ("auth", "serve"):
        serve(int(os.environ[f"{command.upper()}_PORT"]))
    else:
        say(f"no such command: {command}", level="ERROR")
        sys.exit(2)


main(*sys.argv[1:])
