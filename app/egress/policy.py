"""Which addresses, ports and URLs the guard lets through."""

import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpx

from app.errors import ConfigurationError, EgressRefused
from app.settings import Settings

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

OPEN_PORTS = frozenset({80, 443})
DEFAULT_PORTS = {"http": 80, "https": 443}

REFUSED_IPV4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, cloud metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relay anycast
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved and broadcast
    )
)
GLOBAL_IPV6 = IPv6Network("2000::/3")  # everything outside it is refused, transition forms apart
REFUSED_IPV6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # IETF protocol assignments: Teredo, benchmarking, ORCHID
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)

# Where the IPv4 address sits in the IPv6 forms that carry one (RFC 3056, 4291, 5214, 6052, 8215).
LOW = (12, 13, 14, 15)
SIX_TO_FOUR = (2, 3, 4, 5)
NAT64 = {32: (4, 5, 6, 7), 40: (5, 6, 7, 9), 48: (6, 7, 9, 10), 56: (7, 9, 10, 11), 64: (9, 10, 11, 12), 96: LOW}
TRANSITIONS = (
    (IPv6Network("::ffff:0:0/96"), (LOW,)),  # mapped
    (IPv6Network("64:ff9b::/96"), (LOW,)),  # NAT64, well-known prefix
    (IPv6Network("64:ff9b:1::/48"), tuple(NAT64[length] for length in (48, 56, 64, 96))),  # NAT64, local prefix
    (IPv6Network("2002::/16"), (SIX_TO_FOUR,)),  # 6to4
)
ISATAP = (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")

# Cloud metadata services are refused inside an allowed network too: only their host:port lets them through.
METADATA = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, GCP, Azure, Oracle, DigitalOcean, Hetzner, OpenStack
        "169.254.170.2",  # AWS ECS
        "169.254.170.23",  # AWS EKS
        "169.254.42.42",  # Scaleway
        "169.254.0.23",  # Tencent
        "168.63.129.16",  # Azure, a public address
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle Classic
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # AWS EKS
        "fd20:ce::254",  # GCP
        "fd00:42::42",  # Scaleway
    )
)


# --- addresses ------------------------------------------------------------------------------------


def is_metadata(address: Address) -> bool:
    """Whether an address is a cloud metadata service, also when an IPv6 form carries it."""
    if isinstance(address, IPv4Address):
        return address in METADATA
    address = IPv6Address(address.packed)  # without its zone
    return address in METADATA or any(_ipv4_at(address, spot) in METADATA for spot in (*NAT64.values(), SIX_TO_FOUR))


def is_refused(address: Address) -> bool:
    """Whether an address is anything but a public one: the table of the egress guard."""
    if is_metadata(address):
        return True
    if isinstance(address, IPv4Address):
        return any(address in network for network in REFUSED_IPV4)
    return _is_refused_ipv6(address)


def _is_refused_ipv6(address: IPv6Address) -> bool:
    address = IPv6Address(address.packed)  # without its zone
    carried = _carried_ipv4(address)
    if carried:
        return any(is_refused(inner) for inner in carried)
    return address not in GLOBAL_IPV6 or any(address in network for network in REFUSED_IPV6)


def _carried_ipv4(address: IPv6Address) -> list[IPv4Address]:
    if address in GLOBAL_IPV6 and address.packed[8:12] in ISATAP:
        return [_ipv4_at(address, LOW)]
    return [_ipv4_at(address, spot) for prefix, spots in TRANSITIONS if address in prefix for spot in spots]


def _ipv4_at(address: IPv6Address, spot: tuple[int, int, int, int]) -> IPv4Address:
    return IPv4Address(bytes(address.packed[index] for index in spot))


def _literal(host: str) -> Address | None:
    """The address a host spells, also as `127.1`, `0x7f000001` or `2130706433`; None for a name."""
    with suppress(ValueError):
        return ip_address(host)
    try:
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


# --- what is allowed ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Policy:
    """What the guard lets through: public addresses on open ports, and what the operator lists."""

    endpoints: frozenset[tuple[str, int]] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[str]) -> "Policy":
        """Read the entries of `PARLEY_EGRESS_ALLOW`.

        Raises:
            ConfigurationError: naming the entry that is neither host:port nor CIDR.
        """
        endpoints: set[tuple[str, int]] = set()
        networks: list[Network] = []
        for entry in entries:
            network = _network(entry)
            if network is None:
                endpoints.add(_endpoint(entry))
            else:
                networks.append(network)
        return cls(frozenset(endpoints), tuple(networks))

    def lists(self, host: str, port: int) -> bool:
        """Whether the operator lists this host and port."""
        return (_canonical(host), port) in self.endpoints

    def permits(self, address: Address, port: int) -> bool:
        """Whether a connection to this address and port may be made."""
        if not is_metadata(address) and any(address in network for network in self.networks):
            return True
        return port in OPEN_PORTS and not is_refused(address)

    def check_url(self, url: str) -> httpx.URL:
        """Refuse what can be refused without asking the network, for the moment a URL is saved.

        Raises:
            EgressRefused: naming the host and the rule.
        """
        parsed = parse_url(url)
        host, port = parsed.host, port_of(parsed)
        if self.lists(host, port):
            return parsed
        address = _literal(host)
        if address is not None and not self.permits(address, port):
            raise not_listed(host, f"a private or reserved address, or port {port}")
        if address is None and not self.networks:
            _check_name(host, port)
        return parsed


def _network(entry: str) -> Network | None:
    with suppress(ValueError):
        return ip_network(entry, strict=False)
    return None


def _endpoint(entry: str) -> tuple[str, int]:
    host, _, port = entry.rpartition(":")
    if not host or not port.isdecimal() or "/" in entry:
        raise ConfigurationError(
            f"PARLEY_EGRESS_ALLOW: {entry} is neither host:port nor a network such as 10.0.0.0/8",
            field="PARLEY_EGRESS_ALLOW",
        )
    return _canonical(host), int(port)


def _canonical(host: str) -> str:
    """One spelling per host: lower case, no brackets, no last dot; this machine is `localhost`."""
    name = host.strip("[]").rstrip(".").lower()
    return "localhost" if name in ("127.0.0.1", "::1") else name


def parse_url(url: str) -> httpx.URL:
    """An http or https URL with a host and without credentials.

    Raises:
        EgressRefused: saying what is wrong with it.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        raise EgressRefused(f"egress: refused {url[:200]!r} (not a valid URL)") from error
    if parsed.scheme not in DEFAULT_PORTS:
        raise refusal(parsed.host or url[:200], "only http and https are allowed")
    if not parsed.host:
        raise EgressRefused(f"egress: refused {url[:200]!r} (it names no host)")
    if "%" in parsed.host and ":" not in parsed.host:
        raise refusal(parsed.host, "not a host name")
    if parsed.userinfo:
        raise refusal(parsed.host, "a URL must not hold a user name or password")
    return parsed


def _check_name(host: str, port: int) -> None:
    if _canonical(host).rpartition(".")[2] == "localhost":
        raise not_listed(host, "this machine")
    if port not in OPEN_PORTS:
        raise not_listed(host, f"port {port} is not open")


def refusal(host: str, reason: str) -> EgressRefused:
    """The error that says which host was refused and why."""
    return EgressRefused(f"egress: refused {host} ({reason})")


def not_listed(host: str, reason: str) -> EgressRefused:
    """The error for what the operator could let through."""
    return refusal(host, f"{reason}; PARLEY_EGRESS_ALLOW lets through what it lists")


def port_of(url: httpx.URL) -> int:
    """The port of an http or https URL."""
    return url.port or DEFAULT_PORTS[url.scheme]


def check_url(url: str, settings: Settings) -> None:
    """Refuse a URL that the guard would refuse whatever its name resolves to.

    Raises:
        EgressRefused: naming the host and the rule.
    """
    Policy.of(settings.egress_allow).check_url(url)
