"""Findings on files: what was left out, what the lists beside the images say, what the arrays and masks hold.

Readers understand these oddities; whoever reads the same files with another program should know of them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.arrays import members
from datasets.dataset import Skipped
from datasets.decoding import FORMATS
from datasets.errors import InputError
from datasets.findings import Evidence, Finding, Severity, counted, percent
from datasets.labels import AT_LINE, NO_MASK, NOT_FOUND

LOOKED_AT = 24
"""Files of a kind that are opened once more: those of one export are alike."""
MODES_TOLD = 4
FEW_ROWS = 10
FEW_ROWS_SHARE = 0.05
"""Rows of a table that may name no image before that is a warning: a slip or two is usual, while a folder that was not
fetched, or a wrong --data, is a good part of a small table and more than a handful of a large one."""


def file_findings(evidence: Evidence) -> Iterator[Finding]:
    yield from _skipped(evidence)
    yield from _lists(evidence)
    yield from _labels_of_arrays(evidence)
    yield from _mixed_modes(evidence)
    yield from _masks(evidence)
    yield from _channels_of_files(evidence)


def _skipped(evidence: Evidence) -> Iterator[Finding]:
    skipped = evidence.dataset.skipped
    disagreeing = [file for file in skipped if "listed in " in file.reason]
    if disagreeing:
        lists = sorted({file.reason.rpartition("listed in ")[2] for file in disagreeing})
        unlisted = [file for file in disagreeing if "not listed in " in file.reason]
        missing = len(disagreeing) - len(unlisted)
        said = []
        if unlisted:
            folders = len({file.path.rpartition("/")[0] for file in unlisted})
            said.append(f"{counted(len(unlisted), 'image')} in {counted(folders, 'folder')} not listed")
        if missing:
            said.append(f"{counted(missing, 'listed path')} not there")
        yield Finding(
            "lists_disagree",
            "error",
            f"The folders and {' and '.join(lists)} disagree: {'; '.join(said)}. For instance "
            f"{disagreeing[0].path}: {disagreeing[0].reason}.",
            "Fetch the lists again. A list without a header that was once read or saved as if it had one has lost its "
            "first row.",
            tuple(file.path for file in disagreeing),
            {"not_listed": len(unlisted), "not_there": missing},
        )
    lost = [file for file in skipped if _is_lost_row(file)]
    if lost:
        yield _rows_without_image(evidence, lost)
    others = [file for file in skipped if "listed in " not in file.reason and not _is_lost_row(file)]
    if others:
        reasons, numbers = _by_reason(others)
        rows = any(AT_LINE.search(file.reason) for file in others)
        yield Finding(
            "skipped",
            "note",
            f"{counted(len(others), *(('file or row is', 'files or rows are') if rows else ('file is', 'files are')))} "
            f"left out: {reasons}. For instance {_named(others[0])}.",
            "Nothing has to be done, unless one of them should be there.",
            tuple(file.path for file in others),
            numbers,
        )


def _is_lost_row(file: Skipped) -> bool:
    return AT_LINE.search(file.reason) is not None and _why(file) in (*NOT_FOUND, NO_MASK)


def _rows_without_image(evidence: Evidence, lost: list[Skipped]) -> Finding:
    """Rows of a table of labels whose image, or mask, is not there."""
    match = AT_LINE.search(lost[0].reason)
    assert match is not None
    # Every row that is not left out is one image.
    rows = len(evidence.dataset) + sum(bool(AT_LINE.search(file.reason)) for file in evidence.dataset.skipped)
    few = len(lost) < FEW_ROWS and len(lost) < FEW_ROWS_SHARE * rows
    severity: Severity = "note" if few else "warning"
    said, numbers = _by_reason(lost)
    masks = any(_why(row) == NO_MASK for row in lost)
    return Finding(
        "rows_without_image",
        severity,
        f"{len(lost):,} of {counted(rows, 'row')} of {match['table']} ({percent(len(lost) / rows)}) "
        f"{'names' if len(lost) == 1 else 'name'} no image{' or no mask' if masks else ''}: {said}. For instance "
        f"{_named(lost[0])}.",
        "Are all images there, and is --data the folder that the paths begin in? An image may be named by the end of "
        "its path, if no other image ends so.",
        tuple(row.path for row in lost if row.path),
        {"rows": rows, "without_image": len(lost)} | numbers,
    )


def _by_reason(files: Sequence[Skipped]) -> tuple[str, dict[str, int]]:
    """How many there are of every reason: in words, and all."""
    reasons = Counter(map(_why, files)).most_common()
    said = [f"{number:,} {reason}" for reason, number in reasons[:MODES_TOLD]]
    more = f", {counted(len(reasons) - MODES_TOLD, 'other reason')}" if len(reasons) > MODES_TOLD else ""
    return "; ".join(said) + more, dict(reasons)


def _why(file: Skipped) -> str:
    """The reason without what differs from file to file and from row to row."""
    return AT_LINE.sub("", file.reason).partition(":")[0]


def _named(file: Skipped) -> str:
    """A file by its path; a row by that and its line, which is all that an empty path has."""
    at = AT_LINE.search(file.reason)
    return ", ".join(filter(None, (file.path, at and at[0].removeprefix("; "))))


def _lists(evidence: Evidence) -> Iterator[Finding]:
    """csv files in the folder of the images, or the one above, that other programs may stumble over."""
    if "path" not in evidence.dataset.table.columns or not len(evidence.dataset):
        return
    first, last = evidence.dataset.table["path"].min(), evidence.dataset.table["path"].max()
    assert isinstance(first, str)
    assert isinstance(last, str)
    above = next(folder for folder in Path(first).parents if Path(last).is_relative_to(folder))
    headless: dict[str, int] = {}
    for file in sorted({*above.glob("*.csv"), *above.glob("*.CSV")}):
        try:
            data = file.read_bytes()
        except OSError:
            continue
        lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        header = lines[0].split(b",")
        odd = []
        if b"\r" in data.replace(b"\r\n", b""):
            odd.append("line ends of the old Macintosh")
        if any(name != name.strip() for name in header):
            odd.append("blanks around the names of its columns")
        if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
            odd.append("a byte order mark")
        if odd:
            yield Finding(
                "odd_list",
                "note",
                f"{file.name} has {' and '.join(odd)}. That was understood here; many programs read wrong names or a "
                f"single long line.",
                "Strip every value, and open it with universal line ends.",
                numbers={"file": file.name},
            )
        if _begins_with_data(lines):
            headless[file.name] = sum(map(bool, lines))
    if headless:
        said = ", ".join(f"{name} ({rows:,} rows, not {rows - 1:,})" for name, rows in headless.items())
        yield Finding(
            "list_without_header",
            "note",
            f"{said}: without a header; the first line is already an image or a study, which is lost to whoever reads "
            f"the file with one.",
            "Here every line counts. Elsewhere, say that there is no header.",
            numbers={"rows": headless},
        )


def _begins_with_data(lines: list[bytes]) -> bool:
    """Whether the first line holds a path, as the second does."""
    return len(lines) > 1 and all(b"/" in line.split(b",")[0] for line in lines[:2])


def _labels_of_arrays(evidence: Evidence) -> Iterator[Finding]:
    if "array_file" not in evidence.dataset.table.columns:
        return
    for name in evidence.dataset.table["array_file"].unique().sort():
        if not str(name).lower().endswith(".npz"):
            continue
        try:
            headers = members(Path(name))
        except (InputError, OSError):
            continue
        columns = [member for member, header in headers.items() if len(header.shape) == 2 and header.shape[1] == 1]
        if columns:
            yield Finding(
                "labels_in_a_column",
                "note",
                f"{Path(name).name} holds labels as a column, of shape (N, 1) and not (N,): {', '.join(columns)}. That "
                f"was understood here; elsewhere a comparison with (N,) compares every label with every other one.",
                "Squeeze the labels.",
                numbers={"arrays": columns},
            )


def _mixed_modes(evidence: Evidence) -> Iterator[Finding]:
    table = evidence.facts.table[evidence.originals]
    kinds = Counter(zip(table["format"], table["mode"], strict=True)).most_common()
    if len(kinds) > 1:
        said = [f"{number:,} {form} {mode}" for (form, mode), number in kinds[:MODES_TOLD]]
        rare = [kind for kind, _ in kinds[1:]]
        rows = [
            row
            for row, kind in zip(evidence.originals, zip(table["format"], table["mode"], strict=True), strict=True)
            if kind in rare
        ]
        yield Finding(
            "mixed_modes",
            "note",
            f"The files are of {len(kinds)} kinds: {', '.join(said)}.",
            "All are read as what they look like, in the same colours and depth. Ask whether the kinds are sources.",
            evidence.ids(rows),
        )


def _masks(evidence: Evidence) -> Iterator[Finding]:
    if "mask_path" not in evidence.dataset.table.columns:
        return
    values: set[int] = set()
    for path in evidence.dataset.table["mask_path"].head(LOOKED_AT):
        try:
            with Path(path).open("rb") as file, Image.open(file, formats=FORMATS) as image:
                values |= set(np.unique(np.asarray(image)).tolist())
        except Exception:  # a broken mask is found elsewhere, and Pillow raises nearly anything
            continue
    highest = len(evidence.dataset.classes) - 1
    if not values or max(values) <= highest:
        return
    what = (
        f"{min(values)} and {max(values)}"
        if len(values) == 2
        else f"{len(values)} values up to {max(values)}, one per object or shade"
    )
    yield Finding(
        "mask_values",
        "note",
        f"The mask files hold {what}, and not the numbers of classes (0 to {highest}). Here whatever is not 0 is "
        f"{evidence.dataset.classes[-1]}.",
        "Elsewhere, test for > 0; as numbers of classes they would be wrong.",
        numbers={"values": sorted(values)[:300]},
    )


def _channels_of_files(evidence: Evidence) -> Iterator[Finding]:
    """Channels of the files that the reader has already left out."""
    dataset = evidence.dataset
    if "path" not in dataset.table.columns or dataset.channels == 3:
        return
    constant = np.ones(3, bool)
    for path in dataset.table["path"].gather(evidence.originals[:LOOKED_AT]):
        try:
            with Path(path).open("rb") as file, Image.open(file, formats=FORMATS) as image:
                if image.mode not in ("RGB", "RGBA"):
                    return
                pixels_HWC = np.asarray(image.convert("RGB"))
        except Exception:  # as above
            continue
        constant &= pixels_HWC.min((0, 1)) == pixels_HWC.max((0, 1))
    empty = [name for name, is_constant in zip(("blue", "green", "red"), constant[::-1], strict=True) if is_constant]
    if empty and len(evidence.originals):
        yield Finding(
            "constant_channel",
            "note",
            f"In the files the {' and '.join(empty)} channel is always the same. "
            + ("It is left out." if dataset.channels == 2 else "The images are read as gray."),
            "Nothing has to be done here. A network for three channels would get an empty one.",
            numbers={"channels": empty},
        )
