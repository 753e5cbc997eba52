"""The address of a study that several searches share, `--study URL`: read, tried, and said without its password."""

import re
import uuid
import zlib
from typing import TYPE_CHECKING, Any

from datasets import InputError
from datasets.remote import without_secrets

if TYPE_CHECKING:
    import sqlalchemy


class Unreachable(InputError):
    """The database of a study cannot be reached now."""


OF_ITS_OWN = "; each search that shares a study needs a --results, or a --storage, of its own"
"""Said where a second search finds the results of a first one: with another `--name` it would have another study."""

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


def public(argument: str) -> str:
    """An option of a command line, or its value, without what is secret in a URL of whatever kind."""
    name, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    hidden = without_password(value) if names_database(value) else without_secrets(value)
    return f"{name}{equals}{hidden}"


def new_owner() -> str:
    """An identity for a search among those that share a study."""
    return uuid.uuid4().hex


def own_seed(owner: str) -> int:
    """So that searches which share a study, and a seed, do not propose the same."""
    return zlib.crc32(owner.encode()) % 2**30


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
    # And an answer that never comes, where nothing is sent any more, for ever.
    noticing |= {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
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
