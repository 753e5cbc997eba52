"""The pinned environment: complete, exact, and fitting together."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent


def pinned() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    matches = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!_-]+)", line) for line in lines if line.strip()]
    assert all(matches), "names and versions only"
    return {normal(match[1]): match[2] for match in matches if match}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned_and_installed_as_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    for requirement in wanted:
        name = normal(re.match(r"[A-Za-z0-9._-]+", requirement)[0])
        assert pinned()[name] == importlib.metadata.version(name)


def test_every_dependency_has_its_line_in_the_readme():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    readme = (ROOT / "README.md").read_text()
    for requirement in project["project"]["dependencies"] + project["dependency-groups"]["dev"]:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)[0]
        assert re.search(rf"`{re.escape(name)}(\[[a-z,]*\])?`", readme), name


def test_torch_and_torchvision_fit_together():
    from torchvision.ops import nms

    boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]])
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 2]


def test_our_datasets_are_ours():
    import datasets

    assert Path(datasets.__file__).parent == ROOT / "datasets"


def test_analysis_and_datasets_need_neither_ray_nor_torch():
    check = "import sys, analysis, datasets; datasets.tasks(); print(sorted({'ray', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_another_package_called_datasets_is_noticed(tmp_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("")
    check = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import search"
    done = subprocess.run([sys.executable, "-c", check], cwd=tmp_path, capture_output=True, text=True)
    assert "put this checkout first in the path" in done.stderr
