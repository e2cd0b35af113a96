"""Embedding models: which one turns documents into vectors, and the one that needs no provider."""

import asyncio
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from zlib import crc32

from pydantic_ai.embeddings import EmbeddingModel, EmbeddingResult, EmbeddingSettings
from pydantic_ai.embeddings.result import EmbedInputType

DIMENSIONS = 1024
WORD = re.compile(r"[^\W_]+")
GRAM = 3


class LocalEmbedding(EmbeddingModel):
    """Hashed words and parts of words: finds other forms and misspellings of a word, and knows no meanings."""

    @property
    def model_name(self) -> str:
        """Its name."""
        return "local"

    @property
    def system(self) -> str:
        """No provider."""
        return "local"

    async def embed(
        self, inputs: str | Sequence[str], *, input_type: EmbedInputType, settings: EmbeddingSettings | None = None
    ) -> EmbeddingResult:
        """The vectors of these texts; a few milliseconds each."""
        texts, _ = self.prepare_embed(inputs, settings)
        return EmbeddingResult(
            await asyncio.to_thread(lambda: [vector_of(text) for text in texts]),
            inputs=texts,
            input_type=input_type,
            model_name=self.model_name,
            provider_name=self.system,
        )


def vector_of(text: str) -> list[float]:
    """The vector of a text: of length 1, the same on every machine."""
    vector = [0.0] * DIMENSIONS
    for feature, count in Counter(_features(text)).items():
        digest = crc32(feature.encode())
        # The sign keeps features that share a place from adding up.
        vector[digest % DIMENSIONS] += (1 if digest & 0x8000_0000 else -1) * (1 + math.log(count))
    length = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / length for value in vector]


def _features(text: str) -> Iterator[str]:
    for word in WORD.findall(text.lower()):
        if word in STOPWORDS:
            continue
        yield word
        framed = f"^{word}$"
        yield from (framed[start : start + GRAM] for start in range(max(1, len(framed) - GRAM + 1)))


# The commonest English words: in every text, they make any two alike.
STOPWORDS = frozenset(
    re.findall(
        r"\w+",
        "a about all also an and any are as at be been but by can could did do does for from had has have how i if in "
        "into is it its may me more my no not of on or our out say so some such than that the their them then there "
        "these they this to was we were what when where which who why will with would you your",
    )
)
