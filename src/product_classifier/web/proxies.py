"""Who is calling: the peer, or whom a trusted proxy names."""

import ipaddress
from dataclasses import dataclass

from starlette.types import Scope

from product_classifier.core.errors import ConfigurationError
from product_classifier.web.neighbours import NEIGHBOURS, neighbour_networks

UNKNOWN = "unknown"
MAX_HOPS = 20  # nobody has more proxies; a longer list is made up

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _parse_address(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    mapped = getattr(
        address, "ipv4_mapped", None
    )  # ::ffff:10.0.0.1, from a socket of both families
    return mapped or address


@dataclass(frozen=True)
class TrustedProxies:
    """Addresses whose `X-Forwarded-For` is believed."""

    networks: tuple[_Network, ...] = ()

    @classmethod
    def parse(cls, text: str | None) -> "TrustedProxies":
        """Reads a comma-separated list of addresses and networks; `neighbours` stands for a container's own networks.

        Raises:
            ConfigurationError: an entry is none of these.
        """
        networks: list[_Network] = []
        for entry in (text or "").split(","):
            if not (entry := entry.strip()):
                continue
            if entry == NEIGHBOURS:
                networks += neighbour_networks()
                continue
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError as error:
                raise ConfigurationError(
                    "TRUSTED_PROXIES must list addresses or networks such as 10.0.0.0/8, with "
                    f"commas between them. Received: {entry!r} ({error})."
                ) from None
        return cls(tuple(networks))

    def trusts(self, address: _Address) -> bool:
        """Tells whether an address is one of them."""
        return any(address in network for network in self.networks)


def client_address(scope: Scope, trusted: TrustedProxies) -> str:
    """Gives the caller's address: the rightmost of `X-Forwarded-For` that is no trusted proxy.

    What stands to the left of it came from the caller and may be made up. Where the peer is not trusted, or the
    header names nonsense, it is the last address that is known for sure.
    """
    peer = _parse_address((scope.get("client") or (UNKNOWN,))[0])
    if peer is None:
        return UNKNOWN
    if not trusted.trusts(peer):
        return str(peer)
    known = peer
    for hop in reversed(_forwarded(scope)[-MAX_HOPS:]):
        address = _parse_address(hop)
        if address is None:
            break
        known = address
        if not trusted.trusts(address):
            break
    return str(known)


def _forwarded(scope: Scope) -> list[str]:
    values = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return b",".join(values).decode("latin-1").split(",") if values else []
