"""What a task may say about its webhook: `trigger_config`, checked so that every refusal names its field."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from app.credentials import is_mask
from app.errors import InvalidRequest
from app.paths import steps_of
from app.patterns import RUNS_A_MINUTE
from app.verifiers import OWN, SCHEMES, SECRET_FIELD, VERIFIERS, standard_key

Whole = Annotated[int, Field(strict=True)]
HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
HEADER_FIELD = "trigger_config.header"


def _path(value: str) -> str:
    steps_of(value)
    return value


Path = Annotated[str, Field(max_length=300), AfterValidator(_path)]


class Filter(BaseModel):
    """What the payload of a webhook call must hold to start a run."""

    model_config = ConfigDict(extra="forbid")

    path: Path = Field(description="Where to look, as `$.action`.")
    equals: str | Whole | float | bool | None = Field(description="What must stand there.")


def _known_verifier(value: object) -> object:
    if value is not None and value not in (*OWN, *VERIFIERS):
        raise ValueError(f"must be one of {', '.join((*OWN, *VERIFIERS))}")
    return value


class TriggerConfig(BaseModel):
    """Who may call a task's webhook, and what a call does."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{}, {"verifier": "token"}]})

    verifier: Annotated[str | None, BeforeValidator(_known_verifier)] = Field(
        None,
        description="standard, github, stripe, slack: their signatures; hmac: an HMAC of the body in a header; bearer: "
        "`Authorization: Bearer <secret>`; token: `?token=<secret>` or the header; none: anybody; or the name of an "
        "extension's verifier. Left out: a token when the server has authentication on, else none.",
    )
    secret: str | None = Field(
        None, min_length=4, max_length=500, description="Made when left out. Shown masked, whole only once."
    )
    header: str | None = Field(
        None, description="The header that may hold the token, X-Parley-Token when left out; or that holds the HMAC."
    )
    algorithm: Literal["sha256", "sha512", "sha1"] = Field("sha256", description="Of the verifier hmac.")
    encoding: Literal["hex", "base64"] = Field("hex", description="Of the verifier hmac.")
    prefix: str = Field("", max_length=40, description="What stands before the HMAC in its header, such as `sha256=`.")
    runs_per_minute: Whole = Field(
        RUNS_A_MINUTE, ge=1, le=1000, description="Runs it starts a minute; more wait their turn."
    )
    dedup: Literal["id", "body"] = Field("id", description="What makes two calls the same: a delivery id, or the body.")
    filter: Filter | None = Field(None, description="Calls that do not match start nothing.")
    correlation: Path | None = Field(None, description="Calls with the same value there go on in one conversation.")
    trusted: bool = Field(False, strict=True, description="Whether the payload may be believed like a person's words.")

    @model_validator(mode="after")
    def _fit(self) -> Self:
        self._check_secret()
        self._check_header()
        return self

    def _check_secret(self) -> None:
        if self.secret is None:
            return
        if self.verifier == "none":
            raise InvalidRequest("needs no secret", field=SECRET_FIELD)
        if not (self.secret.isascii() and self.secret.isprintable()) or (" " in self.secret and not self.signs):
            raise InvalidRequest("a secret is ASCII without spaces", field=SECRET_FIELD)
        if self.verifier == "standard" and not is_mask(self.secret):
            try:
                standard_key(self.secret)
            except ValueError as error:
                raise InvalidRequest(str(error), field=SECRET_FIELD) from error

    def _check_header(self) -> None:
        if self.verifier == "hmac" and self.header is None:
            raise InvalidRequest("names the header that holds the HMAC, such as X-Signature", field=HEADER_FIELD)
        if self.header is not None and (self.verifier not in ("token", "hmac") or not HEADER.fullmatch(self.header)):
            raise InvalidRequest("a header's name, for the verifiers token and hmac alone", field=HEADER_FIELD)
        for name in self.model_fields_set & {"algorithm", "encoding", "prefix"}:
            if self.verifier != "hmac" and getattr(self, name) != type(self).model_fields[name].default:
                raise InvalidRequest("is for the verifier hmac alone", field=f"trigger_config.{name}")
        if not (self.prefix.isascii() and self.prefix.isprintable()):
            raise InvalidRequest("is printable ASCII", field="trigger_config.prefix")

    @property
    def signs(self) -> bool:
        """Whether its secret makes signatures and is never sent itself."""
        return self.verifier in SCHEMES
