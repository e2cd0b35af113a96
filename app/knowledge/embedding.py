"""Texts become vectors by the configured embedding model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from app.errors import ModelFailed, ParleyError
from app.providers import LOCAL, default_embedder
from app.settings import Settings

if TYPE_CHECKING:  # Loads what talks to providers, which a process that only accepts work does not need.
    from app.providers import Providers

Vector = list[float]

# Vectors of the local model that share less than this share nothing but chance.
LEAST_ALIKE = {LOCAL: 0.12}


class Embedder:
    """The embedding model of a process."""

    def __init__(self, settings: Settings, providers: "Providers") -> None:
        """Take the model that the settings name."""
        self.model, self.reason = default_embedder(settings)
        self.least_alike = LEAST_ALIKE.get(self.model, -1.0)
        self._providers = providers

    async def vectors(self, texts: Sequence[str], kind: Literal["query", "document"]) -> list[Vector]:
        """One vector per text, all of one length.

        Raises:
            ModelUnavailable: when the provider may answer later.
            RunFailed: when it will not.
        """
        try:
            embedder = await self._providers.embedder(self.model)
            result = await embedder.embed(list(texts), input_type=kind)
        except ParleyError:
            raise
        except Exception as error:
            raise self._providers.failure(error) from error
        vectors = [list(vector) for vector in result.embeddings]
        if len(vectors) != len(texts) or len({len(vector) for vector in vectors}) != 1 or not vectors[0]:
            raise ModelFailed(f"{self.model} answered with {len(vectors)} vectors to {len(texts)} texts")
        return vectors
