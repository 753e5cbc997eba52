"""The address of a study that several searches share, `--study URL`: read, tried, and said without its password."""

import re
import uuid
from typing import TYPE_CHECKING, Any

from datasets import InputError

if TYPE_CHECKING:
    import sqlalchemy


class Unreachable(InputError):
    """The database of a study cannot be reached now."""


CONNECTION_S = 5
"""How long to wait for a server to answer."""

_DATABASE = re.compile(r"(postgres|mysql|mariadb|oracle|mssql)[a-z0-9]*(\+\w+)?://")
_PASSWORD = re.compile(r"(://[^:/@?#\s]*):[^\s]*@")
_PASSWORD_PARAMETER = re.compile(r"([?&](?:ssl)?pass(?:word|wd|phrase)?=)[^&\s]*")


def without_password(text: str) -> str:
    """A text in which addresses of databases stand as they may be written down."""
    return _PASSWORD_PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1@", text))


def names_database(text: str) -> bool:
    """Whether a URL is one of a database and not of a folder."""
    return _DATABASE.match(text) is not None


def new_owner() -> str:
    """An identity for a search among those that share a study."""
    return uuid.uuid4().hex


def address(study: str) -> "sqlalchemy.URL":
    """Of `--study`; `postgresql://` is for psycopg 3. Raises `InputError` for what is no address of a database that
    many may write to."""
    import sqlalchemy

    shown = without_password(study)
    try:
        found = sqlalchemy.make_url(study)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise InputError(f"--study {shown}: is no address; write postgresql://USER@HOST/DATABASE") from None
    if found.get_backend_name() == "sqlite":
        raise InputError(
            f"--study {shown}: SQLite is for one search, which keeps its study in study.db anyway; to share one write "
            f"postgresql://USER@HOST/DATABASE"
        )
    if found.drivername in ("postgresql", "postgres"):
        return found.set(drivername="postgresql+psycopg")
    return found


def connecting(url: "sqlalchemy.URL") -> dict[str, Any]:
    """Arguments for `sqlalchemy.create_engine`, so that a server which has gone is noticed within seconds."""
    if url.drivername != "postgresql+psycopg":
        return {"pool_pre_ping": True}
    # Milliseconds. Without it, what was sent to a machine that has gone is waited for a quarter of an hour.
    noticing = {"connect_timeout": CONNECTION_S, "tcp_user_timeout": 1000 * CONNECTION_S}
    # Nothing is prepared on the server: poolers such as PgBouncer give every transaction another connection.
    return {"pool_pre_ping": True, "connect_args": {**noticing, "prepare_threshold": None}}


def check_reachable(study: str) -> None:
    """Raises `InputError`, within seconds, where there is no database, no driver for it, or no way in."""
    import sqlalchemy

    shown = without_password(study)
    url = address(study)
    try:
        engine = sqlalchemy.create_engine(url, **connecting(url))
        with engine.connect():
            pass
        engine.dispose()
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise InputError(
            f"--study {shown}: there is no driver for it here ({error}); postgresql:// has one, for others install "
            f"what SQLAlchemy names for them"
        ) from None
    except (sqlalchemy.exc.SQLAlchemyError, ValueError) as error:
        raise InputError(
            f"--study {shown}: {reason(error, url)}; check host, user and database; a password may stand in "
            f"~/.pgpass or PGPASSWORD"
        ) from None


def reason(error: BaseException, url: "sqlalchemy.URL") -> str:
    """The last thing that a driver says of a failure, on one line and without the password."""
    lines = [line.strip() for line in str(getattr(error, "orig", None) or error).splitlines() if line.strip()]
    told = [line for line in lines if "Is the server running" not in line and not line.startswith("Multiple ")]
    said = told[-1].removeprefix("- ") if told else type(error).__name__
    for secret in filter(None, (url.password, url.query.get("password"))):
        said = said.replace(str(secret), "***")
    return said
