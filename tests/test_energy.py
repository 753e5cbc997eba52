"""The energy that a trial's GPU has used."""

import sys
from types import SimpleNamespace

import pytest
import torch

from tests.small import small_config, small_dataset, small_folds, small_protocol
from trainables import energy, fold_group
from trainables.lockstep import Lockstep


def begun() -> Lockstep:
    dataset = small_dataset()
    return Lockstep(small_config(), dataset, small_folds(dataset), small_protocol())


def test_the_energy_of_every_epoch_adds_up_and_goes_on_after_a_checkpoint(monkeypatch, tmp_path):
    meter = iter([100.0, 107.0, 200.0, 203.0, 500.0, 505.0])
    monkeypatch.setattr(fold_group, "joules", lambda device: next(meter))
    trial = begun()
    trial.advance()
    trial.advance()
    assert trial.report()["energy_joules"] == 10.0
    trial.save(tmp_path)
    again = begun()
    again.load(tmp_path)
    again.advance()
    assert again.report()["energy_joules"] == 15.0


def test_without_a_gpu_nothing_is_told():
    trial = begun()
    trial.advance()
    assert trial.report()["energy_joules"] is None


@pytest.mark.parametrize("broken", ["nvmlInit", "nvmlDeviceGetTotalEnergyConsumption", None])
def test_the_driver_is_asked_by_the_gpus_own_name_and_may_not_tell(monkeypatch, broken):
    class NVMLError(Exception):
        pass

    def fails(*_):
        raise NVMLError

    driver = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByUUID": lambda name: name,
        "nvmlDeviceGetTotalEnergyConsumption": lambda handle: {"GPU-1234": 2500}[handle],
    }
    if broken:
        driver[broken] = fails
    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(NVMLError=NVMLError, **driver))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: SimpleNamespace(uuid="1234"))
    energy._handle.cache_clear()
    assert energy.joules("cuda") == (None if broken else 2.5)
    energy._handle.cache_clear()
