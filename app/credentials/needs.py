"""Who needs a credential: tools that name it, and agents that have those tools."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from app.credentials.box import Box
from app.credentials.rows import open_secrets
from app.db import Database
from app.errors import Unreadable

NEEDS = """
select v.spec->>'credential' as credential, t.name as tool, (
    select coalesce(array_agg(a.name order by a.name), '{}')
    from agents a join agent_versions av on av.agent_id = a.id and av.version = a.published_version
    where a.workspace_id = t.workspace_id and a.deleted_at is null
        and t.name in (select json_array_elements_text(av.spec->'tools'))) as agents
from tools t join tool_versions v on v.tool_id = t.id and v.version = t.published_version
where t.workspace_id = $1 and t.deleted_at is null and v.spec->>'credential' = any($2::text[])
order by t.name
"""
ALL = "select id, workspace_id, name, secret from credentials order by id"


@dataclass
class Needs:
    """Who needs a credential.

    Attributes:
        tools: Tools that name it.
        agents: Agents that have one of those.
    """

    tools: list[str]
    agents: list[str]


async def needs(database: Database, workspace_id: UUID, names: Sequence[str]) -> dict[str, Needs]:
    """Who needs these credentials, by their names."""
    found = {name: Needs([], []) for name in names}
    if not names:
        return found
    for row in await database.fetch(NEEDS, workspace_id, list(names)):
        need = found[row["credential"]]
        need.tools.append(row["tool"])
        need.agents = sorted({*need.agents, *row["agents"]})
    return found


async def unreadable_everywhere(database: Database, box: Box) -> list[tuple[str, Needs]]:
    """The credentials of all workspaces that the keys do not open, with who needs them."""
    shut: dict[UUID, list[str]] = {}
    for row in await database.fetch(ALL):
        try:
            open_secrets(box, row["workspace_id"], row["id"], row["secret"])
        except Unreadable:
            shut.setdefault(row["workspace_id"], []).append(row["name"])
    return [each for workspace, names in shut.items() for each in (await needs(database, workspace, names)).items()]
