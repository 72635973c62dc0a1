"""The socket proxy is an image of its own, not a part of the package: it is imported from its folder."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3] / "containers" / "socket-proxy"))
