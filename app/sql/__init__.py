"""The SQL tools' database: the operator's own data, named by `SQL_TOOL_URL`, read and never written.

Three nets, each of which holds alone: the statement is parsed by PostgreSQL's own grammar and must be one that reads
(`statement`), it runs in a read-only transaction of a session that is thrown away (`session`), and the role should be
one that can't write in the first place.
"""

from app.sql.outline import describe
from app.sql.session import Role, available, examine, names_our_own, query
from app.sql.statement import Statement, parse

__all__ = ["Role", "Statement", "available", "describe", "examine", "names_our_own", "parse", "query"]
