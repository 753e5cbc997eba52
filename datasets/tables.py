"""Tables as people have them: csv from any program, system and country, or parquet. Every value comes as text.

Comma, semicolon or tab; UTF-8 with or without its mark, UTF-16 of a spreadsheet, or Windows' Latin letters; the line
ends of Unix, Windows and the old Macintosh; blanks around headers and values.
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from datasets.errors import InputError

SEPARATORS = (",", ";", "\t")
SPREADSHEETS = (".xls", ".xlsx", ".xlsm", ".xlsb", ".ods", ".numbers")
_NO_TEXT = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
"""Control characters: a terminal would obey them."""
SHOWN = 24
"""Characters that are shown of what is no text."""


@dataclass(frozen=True)
class Table:
    path: Path
    columns: tuple[str, ...]
    """Stripped and in lower case."""
    rows: tuple[dict[str, str], ...]
    """A value for every column; "" where there is none."""
    lines: tuple[int, ...]
    """Where in the file each row stands, for messages; the header is line 1."""


def read_table(path: Path) -> Table:
    """Raises `InputError` where the file is no table or its rows do not fit its header."""
    if path.suffix.lower() in SPREADSHEETS and path.is_file():
        raise InputError(f"{path}: a spreadsheet; save it as csv and pass that")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return _read_parquet(path)
        return _read_csv(path, _text(path.read_bytes()))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except (csv.Error, UnicodeDecodeError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path}: not a table that can be read: {str(error).splitlines()[0]}") from None


def _text(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("cp1252", errors="replace")
    # Ctrl-Z is how DOS ends a text.
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\x1a")


def _read_csv(path: Path, text: str) -> Table:
    if odd := re.search(_NO_TEXT, text):
        line = text.count("\n", 0, odd.start()) + 1
        found = text[odd.start() : odd.start() + SHOWN]
        raise InputError(f"{path}: line {line} holds {found!r}, which is no text; expected a csv or parquet file")
    lines = text.split("\n")
    said = lines[0].strip().lower().removeprefix("sep=") if lines[0].lower().startswith("sep=") else None
    start = 1 if said else 0
    if len(lines) <= start or not lines[start].strip():
        raise InputError(f"{path}: its first line is empty; expected the names of the columns")
    separator = said or max(SEPARATORS, key=lines[start].count)
    if len(separator) != 1:
        raise InputError(f"{path}: says that its separator is {separator[:SHOWN]!r}; expected a single character")
    reader = csv.reader((f"{line}\n" for line in lines[start:]), delimiter=separator, skipinitialspace=True)
    columns = _columns(path, next(reader))
    rows, numbers = [], []
    for values in reader:
        stripped = [value.strip() for value in values]
        if not any(stripped):
            continue
        if any(stripped[len(columns) :]):
            raise InputError(
                f"{path}: line {reader.line_num + start} has {len(values)} values, but there are {len(columns)} "
                f"columns: put quotes around values that hold a {separator!r}"
            )
        padded = stripped[: len(columns)] + [""] * (len(columns) - len(stripped))
        rows.append({name: value for name, value in zip(columns, padded, strict=True) if name})
        numbers.append(reader.line_num + start)
    return Table(path, tuple(name for name in columns if name), tuple(rows), tuple(numbers))


def _read_parquet(path: Path) -> Table:
    table = pl.read_parquet(path, glob=False)
    columns = _columns(path, table.columns)
    for name, dtype in table.schema.items():
        if dtype.is_nested() or dtype == pl.Binary or dtype == pl.Object:
            raise InputError(f"{path}: column {name} holds {dtype}; expected text or numbers, images as paths")
    whole = [name for name, dtype in table.schema.items() if dtype.is_float() and _is_whole(table[name])]
    table = table.with_columns(
        pl.col(whole).fill_nan(None).cast(pl.Int64)
    )  # what a column with holes becomes in pandas
    text = table.cast(pl.String).with_columns(pl.all().str.strip_chars().fill_null(""))
    for values in (pl.Series(table.columns, dtype=pl.String), *text):
        odd = values.filter(values.str.contains(_NO_TEXT))
        if len(odd):
            where = f"column {values.name!r}" if values.name else "its header"
            raise InputError(f"{path}: {where} holds {odd[0][:SHOWN]!r}, which is no text")
    rows = text.rename(dict(zip(table.columns, columns, strict=True))).rows(named=True)
    return Table(path, columns, tuple(rows), tuple(range(2, len(rows) + 2)))


def _is_whole(column: pl.Series) -> bool:
    values = column.fill_nan(None).drop_nulls()
    return bool((values.is_finite() & (values == values.round(0))).all())


def _columns(path: Path, header: list[str]) -> tuple[str, ...]:
    columns = tuple(name.strip().lower() for name in header)
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise InputError(f"{path}: has several columns {twice[0]!r}")
    return columns
