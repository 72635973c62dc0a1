"""One of several processes that serve one socket: `python metrics_worker.py FD WORKSPACE`.

The socket comes open from the process that starts them, as a process manager hands it on.
"""

import socket
import sys
from pathlib import Path

from product_classifier.core.workspace import Workspace
from product_classifier.serve.app import create_app
from product_classifier.web.server import make_server
from serving import serve_settings

if __name__ == "__main__":
    shared = socket.socket(fileno=int(sys.argv[1]))
    app = create_app(serve_settings(), Workspace(Path(sys.argv[2])))
    make_server(app, grace_seconds=1).run(sockets=[shared])
