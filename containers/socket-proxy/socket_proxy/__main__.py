"""Runs the proxy: `python -m socket_proxy`, with the settings in its environment."""

import asyncio
import logging
import os
import signal
import sys

from .server import SocketProxy
from .settings import Settings, SettingsError


async def run(settings: Settings) -> None:
    """Serves until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = await SocketProxy(settings).start("0.0.0.0", settings.port)  # noqa: S104
    async with server:
        await stop.wait()


def main() -> int:
    """Gives the exit code: 2 where a setting is missing or unusable."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        settings = Settings.from_environment(os.environ)
    except (SettingsError, ValueError) as error:
        logging.error("%s", error)
        return 2
    asyncio.run(run(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
