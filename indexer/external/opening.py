"""Which database a URL names."""

from __future__ import annotations

from collections.abc import Mapping

from indexer.external.retries import Retries
from indexer.external.table import Opener
from rag.errors import ConfigurationError

WAYS = (
    "weaviate+https://host[:port]/Collection or postgresql://user@host[:port]/database?table=name"
)
KEY_VARIABLE = "WEAVIATE_API_KEY"


def table_opener(
    url: str, environment: Mapping[str, str], *, retries: Retries | None = None
) -> Opener:
    """What opens the table at `url`; nothing is asked of it yet.

    `environment` holds Weaviate's API key, WEAVIATE_API_KEY; PostgreSQL's own library reads
    PGPASSWORD and ~/.pgpass by itself. Raises ConfigurationError for a URL that is none of WAYS,
    and for a package that is not installed.
    """
    retries = retries or Retries()
    scheme = url.partition("://")[0].lower()
    if scheme in ("weaviate+http", "weaviate+https"):
        from indexer.external.weaviate import weaviate_opener

        return weaviate_opener(url, environment.get(KEY_VARIABLE), retries)
    if scheme in ("postgresql", "postgres"):
        try:
            from indexer.external.postgres import postgres_opener
        except ImportError as error:
            raise ConfigurationError(
                "PostgreSQL needs psycopg: pip install 'rag-containers[databases]'"
            ) from error
        return postgres_opener(url, retries)
    shown = f"'{scheme}'" if "://" in url else "none"
    raise ConfigurationError(f"--database must be {WAYS}; the scheme given is {shown}")
