"""What happened to a search beside its trials: sessions, nodes and processes that were lost, what went on from where.

A search appends it to `happenings.jsonl` (`search/happenings.py`); older results have none.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

SHORT = 8
"""Characters of the number of a node that tell it from others."""


def happenings(folder: Path) -> dict[str, Any] | None:
    """Ready for JSON, with words; None where all there is to tell is one session that came to its end."""
    sessions: list[dict[str, Any]] = []
    counts = {"processes_lost": 0, "nodes_lost": 0, "nodes_joined": 0}
    went_on: set[int] = set()
    for line in _lines(folder / "happenings.jsonl"):
        what = line.get("what")
        if what == "began":
            began = {"began": line["at"], "nodes": line["nodes"], "finished_before": line["finished"]}
            sessions.append(began | {"ended": None, "why": None, "finished": None, "events": []})
        elif sessions and what == "ended":
            sessions[-1] |= {"ended": line["at"], "why": line.get("why"), "finished": line["finished"]}
        elif sessions and (words := _words(line)):
            sessions[-1]["events"].append({"at": line["at"], "words": words})
            counts["processes_lost"] += what == "process lost"
            counts["nodes_lost"] += what == "node lost"
            counts["nodes_joined"] += what == "node joined"
            went_on |= {line["trial"]} if what == "went on" else set()
    if len(sessions) < 2 and not any(session["events"] or session["why"] for session in sessions):
        return None
    for session, after in zip(sessions, [*sessions[1:], None], strict=True):
        session["words"] = _end_words(session, after)
    return {"words": _counts_words(counts, sorted(went_on)), **counts, "went_on": sorted(went_on), "sessions": sessions}


def _lines(file: Path) -> list[dict[str, Any]]:
    """Those that are whole; none of older results."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
    return found


def _counts_words(counts: dict[str, int], went_on: list[int]) -> str:
    told = [
        f"{count} {one if count == 1 else several}"
        for count, one, several in (
            (counts["nodes_joined"], "node joined", "nodes joined"),
            (counts["nodes_lost"], "node was lost", "nodes were lost"),
            (counts["processes_lost"], "process of a trial was lost", "processes of trials were lost"),
            (len(went_on), "trial went on where it had been", "trials went on where they had been"),
        )
        if count
    ]
    return ", ".join(told) or "nothing was lost"


def _end_words(session: dict[str, Any], after: dict[str, Any] | None) -> str:
    before, ended = session["finished_before"], session["finished"]
    if session["ended"] is not None:
        how = f"It was asked to end ({session['why']})" if session["why"] else "It came to its end"
        return f"{how}, with {ended} finished trials, of which {before} before it"
    if after is not None:
        return (
            f"It was lost with its driver; {after['finished_before']} trials had finished when the next session began, "
            f"of which {before} before it"
        )
    return f"It is still going on, or was lost with its driver; {before} trials had finished before it"


def _words(line: dict[str, Any]) -> str | None:
    """None for what a later version may have written."""
    match line:
        case {"what": "node joined", "node": node, "address": address, "cpus": cpus, "gpus": gpus}:
            return f"node {address} ({node[:SHORT]}) joined, with {cpus:g} CPUs and {gpus:g} GPUs"
        case {"what": "node lost", "node": node, "address": address}:
            return f"node {address} ({node[:SHORT]}) was lost" + (f": {line['why']}" if line.get("why") else "")
        case {"what": "process lost", "trial": trial, "epoch": epoch}:
            where = f" on node {line['node'][:SHORT]}" if line.get("node") else ""
            return f"trial {trial} lost its process{where}, after its report of epoch {epoch}"
        case {"what": "went on", "trial": trial, "epoch": epoch}:
            return f"trial {trial} went on from epoch {epoch}" if epoch else f"trial {trial} began anew"
        case {"what": "told to save", "trial": trial, "epoch": epoch}:
            return f"trial {trial} was told that its process is to end, and saved at once, in the epoch after {epoch}"
        case {"what": "given up", "trial": trial}:
            return f"trial {trial} was given up: its process was lost again and again, and it got no further"
    return None
