"""The egress guard against its table, odd URLs, rebinding names and real servers on loopback."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.egress import Egress, Policy, check_url, client, is_refused
from app.errors import ConfigurationError, EgressFailed, EgressRefused, ResponseTooLarge
from app.settings import Settings
from tests.loopback import Site, answer, serving

REFUSED = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 127.0.0.1 127.1.2.3 169.254.169.254 169.254.170.2
172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.1
224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 168.63.129.16
:: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:127.0.0.1
fe80::1 fe80::1%1 fc00::1 fd00:ec2::254 fd00:ec2::254%1 fec0::1 ff02::1 100::1 100:0:0:1::1
2001::1 2001:0:7f00:1:: 2001:2::1 2001:10::1 2001:20::1 2001:db8::1 3fff::1 5f00::1 4000::1
2002:7f00:1:: 2002:a00:1:: 2002:a9fe:a9fe::1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1:7f00:1:: 64:ff9b:1::7f00:1
2a00::5efe:7f00:1 2a00::200:5efe:10.0.0.1 2a00:1450::a9fe:a9fe
"""

PUBLIC = """
8.8.8.8 1.1.1.1 93.184.216.34 172.15.255.255 172.32.0.1 192.0.1.1 100.63.255.255 100.128.0.1 198.20.0.1 223.255.255.255
2606:4700:4700::1111 2a00:1450:4001::200e 2001:4860:4860::8888 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1
2a00::5efe:8.8.8.8
"""


@pytest.mark.parametrize("address", REFUSED.split())
def test_refuses_every_address_that_is_not_public(address: str) -> None:
    assert is_refused(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC.split())
def test_lets_public_addresses_through(address: str) -> None:
    assert not is_refused(ip_address(address))


# --- checks without the network -------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/",
        "gopher://example.com/",
        "//example.com/",
        "example.com",
        "",
        "http://",
        "http:///path",
        "http://user:secret@example.com/",
        "http://localhost/",
        "http://LOCALHOST./",
        "http://api.localhost/",
        "http://127.0.0.1/",
        "http://127.1/",
        "http://0x7f000001/",
        "http://2130706433/",
        "http://0177.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest/meta-data/",
        "https://example.com:22/",
        "https://example.com:6379/",
        "http://exa mple.com/",
        "http://[::1/",
        "http://example.com:99999/",
        "http://\x00/",
    ],
)
def test_check_url_refuses(url: str) -> None:
    with pytest.raises(EgressRefused, match="egress: refused"):
        check_url(url, Settings.of())


@pytest.mark.parametrize(
    "url", ["https://example.com/", "http://example.com:80/a?b#c", "https://8.8.8.8/", "https://bücher.example/"]
)
def test_check_url_accepts(url: str) -> None:
    check_url(url, Settings.of())


def test_the_refusal_names_the_host() -> None:
    with pytest.raises(EgressRefused, match=r"egress: refused 10\.0\.0\.1 "):
        check_url("http://10.0.0.1/", Settings.of())


def test_the_allow_list_lets_hosts_and_networks_through() -> None:
    settings = Settings.of(parley_egress_allow="intranet.example:8080, 10.1.0.0/16, [::1]:9000, 192.168.7.7")
    for url in (
        "http://intranet.example:8080/",
        "http://INTRANET.example.:8080/",
        "http://10.1.2.3:9200/",
        "http://localhost:9000/",
        "http://192.168.7.7/",
    ):
        check_url(url, settings)
    for url in ("http://10.2.0.1/", "http://127.0.0.1:9001/", "http://192.168.7.8/"):
        with pytest.raises(EgressRefused):
            check_url(url, settings)


def test_a_network_does_not_open_the_metadata_service() -> None:
    policy = Policy.of(["0.0.0.0/0", "::/0"])
    assert policy.permits(ip_address("10.0.0.1"), 8080)
    assert not policy.permits(ip_address("169.254.169.254"), 80)
    assert not policy.permits(ip_address("::ffff:169.254.169.254"), 80)
    policy.check_url("http://10.0.0.1:8080/")
    Policy.of(["169.254.169.254:80"]).check_url("http://169.254.169.254/")


@pytest.mark.parametrize("entry", ["intranet", "http://intranet:80", "intranet:http", ":80", "10.0.0.0/99"])
def test_an_unreadable_entry_is_a_configuration_error(entry: str) -> None:
    with pytest.raises(ConfigurationError, match="PARLEY_EGRESS_ALLOW"):
        Egress(Settings.of(parley_egress_allow=entry))


# --- real servers ---------------------------------------------------------------------------------


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving() as site:
        yield site


@pytest.fixture
async def other(site: Site) -> AsyncIterator[Site]:
    async with serving() as other:
        yield other


@pytest.fixture
async def egress(site: Site, other: Site) -> AsyncIterator[Egress]:
    client = Egress(Settings.of(parley_egress_allow=f"127.0.0.1:{site.port},127.0.0.1:{other.port}"))
    yield client
    await client.aclose()


class Names:
    """A resolver that gives each answer in turn, then the last one for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def test_an_allowed_server_answers(site: Site, egress: Egress) -> None:
    site.answers["/hi?x=1"] = answer("grüß".encode("latin-1"), Content_Type="text/plain; charset=latin-1")
    response = await egress.fetch("get", site.url("/hi?x=1"), headers={"X-Mine": "1", "Host": "evil"})
    assert (response.status, response.text, response.content_type) == (200, "grüß", "text/plain")
    assert f"host: 127.0.0.1:{site.port}" in site.heads[0].lower()
    assert "x-mine: 1" in site.heads[0].lower()
    assert "evil" not in site.heads[0]


async def test_json_goes_out_and_comes_back(site: Site, egress: Egress) -> None:
    site.answers["/"] = answer(b'{"ok": true}')
    response = await egress.fetch("POST", site.url(), json={"a": [1]})
    assert response.json() == {"ok": True}
    assert site.bodies == [b'{"a":[1]}']
    site.answers["/"] = answer(b"<html>")
    with pytest.raises(EgressFailed, match="did not answer with JSON"):
        (await egress.fetch("GET", site.url())).json()


async def test_connections_are_reused(site: Site, egress: Egress) -> None:
    for _ in range(3):
        await egress.fetch("GET", site.url())
    assert site.connections == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]"])
async def test_loopback_is_refused_without_touching_it(site: Site, host: str) -> None:
    egress = Egress(Settings.of())
    with pytest.raises(EgressRefused, match="egress: refused"):
        await egress.fetch("GET", site.url(host=host))
    assert site.connections == 0
    await egress.aclose()


async def test_one_bad_address_refuses_the_host(site: Site) -> None:
    names = Names(["93.184.216.34", "127.0.0.1"])
    egress = Egress(Settings.of(), resolver=names)
    with pytest.raises(EgressRefused, match=r"egress: refused mixed\.example "):
        await egress.fetch("GET", "http://mixed.example/")
    assert site.connections == 0
    await egress.aclose()


async def test_a_rebinding_name_is_resolved_once_and_connected_as_checked(site: Site) -> None:
    """The first answer is allowed, any further one would be another address."""
    site.answers["/"] = answer(b"first")
    names = Names(["127.0.0.2"], ["127.0.0.1"])
    elsewhere = await asyncio.start_server(Site(answers={"/": answer(b"checked")}).serve, "127.0.0.2", site.port)
    egress = Egress(Settings.of(parley_egress_allow="127.0.0.2/32"), resolver=names)
    response = await egress.fetch("GET", site.url(host="rebinding.example"))
    assert response.body == b"checked"
    assert names.asked == ["rebinding.example"]
    assert site.connections == 0
    await egress.aclose()
    with pytest.raises(EgressRefused):
        await egress.fetch("GET", site.url(host="rebinding.example"))
    assert site.connections == 0
    await egress.aclose()
    elsewhere.close()


async def test_the_next_address_is_tried_when_one_does_not_answer(site: Site) -> None:
    site.answers["/"] = answer(b"second")
    egress = Egress(Settings.of(parley_egress_allow="127.0.0.0/8"), resolver=Names(["127.0.0.9", "127.0.0.1"]))
    assert (await egress.fetch("GET", site.url(host="two.example"))).body == b"second"
    await egress.aclose()


async def test_an_unknown_host_is_a_named_failure() -> None:
    async def nowhere(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    egress = Egress(Settings.of(), resolver=nowhere)
    with pytest.raises(EgressFailed, match=r"missing.example can't be resolved"):
        await egress.fetch("GET", "http://missing.example/")
    await egress.aclose()


async def test_what_a_resolver_makes_up_is_a_named_failure() -> None:
    egress = Egress(Settings(), resolver=Names(["not-an-ip"]))
    with pytest.raises(EgressFailed, match="'not-an-ip' is no address"):
        await egress.fetch("GET", "http://odd.example/")
    await egress.aclose()


async def test_slow_calls_of_one_workspace_hold_up_nobody_else(
    site: Site, other: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(client, "MAX_OF_ONE", 2)
    egress = Egress(Settings.of(parley_egress_allow=f"127.0.0.1:{site.port},127.0.0.1:{other.port}"))
    one, another = egress.of(uuid4()), egress.of(uuid4())
    slow = [asyncio.create_task(one.fetch("GET", site.url("/slow"), timeout_seconds=60)) for _ in range(5)]
    while site.connections < 2:
        await asyncio.sleep(0)
    assert (await another.fetch("GET", other.url())).status == 404
    with pytest.raises(EgressFailed, match="2 at a time are a workspace's share"):
        await one.fetch("GET", other.url(), timeout_seconds=0.1)
    assert site.connections == 2
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert (await one.fetch("GET", other.url())).status == 404
    await egress.aclose()


async def test_a_stream_keeps_its_place_until_it_is_closed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_OF_ONE", 1)
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.1)
    egress = Egress(Settings.of(parley_egress_allow=f"127.0.0.1:{site.port}"))
    own = egress.of(uuid4())
    stream = await own.open("GET", site.url())
    with pytest.raises(EgressFailed, match="1 at a time"):
        await own.open("GET", site.url())
    await (await egress.of(uuid4()).open("GET", site.url())).aclose()
    await stream.aclose()
    await stream.aclose()
    await (await own.open("GET", site.url())).aclose()
    await egress.aclose()


async def test_a_closed_port_is_a_retryable_failure(unused_port: int) -> None:
    egress = Egress(Settings.of(parley_egress_allow=f"127.0.0.1:{unused_port}"))
    with pytest.raises(EgressFailed, match=r"127\.0\.0\.1 failed") as caught:
        await egress.fetch("GET", f"http://127.0.0.1:{unused_port}/")
    assert caught.value.retryable
    await egress.aclose()


@pytest.fixture
async def unused_port() -> int:
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


async def test_the_environment_names_no_proxy(site: Site, egress: Egress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert (await egress.fetch("GET", site.url())).status == 404


async def test_an_operators_url_may_be_private_but_not_its_redirects(site: Site, other: Site) -> None:
    egress = Egress(Settings.of())
    site.answers["/"] = answer(b"results")
    assert (await egress.fetch("GET", site.url(), operator_url=True)).body == b"results"
    site.answers["/away"] = answer(b"", "302 Found", Location=other.url("/"))
    with pytest.raises(EgressRefused):
        await egress.fetch("GET", site.url("/away"), operator_url=True, follow_redirects=True)
    with pytest.raises(EgressRefused):
        await egress.fetch("GET", site.url())
    assert other.connections == 0
    await egress.aclose()


# --- redirects ------------------------------------------------------------------------------------


async def test_redirects_are_off_by_default(site: Site, egress: Egress) -> None:
    site.answers["/"] = answer(b"", "302 Found", Location="/there")
    assert (await egress.fetch("GET", site.url())).status == 302


async def test_a_redirect_keeps_credentials_on_the_same_origin(site: Site, egress: Egress) -> None:
    site.answers["/"] = answer(b"", "302 Found", Location="/there")
    site.answers["/there"] = answer(b"arrived")
    response = await egress.fetch("GET", site.url(), headers={"Authorization": "Bearer s3cret"}, follow_redirects=True)
    assert (response.body, response.url) == (b"arrived", site.url("/there"))
    assert "s3cret" in site.heads[1]


async def test_a_redirect_drops_credentials_across_origins(site: Site, other: Site, egress: Egress) -> None:
    site.answers["/"] = answer(b"", "307 Temporary Redirect", Location=other.url("/there"))
    other.answers["/there"] = answer(b"arrived")
    secrets = {"Authorization": "Bearer s3cret", "Cookie": "s3cret", "X-Api-Key": "s3cret", "Accept": "text/html"}
    response = await egress.fetch("GET", site.url(), headers=secrets, follow_redirects=True)
    assert response.body == b"arrived"
    assert "s3cret" not in other.heads[0]
    assert "accept: text/html" in other.heads[0].lower()
    assert f"host: 127.0.0.1:{other.port}" in other.heads[0].lower()


@pytest.mark.parametrize(
    "target",
    ["http://localhost:1/", "http://169.254.169.254/", "file:///etc/passwd", "http://10.0.0.1/", "gopher://x/"],
)
async def test_a_redirect_to_a_refused_place_is_refused(site: Site, egress: Egress, target: str) -> None:
    site.answers["/"] = answer(b"", "302 Found", Location=target)
    with pytest.raises(EgressRefused):
        await egress.fetch("GET", site.url(), follow_redirects=True)


async def test_a_redirected_post_becomes_a_get_or_keeps_its_body(site: Site, egress: Egress) -> None:
    site.answers["/see"] = answer(b"", "303 See Other", Location="/there")
    site.answers["/again"] = answer(b"", "308 Permanent Redirect", Location="/there")
    site.answers["/there"] = answer(b"arrived")
    await egress.fetch("POST", site.url("/see"), json=1, follow_redirects=True)
    await egress.fetch("POST", site.url("/again"), json=2, follow_redirects=True)
    assert [head.split()[0] for head in site.heads] == ["POST", "GET", "POST", "POST"]
    assert site.bodies == [b"1", b"", b"2", b"2"]


async def test_a_redirect_loop_ends(site: Site, egress: Egress) -> None:
    site.answers["/"] = answer(b"", "302 Found", Location="/")
    with pytest.raises(EgressFailed, match="redirects more than 10 times"):
        await egress.fetch("GET", site.url(), follow_redirects=True)


# --- bounds ---------------------------------------------------------------------------------------


async def test_a_long_body_is_refused(site: Site, egress: Egress) -> None:
    site.answers["/"] = answer(b"x" * 1001)
    with pytest.raises(ResponseTooLarge, match="longer than 1000 bytes"):
        await egress.fetch("GET", site.url(), max_bytes=1000)
    assert len((await egress.fetch("GET", site.url(), max_bytes=1001)).body) == 1001


async def test_a_decompression_bomb_is_refused(site: Site, egress: Egress) -> None:
    site.answers["/"] = answer(gzip.compress(b"\0" * 50_000_000), Content_Encoding="gzip")
    with pytest.raises(ResponseTooLarge):
        await egress.fetch("GET", site.url())


async def test_gzip_is_decoded(site: Site, egress: Egress) -> None:
    packed = gzip.compress(b"hello" * 1000)
    site.answers["/"] = answer(packed, Content_Encoding="gzip")
    site.answers["/cut"] = answer(packed[:-12], Content_Encoding="gzip")
    site.answers["/junk"] = answer(b"junk", Content_Encoding="gzip")
    site.answers["/br"] = answer(b"junk", Content_Encoding="br")
    assert (await egress.fetch("GET", site.url())).body == b"hello" * 1000
    for path in ("/cut", "/junk", "/br"):
        with pytest.raises(EgressFailed):
            await egress.fetch("GET", site.url(path))


async def test_a_slow_server_meets_the_deadline(site: Site, egress: Egress) -> None:
    with pytest.raises(EgressFailed, match=r"did not answer within 0.2 s"):
        await egress.fetch("GET", site.url("/slow"), timeout_seconds=0.2)


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "grüß", "\ud800"])
async def test_headers_that_can_not_be_sent_are_refused(site: Site, egress: Egress, value: str) -> None:
    with pytest.raises(EgressFailed):
        await egress.fetch("GET", site.url(), headers={"X-A": value})
    assert not any("evil" in head.lower() for head in site.heads)


async def test_a_server_that_does_not_speak_http_is_a_named_failure(site: Site, egress: Egress) -> None:
    site.answers["/"] = b"SSH-2.0-OpenSSH\r\n\r\n"
    with pytest.raises(EgressFailed, match=r"127\.0\.0\.1 failed"):
        await egress.fetch("GET", site.url())


# --- TLS ------------------------------------------------------------------------------------------


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for tls.example that only its owner trusts, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tls.example")])
    start = datetime.now(UTC) - timedelta(days=1)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("tls.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(signed.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


async def test_certificates_are_checked_against_the_name_in_the_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(cert, key)
    server = await asyncio.start_server(Site(answers={"/": answer(b"sealed")}).serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    settings = Settings.of(parley_egress_allow="127.0.0.0/8")
    stranger = Egress(settings, resolver=Names(["127.0.0.1"]))
    with pytest.raises(EgressFailed, match=r"tls\.example failed: .*certificate"):
        await stranger.fetch("GET", f"https://tls.example:{port}/")
    await stranger.aclose()
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))  # how an operator adds a root of their own
    friend = Egress(settings, resolver=Names(["127.0.0.1"]))
    assert (await friend.fetch("GET", f"https://tls.example:{port}/")).body == b"sealed"
    with pytest.raises(EgressFailed, match=r"other\.example failed: .*ertificate"):
        await friend.fetch("GET", f"https://other.example:{port}/")
    await friend.aclose()
    server.close()
