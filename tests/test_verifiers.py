"""The signatures of webhook senders: their published examples, their own libraries, and everything that is none."""

import base64
import hmac
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from slack_sdk.signature import SignatureVerifier
from standardwebhooks.webhooks import Webhook

from app.errors import ConfigurationError
from app.verifiers import OWN, SCHEMES, WINDOW_SECONDS, Signed, add_verifier, standard_key
from tests.senders import OPTIONS, SECRETS, SIGN

SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
    b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com"
    b"%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
# As their documents give them; Stripe's documents show no secret, so this one was made with its library (16.1.0) for the
# secret and the payload of its own tests, under the time and the `v0` of the documents' example.
PUBLISHED: dict[str, tuple[str, dict[str, str], bytes, int]] = {
    "github": (
        "It's a Secret to Everybody",
        {"x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
        b"Hello, World!",
        0,
    ),
    "slack": (
        "8f742231b10e8888abcd99yyyzzz85a5",
        {
            "x-slack-request-timestamp": "1531420618",
            "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        },
        SLACK_BODY,
        1531420618,
    ),
    "standard": (
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
        b'{"test": 2432232314}',
        1614265330,
    ),
    "stripe": (
        "whsec_test_secret",
        {
            "stripe-signature": "t=1492774577,v1=c2f890decbc5ede7c5060bb9a6d31e0626a4342bacb9aeae2adb1bcea72f9812,"
            "v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39"
        },
        b'{\n  "id": "evt_test_webhook",\n  "object": "event"\n}',
        1492774577,
    ),
}


def holds(scheme: str, secret: str, headers: dict[str, str], body: bytes, now: float, **options: Any) -> bool:
    low = {name.lower(): value for name, value in headers.items()}
    return SCHEMES[scheme](Signed(low, body, now, {"prefix": "", "encoding": "hex", **options}), secret)


@pytest.mark.parametrize("scheme", PUBLISHED)
def test_the_published_examples_hold_and_nothing_near_them(scheme: str) -> None:
    secret, headers, body, at = PUBLISHED[scheme]
    assert holds(scheme, secret, headers, body, at)
    other = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx"
    assert not holds(scheme, other, headers, body, at)
    assert not holds(scheme, secret, headers, body + b" ", at)
    assert not holds(scheme, secret, headers, body[:-1], at)
    for name, value in headers.items():
        assert not holds(scheme, secret, {**headers, name: value[1:]}, body, at)
        assert not holds(scheme, secret, {**headers, name: f"{value},{value}"}, body, at)
        assert not holds(scheme, secret, {each: headers[each] for each in headers if each != name}, body, at)


@pytest.mark.parametrize("scheme", ["slack", "standard", "stripe"])
def test_a_signed_time_holds_for_five_minutes_either_way(scheme: str) -> None:
    secret, headers, body, at = PUBLISHED[scheme]
    assert holds(scheme, secret, headers, body, at + WINDOW_SECONDS)
    assert holds(scheme, secret, headers, body, at - WINDOW_SECONDS)
    assert not holds(scheme, secret, headers, body, at + WINDOW_SECONDS + 0.1)
    assert not holds(scheme, secret, headers, body, at - WINDOW_SECONDS - 0.1)


@pytest.mark.parametrize("scheme", ["slack", "standard", "stripe"])
@pytest.mark.parametrize("instant", ["", " 17", "1_7", "17.0", "+17", "-17", "1e9", "0x11", "١٧", "17\n", "9" * 30])
def test_a_time_is_digits_even_when_it_is_signed(scheme: str, instant: str) -> None:
    secret, body = SECRETS[scheme], b"{}"
    headers = SIGN[scheme](body, secret, instant)
    assert not holds(scheme, secret, headers, body, 17)
    assert holds(scheme, secret, SIGN[scheme](body, secret, 17), body, 17)


def test_any_of_several_signatures_will_do() -> None:
    secret, body = SECRETS["standard"], b"{}"
    headers = SIGN["standard"](body, secret, 17)
    good = headers["webhook-signature"]
    for several in (f"v1,AAAA {good}", f"{good} v1,AAAA", f"v1a,AAAA {good} v2,x nonsense"):
        assert holds("standard", secret, {**headers, "webhook-signature": several}, body, 17)
    for several in (f"v1a{good[2:]}", f"v2{good[2:]}", good[3:], f"{good}=", good.replace(",", " "), good.upper()):
        assert not holds("standard", secret, {**headers, "webhook-signature": several}, body, 17)
    value = SIGN["stripe"](body, SECRETS["stripe"], 17)["Stripe-Signature"].partition("v1=")[2]
    assert holds("stripe", SECRETS["stripe"], {"Stripe-Signature": f"t=17,v1=00,v1={value},v0=11"}, body, 17)
    for wrong in (f"t=17,v0={value}", f"v1={value}", f"t=17,t=17,v1={value}", f"t=17 ,v1={value}", f"t=17,v1 ={value}"):
        assert not holds("stripe", SECRETS["stripe"], {"Stripe-Signature": wrong}, body, 17)


def test_the_older_names_of_standard_webhooks() -> None:
    secret, body = SECRETS["standard"], b"{}"
    headers = {name.replace("webhook", "svix"): value for name, value in SIGN["standard"](body, secret, 17).items()}
    assert holds("standard", secret, headers, body, 17)
    assert not holds("standard", secret, {**headers, "webhook-id": "msg_1"}, body, 17)


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("encoding", ["hex", "base64"])
@pytest.mark.parametrize("prefix", ["", "v1="])
def test_a_generic_hmac(algorithm: str, encoding: str, prefix: str) -> None:

    made = hmac.new(b"secret", b"{}", algorithm)
    value = prefix + (made.hexdigest() if encoding == "hex" else base64.b64encode(made.digest()).decode())
    options = {"header": "X-Signature", "algorithm": algorithm, "encoding": encoding, "prefix": prefix}

    def check(value: str) -> bool:
        return holds("hmac", "secret", {"X-Signature": value}, b"{}", 0, **options)

    assert check(value)
    other = "base64" if encoding == "hex" else "hex"
    assert not holds("hmac", "secret", {"X-Signature": value}, b"{}", 0, **{**options, "encoding": other})
    assert not holds("hmac", "secret", {"X-Signature": value}, b"{}", 0, **{**options, "prefix": "v2="})
    for wrong in ("", prefix, value[:-1], f" {value}", f"{value},{value}", value + "="):
        assert not check(wrong)


def test_their_own_libraries_agree_on_random_calls() -> None:
    chance = random.Random(7)
    for _ in range(100):
        at, body = int(datetime.now(UTC).timestamp()), chance.randbytes(chance.randrange(200))
        text = body.hex()
        signature = Webhook(SECRETS["standard"]).sign("msg_1", datetime.fromtimestamp(at, UTC), text)
        headers = {"webhook-id": "msg_1", "webhook-timestamp": str(at), "webhook-signature": signature}
        assert holds("standard", SECRETS["standard"], headers, text.encode(), at)
        made = SignatureVerifier(SECRETS["slack"]).generate_signature(timestamp=str(at), body=text)
        assert made
        headers = {"X-Slack-Request-Timestamp": str(at), "X-Slack-Signature": made}
        assert holds("slack", SECRETS["slack"], headers, text.encode(), at)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_headers_made_at_random_never_hold_and_never_break(scheme: str) -> None:
    chance = random.Random(scheme)
    options = {
        "header": "X-Signature",
        "algorithm": "sha512",
        "encoding": "base64",
        "prefix": "v1=",
        **OPTIONS.get(scheme, {}),
    }
    for _ in range(300):
        headers = dict(SIGN[scheme](b"{}", SECRETS[scheme], 17))
        name = chance.choice([each for each in headers if not each.startswith("X-GitHub") and each != "X-Delivery-Id"])
        value = list(headers[name])
        for _ in range(chance.randrange(1, 4)):
            value[chance.randrange(len(value))] = chr(chance.randrange(256))
        changed = {**headers, name: "".join(value)}
        assert holds(scheme, SECRETS[scheme], changed, b"{}", 17, **options) is (changed == headers)


@pytest.mark.parametrize("secret", ["whsec_", "whsec_c2hvcnQ=", "whsec_a", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS!"])
def test_secrets_that_standard_webhooks_could_not_use(secret: str) -> None:
    with pytest.raises(ValueError, match="must"):
        standard_key(secret)


@pytest.mark.parametrize("name", OWN)
def test_an_extension_can_not_take_a_name_of_ours(name: str) -> None:
    with pytest.raises(ConfigurationError):
        add_verifier(name, lambda headers, body, secrets: True)
