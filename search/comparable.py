"""What makes the scores of searches that share a study comparable."""

import json
from typing import Any

from datasets import InputError
from search.records import SAME_DATA_ON_RESUME, SAME_ON_RESUME

FREE_TO_DIFFER = ("searcher", "scheduler")
"""What must be the same when a search goes on, and may differ between searches that share a study: how trials are
proposed and stopped. Their scores mean the same."""


def scores_of(record: dict[str, Any]) -> dict[str, Any]:
    """What makes scores comparable, as JSON gives it back."""
    told = {key: record[key] for key in SAME_ON_RESUME if key not in FREE_TO_DIFFER}
    told |= {key: record["data"][key] for key in SAME_DATA_ON_RESUME}
    told |= {"images": record["data"]["digest"], "folds_digest": record["folds_digest"]}
    return dict(json.loads(json.dumps(told)))


def check_same(there: dict[str, Any], ours: dict[str, Any], option: str, name: str) -> None:
    """Raises `InputError` where what a study is of, `there`, is not what a search is of."""
    for key, value in ours.items():
        if there.get(key) != value:
            of = f"{key} {there.get(key)!r} and not {value!r}"
            if key == "images":
                of = "other images, or other labels"
            elif "digest" in key:
                of = f"another {key.removesuffix('_digest')}"
            raise InputError(
                f"{option}: the study {name!r} there is of {of}, so that scores could not be compared; give the same "
                f"options, or choose another --name or database"
            )
