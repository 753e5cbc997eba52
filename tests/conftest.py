"""One store and one Ray for all tests."""

import os
from collections.abc import Iterator

import hypothesis
import pytest

from search.ray_session import set_environment

set_environment(address=None)
# How long a test takes says something of the machine, and nothing of the behaviour.
hypothesis.settings.register_profile("without a clock", deadline=None)
hypothesis.settings.load_profile("without a clock")


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
