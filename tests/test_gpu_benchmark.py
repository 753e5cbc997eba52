"""The benchmark of what a GPU changes, on a CPU: that it works, and that what it compares is the same."""

import subprocess
import sys

import pytest
import torch

from benchmarks import gpu, gpu_heads
from benchmarks.gpu_setting import Setting
from search.ray_session import ROOT

WITHOUT = """
import sys
sys.modules |= dict.fromkeys(("ray", "optuna", "polars", "kornia", "psutil"))
from benchmarks import gpu
gpu.main(["--device", "cpu", "--quick", "--parts", "copies,tuning,oom"])
"""


def test_without_a_gpu_it_says_so_and_with_an_unknown_part_it_names_them(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main([])
    assert capsys.readouterr().out == "skipped: no GPU\n"
    with pytest.raises(SystemExit):
        gpu.main(["--parts", "tunning"])
    assert "--parts tunning: choose from tuning, precision" in capsys.readouterr().err


def test_where_packages_are_missing_the_other_parts_are_measured():
    """In a process that has only what a machine with a GPU may have."""
    done = subprocess.run([sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["copies"] * 4 + ["tuning:", "oom:"]
    assert lines[-2] == "tuning: skipped: polars is not installed"
    assert lines[-1] == "oom: skipped: needs a GPU's allocator"


def test_every_part_in_this_process_gives_figures():
    """The others start processes of their own, or a compiler."""
    names = [name for name in gpu.PARTS if name not in ("compiled", "heads", "packing", "oom")]
    rows = list(gpu.measured_parts(Setting.quick("cpu"), names))
    assert list(dict.fromkeys(name for name, _ in rows)) == names
    assert all(row.figure > 0 for _, row in rows)
    assert len({(name, row.what) for name, row in rows}) == len(rows)


def test_tails_at_once_learn_what_they_learn_in_turn():
    setting = Setting.quick("cpu")
    torch.manual_seed(0)
    networks = [gpu_heads._tail(setting) for _ in range(2)]
    features, truth = torch.randn(2, 4, gpu_heads.TAIL_WIDTHS[0], 7, 7), torch.ones(2, 4, 1)
    parameters, step = gpu_heads._at_once(networks, features, truth)
    step()
    gpu_heads._in_turn(networks, features, truth)()
    for name, together in parameters.items():
        for network, own in zip(networks, together, strict=True):
            torch.testing.assert_close(network.get_parameter(name), own, rtol=1e-4, atol=1e-6)


def test_heads_of_several_trials_learn_as_each_would_alone():
    """The members' first step, against torch's AdamW with the member's own rate."""
    setting = Setting.quick("cpu")
    heads = gpu_heads.Heads(setting, members=3, most_dropout=0.0)
    before = [each.detach().clone() for each in heads.parameters]
    heads.step()
    for member, rate in enumerate(heads.rates.flatten().tolist()):
        weight, bias, out_weight, out_bias = own = [each[member].clone().requires_grad_() for each in before]
        logits = (heads.features[member] @ weight + bias).relu() @ out_weight + out_bias
        torch.nn.functional.binary_cross_entropy_with_logits(logits, heads.truth[member]).backward()
        torch.optim.AdamW(own, rate, weight_decay=0.01).step()
        for together, alone in zip(heads.parameters, own, strict=True):
            torch.testing.assert_close(together[member], alone, rtol=1e-4, atol=1e-6)
