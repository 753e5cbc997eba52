"""One store and one Ray for all tests."""

import os
from collections.abc import Iterator

import pytest

from search.ray_session import set_environment

set_environment(address=None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start Ray stay together where several are made at a time, so that there is one Ray; they come first,
    so that the others end beside them."""
    for item in items:
        if "ray_on_loopback" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("ray"))
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


@pytest.fixture(scope="session", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store folder of the tests' own, for this process and those it starts."""
    folder = str(tmp_path_factory.mktemp("store"))
    os.environ["IMAGE_SEARCH_STORE"] = folder
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """As in a trial on one CPU; small tensors gain nothing from more."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ray_on_loopback(store: str) -> Iterator[None]:
    from search.ray_session import ray_session

    with ray_session(address=None):
        yield
