"""Checkpoints of a search whose results are at a URL: saved there by the processes that train, and known here by their
predictions and a note of what is there."""

import json
from pathlib import Path

import analysis.fetched as fetched
from analysis.fetched import CHECKPOINT, NOTE, PREDICTIONS
from analysis.results import last_checkpoint, trial_folder
from datasets.remote import RemoteFolder


class RemoteCheckpoints:
    """Of the trials in a folder of results here. Of different trials several threads may ask at once."""

    def __init__(self, remote: RemoteFolder, folder: Path):
        self._remote, self._folder = remote, folder
        self.kept: dict[int, list[str]] = {}
        """Those of a trial that are there, oldest first."""

    def look(self, begun: set[int]) -> None:
        """Which there are of these trials, by what is here."""
        for number in begun:
            notes_here = sorted(trial_folder(self._folder, number).glob(f"checkpoint_*/{NOTE}"))
            self.kept[number] = [note.parent.name for note in notes_here]

    def bring(self, number: int, name: str) -> None:
        """Here the checkpoint is its predictions and a note; the newest two of a trial are kept, as what is newest may
        be ahead of the reports."""
        checkpoint = trial_folder(self._folder, number) / name
        place = self._name(checkpoint)
        kept = self.kept.setdefault(number, [])
        try:
            note = json.loads(self._remote.read(f"{place}/{NOTE}"))
        except FileNotFoundError:  # of a trial that failed: there is nothing to save
            return
        self._remote.fetch([f"{place}/{PREDICTIONS}"], self._folder)
        fetched.write_note(checkpoint, note)
        if name not in kept:
            kept.append(name)
        while len(kept) > 2:
            self._drop(number, kept[0])
            del kept[0]

    def prune(self, number: int) -> None:
        """As `callbacks.prune`: of a finished trial one checkpoint stays, without what it would go on from."""
        last = last_checkpoint(trial_folder(self._folder, number))
        if last is None:
            return
        for other in [name for name in self.kept.get(number, []) if name != last.name]:
            self._drop(number, other)
            self.kept[number].remove(other)
        note = fetched.whole_note(last)
        if "state.pt" in note["files"]:
            del note["files"]["state.pt"]
            place = self._name(last)
            self._remote.write(f"{place}/{NOTE}", json.dumps(note).encode())
            self._remote.remove([f"{place}/state.pt"])
            fetched.write_note(last, note)

    def _drop(self, number: int, name: str) -> None:
        checkpoint = trial_folder(self._folder, number) / name
        place = self._name(checkpoint)
        self._remote.remove([f"{place}/{NOTE}"])
        self._remote.remove(self._remote.files(place))
        for file in checkpoint.glob("*"):
            file.unlink()
        if checkpoint.exists():
            checkpoint.rmdir()

    def send(self) -> None:
        """Those of a search that began without a URL."""
        for trial in (self._folder / "trials").glob("[0-9]*"):
            checkpoint = last_checkpoint(trial)
            if checkpoint is not None and "elsewhere" not in json.loads((checkpoint / NOTE).read_text()):
                self._send(checkpoint)

    def _send(self, checkpoint: Path) -> None:
        place = self._name(checkpoint)
        note = json.loads((checkpoint / NOTE).read_text())
        self._remote.send([f"{place}/{name}" for name in note["files"]], self._folder)
        self._remote.send([f"{place}/{NOTE}"], self._folder)
        fetched.write_note(checkpoint, note)
        for name in note["files"]:
            if name != PREDICTIONS:
                (checkpoint / name).unlink()

    def is_nobodys(self, name: str, begun: set[int]) -> bool:
        """Of a trial that the study does not know, or a checkpoint that does not count here: it is half written, or
        ahead of the reports."""
        number = name.split("/")[1]
        if not number.isdecimal():
            return False
        found = CHECKPOINT.fullmatch(name)
        if int(number) not in begun or found is None:
            return int(number) not in begun
        note = trial_folder(self._folder, int(number)) / found[2] / NOTE
        return not note.exists() or found[3] not in (NOTE, *fetched.whole_note(note.parent)["files"])

    def _name(self, file: Path) -> str:
        return file.relative_to(self._folder).as_posix()
