"""Which networks a container is in: the addresses of its neighbours, and not those of the bridges between."""

import ipaddress
import sys
from pathlib import Path

from product_classifier.core.errors import ConfigurationError

NEIGHBOURS = "neighbours"  # stands for them in TRUSTED_PROXIES
ROUTES = Path("/proc/net/route")  # the kernel's IPv4 routes: `man 5 proc`


def neighbour_networks() -> list[ipaddress.IPv4Network]:
    """Gives the networks of this container without the bridges' own addresses.

    A gateway in one of them hands on for whom it asks, and its address changes with each of its containers. Callers
    from outside come with the bridge's address: what they say of themselves is not to be believed.

    Raises:
        ConfigurationError: there are no such routes to read here.
    """
    try:
        lines = ROUTES.read_text(encoding="ascii").splitlines()[1:]
    except OSError as error:
        raise ConfigurationError(
            f"TRUSTED_PROXIES={NEIGHBOURS} is for containers: {ROUTES} can't be read ({error.strerror})."
        ) from None
    routes = [[_address(line.split()[column]) for column in (1, 2, 7)] for line in lines]
    bridges = [gateway for _, gateway, _ in routes if int(gateway)]
    found: list[ipaddress.IPv4Network] = []
    for destination, gateway, mask in routes:
        if int(gateway) or not int(mask):  # behind a router, or the whole world
            continue
        network = ipaddress.IPv4Network((int(destination), str(mask)))
        # Where no route leads over it, it is the first address, by Docker's custom.
        own = [one for one in bridges if one in network] or [next(network.hosts())]
        found += _without(network, own)
    return found


def _address(digits: str) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(digits, 16).to_bytes(4, sys.byteorder))


def _without(
    network: ipaddress.IPv4Network, addresses: list[ipaddress.IPv4Address]
) -> list[ipaddress.IPv4Network]:
    parts = [network]
    for address in addresses:
        holding = next((part for part in parts if address in part), None)
        if holding is not None:
            parts.remove(holding)
            parts += holding.address_exclude(ipaddress.IPv4Network(address))
    return sorted(parts)
