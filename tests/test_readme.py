"""The README keeps its word: the task that it adds in two files works."""

import re
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
from PIL import Image

import datasets
import search_spaces
from trainables.config import TrialConfig

README = (Path(__file__).parent.parent / "README.md").read_text()


@pytest.fixture
def leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The two files of the README, importable, and a folder as they expect it."""
    for room in (datasets, search_spaces):
        (code,) = re.findall(rf"`{room.__name__}/leaves\.py` says.*?```python\n(.*?)```", README, re.DOTALL)
        folder = tmp_path / room.__name__
        folder.mkdir()
        (folder / "leaves.py").write_text(code)
        monkeypatch.setattr(room, "__path__", [*room.__path__, str(folder)])
    datasets.tasks.cache_clear()
    rng = np.random.default_rng(0)
    for name in ("healthy", "rust"):
        (tmp_path / "leaves" / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 255, (20, 20, 3), np.uint8)).save(tmp_path / "leaves" / name / f"{i}.png")
    yield tmp_path / "leaves"
    datasets.tasks.cache_clear()
    for room in ("datasets", "search_spaces"):
        sys.modules.pop(f"{room}.leaves", None)


def test_the_readme_adds_a_task_in_two_short_files(leaves):
    assert "leaves" in datasets.tasks()
    dataset = datasets.load("leaves", leaves)
    assert dataset.counts == {"healthy": 4, "rust": 4}
    space = search_spaces.space_of("leaves")
    study = optuna.create_study()
    for _ in range(20):
        TrialConfig.of(space.search_space(study.ask()))
