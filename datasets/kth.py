"""The images of the KTH course CM2003, which `skin` and `bone` are made of: two laboratories, two layouts.

    DL_course_data/
      Lab1/Skin/train/  test/           files whose names hold Mel or Nev
      Lab1/Bone/train/  test/           files whose names hold AFF or NFF
      Lab2/Skin/train/  validation/     in folders Mel and Nevi
      Lab2/Bone/train/  validation/     in folders AFF and NFF

Both laboratories have nearly the same number of images (1,200 of skin each, 1,212 and 1,208 of bone), so they are most
probably the same ones, split differently: they are never mixed.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl

from datasets.dataset import ImageDataset, Skipped, Split
from datasets.decoding import FileDecoder
from datasets.errors import InputError
from datasets.folders import beside, file_digests, find_images, folder_at, groups

SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "development"),
    **dict.fromkeys(("validation", "valid", "val", "test"), "test"),
}
"""By the name of a folder in lower case. Each laboratory holds one part out, whatever it is called."""
COURSE = ("dl_course_data", "lab1", "lab2")
ORGANS = ("skin", "bone", "x_ray")


def course_images(
    organ: str, root: Path, classes: tuple[str, str], marks: Mapping[str, int], gray: bool
) -> ImageDataset:
    """The images of one organ: the task of that name, which is also that of its folder in lower case.

    `marks`: by what names of files hold (`Nev`), the class. The names of folders are `classes`, or `marks`. Raises
    `InputError` where `root` holds no such images, or those of both laboratories.
    """
    folder = _folder(root, organ, classes)
    found, others = find_images(folder)
    below = [path.relative_to(folder).parts for path in found]
    named = {name.lower(): target for target, name in enumerate(classes)}
    named |= {mark.lower(): target for mark, target in marks.items()}
    in_folders = _in_folders(folder, below, named)

    rows: list[tuple[Path, str, int, Split]] = []
    skipped = list(others)
    for path, parts in zip(found, below, strict=True):
        split = SPLITS.get(parts[0].lower()) if len(parts) > 1 else None
        if split is None:
            target: int | str = "in neither train nor validation nor test"
        elif in_folders:
            of_folder = named.get(parts[1].lower()) if len(parts) > 2 else None
            target = f"not in a class folder ({', '.join(classes)})" if of_folder is None else of_folder
        elif len(parts) > 2 and parts[1].lower() in named:
            target = "in a class folder, but most files lie beside it"
        else:
            target = _class_of_name(path.stem, marks)
        if isinstance(target, str) or split is None:
            skipped.append(Skipped("/".join(parts), str(target)))
        else:
            rows.append((path, "/".join(parts), target, split))
    if not rows:
        why = f"; the first of {len(skipped)} files: {skipped[0].path}: {skipped[0].reason}" if skipped else ""
        raise InputError(f"{folder}: no images of {' or '.join(classes)}{why}")

    paths, image_ids, targets, splits = zip(*rows, strict=True)
    hashes = file_digests(paths)
    inner = folder.relative_to(root)
    lost = [file for file in beside(root, [folder]) if Path(file.path).name.lower() not in (*COURSE, *ORGANS)]
    return ImageDataset(
        name=organ,
        table=pl.DataFrame(
            {
                "image_id": image_ids,
                "path": [str(path.absolute()) for path in paths],
                "target": targets,
                "group": groups(image_ids, hashes),
                "content": hashes,
                "split": splits,
            }
        ),
        classes=classes,
        decoder=FileDecoder("L" if gray else "RGB"),
        channels=1 if gray else 3,
        origin=str(root),
        target_name="diagnosis",
        skipped=(*lost, *(Skipped((inner / file.path).as_posix(), file.reason) for file in skipped)),
    )


def _in_folders(folder: Path, below: list[tuple[str, ...]], named: Mapping[str, int]) -> bool:
    """Whether the classes are in the names of folders (laboratory 2) and not in those of files: as most images have it.
    Raises `InputError` where as many are this as that."""
    in_parts = [parts for parts in below if len(parts) > 1 and parts[0].lower() in SPLITS]
    flat = sum(len(parts) == 2 for parts in in_parts)
    in_folders = sum(len(parts) > 2 and parts[1].lower() in named for parts in in_parts)
    if flat == in_folders > 0:
        raise InputError(
            f"{folder}: both flat files ({flat}) and class folders ({in_folders}), as the two laboratories have them; "
            f"leave one of them there"
        )
    return in_folders > flat


def _class_of_name(name: str, marks: Mapping[str, int]) -> int | str:
    """The class whose mark a file's name holds, or why there is none.

    The mark as it is written anywhere (`ISICMel12`), which is the course's own rule, or in any letters where a word
    begins (`mel_12`, but not `caramel_12`). Never the rest of the path: a user may be called Melanie.
    """
    here = [mark for mark in marks if re.search(rf"{mark}|(?<![A-Za-z])(?i:{mark})", name)]
    if len(here) == 1:
        return marks[here[0]]
    return f"its name holds both {' and '.join(marks)}" if here else f"its name holds neither {' nor '.join(marks)}"


def _folder(root: Path, organ: str, classes: tuple[str, str]) -> Path:
    """The folder with `train`: `root`, or in it that of the organ in that of a laboratory in that of the course."""
    if not root.is_dir():
        raise InputError(
            f"{root}: {'a file' if root.exists() else 'no such folder'}; expected the folder of {organ} images"
        )
    found = list(_with_train(root, organ))
    if len(found) > 1:
        raise InputError(
            f"{root}: holds the {organ} images of {len(found)} laboratories, most probably the same ones split in two "
            f"ways, which must not be mixed; pass one of them: {', '.join(map(str, found))}"
        )
    if not found:
        hint = " (pass the folder above)" if root.name.lower() in SPLITS else ""
        raise InputError(
            f"{root}: no {organ} images; expected a folder with train and in it {' and '.join(classes)}{hint}"
        )
    return found[0]


def _with_train(folder: Path, organ: str) -> Iterator[Path]:
    inside = folder_at(folder).folders
    if any(SPLITS.get(entry.name.lower()) == "development" for entry in inside):
        yield folder
        return
    further = [entry for entry in inside if entry.name.lower() in (organ, *COURSE)]
    if not further and len(inside) == 1 and inside[0].name.lower() not in ORGANS:
        further = inside  # an archive in a folder of its own
    for entry in further:
        yield from _with_train(entry, organ)
