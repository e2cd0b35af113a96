"""What is measured without servers side by side: tools and documents. Each is a program of its own as well."""

from collections.abc import Awaitable, Callable

from benchmarks import documents, openapi, registry, sandbox
from benchmarks.figure import Figure

# Each as large as it is meant, and with --quick.
ALONE: dict[str, tuple[Callable[[], Awaitable[list[Figure]]], Callable[[], Awaitable[list[Figure]]]]] = {
    "sandbox": (sandbox.measure, lambda: sandbox.measure(150, 2)),
    "registry": (registry.measure, lambda: registry.measure(3)),
    "openapi": (openapi.measure, lambda: openapi.measure(2)),
    "documents": (documents.measure, lambda: documents.measure(2_000, 100)),
}


async def figures(name: str, *, quick: bool) -> list[Figure]:
    """The figures of one of them."""
    whole, small = ALONE[name]
    return await (small() if quick else whole())
