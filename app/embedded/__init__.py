"""PostgreSQL and Valkey from wheels, and the whole of Parley in one supervised process tree."""

from app.embedded.attach import with_running_servers
from app.embedded.home import Home, Run, running
from app.embedded.postgres import PostgresServer, start_postgres
from app.embedded.processes import Child, Process
from app.embedded.servers import Servers
from app.embedded.stack import up
from app.embedded.supervisor import StopRequested, StopSignals, Supervisor
from app.embedded.valkey import ValkeyServer, start_valkey

__all__ = [
    "Child",
    "Home",
    "PostgresServer",
    "Process",
    "Run",
    "Servers",
    "StopRequested",
    "StopSignals",
    "Supervisor",
    "ValkeyServer",
    "running",
    "start_postgres",
    "start_valkey",
    "up",
    "with_running_servers",
]
