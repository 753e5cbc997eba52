"""Folders laid out as the real data sets are, with tiny files in them."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np

MURA_STUDIES = {  # (split, part): studies normal, abnormal, images normal, abnormal; published in MURA's own csv files
    ("train", "ELBOW"): (1094, 660, 2925, 2006),
    ("train", "FINGER"): (1280, 655, 3138, 1968),
    ("train", "FOREARM"): (590, 287, 1164, 661),
    ("train", "HAND"): (1497, 521, 4059, 1484),
    ("train", "HUMERUS"): (321, 271, 673, 599),
    ("train", "SHOULDER"): (1364, 1457, 4211, 4168),
    ("train", "WRIST"): (2134, 1326, 5765, 3987),
    ("valid", "ELBOW"): (92, 66, 235, 230),
    ("valid", "FINGER"): (92, 83, 214, 247),
    ("valid", "FOREARM"): (69, 64, 150, 151),
    ("valid", "HAND"): (101, 66, 271, 189),
    ("valid", "HUMERUS"): (68, 67, 148, 140),
    ("valid", "SHOULDER"): (99, 95, 285, 278),
    ("valid", "WRIST"): (140, 97, 364, 295),
}
SMALL_STUDIES = {
    ("train", "SHOULDER"): (2, 3, 5, 8),
    ("train", "WRIST"): (4, 2, 9, 5),
    ("train", "HAND"): (2, 2, 4, 6),
    ("valid", "WRIST"): (1, 2, 2, 6),
    ("valid", "SHOULDER"): (1, 1, 3, 1),
}
ORDER = {  # in which the csv files list the parts
    "train": ("SHOULDER", "HUMERUS", "FINGER", "ELBOW", "WRIST", "FOREARM", "HAND"),
    "valid": ("WRIST", "FOREARM", "HAND", "HUMERUS", "SHOULDER", "ELBOW", "FINGER"),
}
FIRST_VIEWS = {"train": 3, "valid": 4}
"""Views of the first study of each csv file, which a reader that expects a header loses."""


@dataclass(frozen=True)
class Patients:
    """How the studies of a split are shared out; who is in none of these has one study."""

    first: int
    several_parts: int
    """Patients with one study of each of two parts, `mixed_parts` of them one normal and one abnormal."""
    mixed_parts: int
    same_part: int
    """Patients with two studies of one part, `mixed_same` of them one normal and one abnormal."""
    mixed_same: int


MURA_PATIENTS = {
    # 11,184 patients, 1,467 of them under several parts, 888 with normal and abnormal studies: as in the real set.
    "train": Patients(first=1, several_parts=1467, mixed_parts=500, same_part=806, mixed_same=388),
    # 783 patients; how many have several parts is made up.
    "valid": Patients(first=11185, several_parts=200, mixed_parts=100, same_part=216, mixed_same=50),
}
SMALL_PATIENTS = {
    "train": Patients(first=1, several_parts=2, mixed_parts=1, same_part=1, mixed_same=1),
    "valid": Patients(first=11185, several_parts=1, mixed_parts=1, same_part=0, mixed_same=0),
}

Study = tuple[str, int, int, int]
"""Part, patient, number of the study within part and patient, 1 for abnormal."""


def mura_tree(folder: Path, full: bool) -> Path:
    """MURA-v1.1 below `folder`, as its archive unpacks; every image a distinct gray PNG of 8 x 8 pixels.

    `full`: all 40,005 paths with the real counts of images, studies and patients per split, part and label, else 49
    images. Returns the folder MURA-v1.1.
    """
    root = folder / "MURA-v1.1"
    number = 0
    for split in ("train", "valid"):
        counts = {part: of for (where, part), of in (MURA_STUDIES if full else SMALL_STUDIES).items() if where == split}
        studies = _studies(counts, (MURA_PATIENTS if full else SMALL_PATIENTS)[split], ORDER[split])
        views = _views(studies, counts, FIRST_VIEWS[split])
        paths, labels = [], []
        for (part, patient, study, label), images in zip(studies, views, strict=True):
            below = f"{split}/XR_{part}/patient{patient:05d}/study{study}_{('negative', 'positive')[label]}"
            (root / below).mkdir(parents=True)
            labels.append(f"MURA-v1.1/{below}/,{label}\n")
            for view in range(1, images + 1):
                (root / below / f"image{view}.png").write_bytes(tiny_png(number))
                paths.append(f"MURA-v1.1/{below}/image{view}.png\n")
                number += 1
        (root / f"{split}_image_paths.csv").write_text("".join(paths))
        (root / f"{split}_labeled_studies.csv").write_text("".join(labels))
    return root


def _studies(counts: dict[str, tuple[int, int, int, int]], patients: Patients, order: tuple[str, ...]) -> list[Study]:
    """Every study of a split in the order of its csv files: the first one is abnormal, of the first part, alone."""
    left = {(part, label): of[label] for part, of in counts.items() for label in (0, 1)}

    def take(label: int, part: str | None = None, but: str | None = None) -> tuple[str, int]:
        """One of the most frequent studies left."""
        cells = [cell for cell in left if cell[1] == label and part in (None, cell[0]) and cell[0] != but]
        cell = max(cells, key=lambda cell: left[cell])
        assert left[cell] > 0
        left[cell] -= 1
        return cell

    def both(part: str) -> int:
        return min(left[part, 0], left[part, 1])

    of_patient = [[take(1, part=order[0])]]
    for i in range(patients.several_parts):
        first = take(i % 2)
        other = 1 - first[1] if i < patients.mixed_parts else first[1]
        of_patient.append([first, take(other, but=first[0])])
    for i in range(patients.same_part):
        if i < patients.mixed_same:
            part = max(counts, key=both)
            of_patient.append([take(0, part), take(1, part)])
        else:
            first = take(i % 2)
            of_patient.append([first, take(first[1], first[0])])
    of_patient += [[cell] for cell, count in left.items() for _ in range(count)]

    studies = []
    for patient, cells in enumerate(of_patient, patients.first):
        parts = [part for part, _ in cells]
        for i, (part, label) in enumerate(cells):
            studies.append((part, patient, 1 + parts[:i].count(part), label))
    return sorted(studies, key=lambda study: (order.index(study[0]), *study[1:]))


def _views(studies: list[Study], counts: dict[str, tuple[int, int, int, int]], first: int) -> list[int]:
    """Views per study: mostly 2 to 4, at most 11, with the right sum per part and label."""
    views = np.ones(len(studies), int)
    views[0] = first
    for part, of in counts.items():
        for label in (0, 1):
            rows = [i for i, study in enumerate(studies) if (study[0], study[3]) == (part, label)]
            free = [i for i in rows if i]
            views[free] = [most for _, most in zip(free, cycle((3, 3, 2, 4, 3, 1, 3, 2)), strict=False)]
            _adjust(views, free, of[2 + label] - int(views[rows].sum()))
    if len(studies) > 1000:  # one study with as many views as the real set's longest
        longest = max(range(1, len(studies)), key=lambda i: views[i])
        same = [i for i, study in enumerate(studies) if i and study[::3] == studies[longest][::3] and i != longest]
        _adjust(views, same, -int(11 - views[longest]))
        views[longest] = 11
    return views.tolist()


def _adjust(views: np.ndarray, rows: list[int], by: int) -> None:
    """Add `by` views in all to the studies `rows`, one at a time, as evenly as can be."""
    step = 1 if by > 0 else -1
    turn: Iterator[int] = cycle(rows)
    while by:
        i = next(turn)
        if 1 <= views[i] + step <= 10:
            views[i] += step
            by -= step


def tiny_png(number: int, side_px: int = 8) -> bytes:
    """A gray PNG of noise, another one for every number; written without Pillow, which takes ten times longer."""
    noise = np.random.Philox(key=number).random_raw(side_px * side_px // 8).tobytes()
    rows = b"".join(b"\0" + noise[i : i + side_px] for i in range(0, len(noise), side_px))
    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    )
