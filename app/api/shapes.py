"""Shapes that several resources share."""

from pydantic import BaseModel, ConfigDict, Field


class Body(BaseModel):
    """A request body: what it does not declare is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Warned(BaseModel):
    """Something that was accepted and may still not be what was meant."""

    code: str = Field(description="Stable code.", examples=["model_key_missing"])
    field: str | None = Field(default=None, description="The field it is about.", examples=["model"])
    detail: str = Field(description="In words.", examples=["OPENAI_API_KEY is not set"])


class VersionBody(Body):
    """Names a version."""

    version: int | None = Field(default=None, ge=1, le=2**31, description="Left out: see the call.", examples=[2])
