"""One connection to PostgreSQL: its URL read, opened when it is needed, opened again when it was
lost, and every fault by its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from indexer.external.retries import Retries
from rag.errors import ConfigurationError, DatabaseError, DatabaseUnavailable

T = TypeVar("T")
Work = Callable[[psycopg.Connection[Any]], T]

SAID_CHARS = 200
"""Of the database's own message that are passed on."""
# Lost connections, a server that starts or stops, no free connection, and lost races.
_PASSING = ("08", "57P01", "57P02", "57P03", "53300", "40001", "40P01")
_PASSING_WORDS = ("starting up", "shutting down", "too many", "remaining connection slots")
_DEFAULTS = {
    "connect_timeout": "5",  # seconds
    "keepalives_idle": "30",
    "tcp_user_timeout": "60000",  # milliseconds
    "application_name": "rag-indexer",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a table is: `table` is (name,) or (schema, name), `options` libpq's own, and `shown`
    what messages call it, without user and password.
    """

    table: tuple[str, ...]
    options: dict[str, Any]
    shown: str


def read_url(url: str) -> Address:
    """Reads postgresql://[user[:password]@]host[:port]/database?table=[schema.]name; other
    parameters are libpq's own (sslmode …). Raises ConfigurationError, which shows none of it.
    """
    try:
        parts = urlsplit(url)
        parameters = dict(parse_qsl(parts.query))
        table = tuple(parameters.pop("table", "").split("."))
        options = conninfo_to_dict(parts._replace(query=urlencode(parameters)).geturl())
        if set("@/") & set(str(options.get("dbname", ""))):  # of a password that holds a '/'
            raise ValueError
    except (ValueError, psycopg.ProgrammingError):
        raise ConfigurationError(
            "--database is no URL of PostgreSQL: postgresql://user@host:5432/database?table=name,"
            " with a password's special characters percent-encoded"
        ) from None
    if not all(table) or len(table) > 2:
        raise ConfigurationError(
            "--database names no table: postgresql://user@host/database?table=[schema.]name"
        )
    place = f"{options.get('host', '')}:{options.get('port', '5432')}/{options.get('dbname', '')}"
    shown = f"postgresql://{place}?table={'.'.join(table)}"
    return Address(table, _DEFAULTS | options, shown)


class PostgresConnection:
    """The connection to `address`; every statement is a transaction of its own."""

    def __init__(self, address: Address, retries: Retries) -> None:
        self._address = address
        self._retries = retries
        self._open: psycopg.Connection[Any] | None = None

    def close(self) -> None:
        if self._open is not None:
            self._open.close()

    def run(self, work: Work[T]) -> T:
        """What `work` gives; after a loss it is done again from its start on a new connection.
        Raises DatabaseUnavailable or DatabaseError.
        """
        return self._retries(lambda: self._once(work))

    def _once(self, work: Work[T]) -> T:
        try:
            if self._open is None or self._open.closed:
                self._open = psycopg.connect(**self._address.options, autocommit=True)
            return work(self._open)
        except psycopg.Error as error:
            raise self._failure(error) from error

    def _failure(self, error: psycopg.Error) -> DatabaseError:
        said = " ".join(str(error).split())
        if password := self._address.options.get("password"):
            said = said.replace(password, "***")
        message = f"{self._address.shown}: {said[:SAID_CHARS]}"
        return DatabaseUnavailable(message) if self._passes(error) else DatabaseError(message)

    def _passes(self, error: psycopg.Error) -> bool:
        """Whether another attempt may fare better."""
        if error.sqlstate is not None:
            return error.sqlstate.startswith(_PASSING)
        if not isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
            return False
        said = str(error)
        refused = "FATAL:" in said or "no password supplied" in said
        return not refused or any(word in said for word in _PASSING_WORDS)
