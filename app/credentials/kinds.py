"""The kinds of credentials: what each consists of, and which of it is secret."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from app.credentials.box import mask

MAX_SECRET = 10_000
# What a header may be called and hold: nothing that could end it and begin another.
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")]
HeaderValue = Annotated[
    str, StringConstraints(pattern=r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$", max_length=MAX_SECRET)
]
Secret = Annotated[str, StringConstraints(min_length=1, max_length=MAX_SECRET)]


class CredentialKind(BaseModel):
    """One kind: its fields; `SECRETS` names those that are sealed and never shown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def secrets(self) -> "dict[str, str | dict[str, str]]":
        """What is sealed."""
        return {name: value for name in SECRETS[type(self)] if (value := getattr(self, name)) is not None}

    @property
    def public(self) -> dict[str, Any]:
        """What may be shown as it is."""
        values = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return {name: value for name, value in values.items() if name not in SECRETS[type(self)]}

    @property
    def masks(self) -> dict[str, Any]:
        """What is shown of the secrets."""
        return {name: _masked(value) for name, value in self.secrets.items()}


class ApiKey(CredentialKind):
    """A key in a header or in the query."""

    value: HeaderValue
    place: Literal["header", "query"] = Field(default="header", alias="in")
    key: HeaderName = "X-API-Key"


class Bearer(CredentialKind):
    """`Authorization: Bearer <token>`."""

    token: HeaderValue


class Basic(CredentialKind):
    """A user name and a password."""

    username: Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^:]*$")]
    password: Annotated[str, StringConstraints(max_length=MAX_SECRET)]


class OAuth2(CredentialKind):
    """A token that is fetched, and fetched anew when it expires."""

    grant: Literal["client_credentials", "refresh_token"] = "client_credentials"
    token_url: Annotated[str, StringConstraints(min_length=8, max_length=2000)]
    client_id: Annotated[str, StringConstraints(min_length=1, max_length=1000)]
    client_secret: Secret | None = None
    refresh_token: Secret | None = None
    scopes: list[Annotated[str, StringConstraints(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]{1,200}$")]] = Field(
        default_factory=list[str], max_length=100
    )
    client_auth: Literal["post", "basic"] | None = None

    @model_validator(mode="after")
    def _complete(self) -> "OAuth2":
        if self.grant == "refresh_token" and self.refresh_token is None:
            raise ValueError("the grant refresh_token needs a refresh_token")
        if self.grant == "client_credentials" and self.client_secret is None:
            raise ValueError("the grant client_credentials needs a client_secret")
        return self


class Headers(CredentialKind):
    """Any headers; all their values are secret."""

    headers: dict[HeaderName, HeaderValue] = Field(min_length=1, max_length=20)


KINDS: dict[str, type[CredentialKind]] = {
    "api_key": ApiKey,
    "bearer": Bearer,
    "basic": Basic,
    "oauth2": OAuth2,
    "headers": Headers,
}
SECRETS: dict[type[CredentialKind], tuple[str, ...]] = {
    ApiKey: ("value",),
    Bearer: ("token",),
    Basic: ("password",),
    OAuth2: ("client_secret", "refresh_token"),
    Headers: ("headers",),
}


def _masked(value: "str | dict[str, str]") -> Any:
    return mask(value) if isinstance(value, str) else {name: mask(each) for name, each in value.items()}
