"""Memory that is kept, precision and compiling where the machine lacks them, and advice where memory runs out."""

import copy
import ctypes
import resource
import subprocess
import sys

import pytest
import torch
from torch import nn

from vmlite import hardware
from vmlite.evaluate import evaluating
from vmlite.hardware import check_precision, compile_networks, keep_memory, memory_advice
from vmlite.pretrain import pretrain, start
from vmlite.viewmaker import Viewmaker

COUNT = """
import resource, sys, torch
torch.set_num_threads(1)
from vmlite.hardware import keep_memory
assert keep_memory()
keep_memory(sys.argv[1] == "on")
for _ in range(10):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def has_mallopt():
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")


@pytest.mark.skipif(not has_mallopt(), reason="this system's malloc has no mallopt")
def test_kept_memory_is_not_faulted_in_again_and_the_usual_behaviour_comes_back():
    def faults(mode):
        return int(
            subprocess.run([sys.executable, "-c", COUNT, mode], capture_output=True, text=True, check=True).stdout
        )

    pages = 5 * 2**26 / resource.getpagesize()
    assert faults("on") < 0.01 * pages
    assert faults("off") > 0.5 * pages


def test_without_mallopt_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(hardware.sys, "platform", "darwin")
    assert keep_memory() is False


def test_bf16_is_refused_by_a_gpu_without_it_and_warned_of_on_a_cpu_without_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Old GPU")
    with pytest.raises(ValueError, match="Old GPU has no bfloat16; use precision 'float32'"):
        check_precision("bf16", torch.device("cuda"))
    check_precision("float32", torch.device("cuda"))
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.warns(UserWarning, match="no bfloat16 instructions: precision 'float32'"):
        check_precision("bf16", torch.device("cpu"))


def test_a_compiled_network_computes_the_same_and_keeps_its_names():
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    fast = copy.deepcopy(plain)
    if not compile_networks([fast], torch.device("cpu")):
        pytest.skip("this machine has no compiler")
    x = torch.rand(2, 3, 8, 8)
    for network in (plain, fast):
        network(x).square().sum().backward()
    torch.testing.assert_close(fast(x), plain(x))
    torch.testing.assert_close(fast[0].weight.grad, plain[0].weight.grad)
    assert fast.state_dict().keys() == plain.state_dict().keys()


def test_a_compiled_viewmaker_makes_the_same_views_in_batches_of_any_size():
    plain = Viewmaker(3, width=2, blocks=0)
    fast = copy.deepcopy(plain)
    if not compile_networks([fast], torch.device("cpu")):
        pytest.skip("this machine has no compiler")
    for n in (4, 3):
        x = torch.rand(n, 3, 8, 8)
        with torch.random.fork_rng():
            found = fast(x)
        torch.testing.assert_close(found, plain(x))
    with evaluating(fast), torch.no_grad():
        assert fast(torch.rand(2, 3, 8, 8)).shape == (2, 3, 8, 8)


def test_a_recipe_has_encoder_and_viewmaker_compiled(recipe, splits, monkeypatch):
    asked = []
    monkeypatch.setattr(hardware, "compile_networks", lambda networks, device: asked.extend(networks))
    start(recipe, splits.train)
    assert asked == []
    run = start(recipe.replace(compile=True), splits.train)
    assert asked == [run.encoder, run.views[0]]


def test_where_nothing_can_be_compiled_a_warning_says_so_and_the_network_runs(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no C++ compiler found\nand more")

    monkeypatch.setattr(torch, "compile", refuse)
    network = nn.Linear(2, 2)
    with pytest.warns(
        UserWarning, match=r"compile is not available here \(no C\+\+ compiler found\); going on without"
    ):
        assert not compile_networks([network], torch.device("cpu"))
    assert network(torch.zeros(1, 2)).shape == (1, 2)


@pytest.mark.parametrize(
    ("precision", "error", "advice"),
    [
        ("float32", torch.OutOfMemoryError("CUDA out of memory."), "try batch_size 32 or precision 'bf16'."),
        ("bf16", RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "try batch_size 32."),
    ],
)
def test_running_out_of_memory_names_what_to_try(precision, error, advice):
    with pytest.raises(MemoryError, match=f"out of memory at batch_size 64 in {precision}; {advice}"):  # noqa: SIM117
        with memory_advice(64, precision):
            raise error


def test_other_errors_pass(recipe):
    with pytest.raises(RuntimeError, match="mat1 and mat2"), memory_advice(64, "float32"):
        nn.Linear(2, 2)(torch.zeros(1, 3))


def test_a_step_that_does_not_fit_names_what_to_try(recipe, splits, monkeypatch):
    run = start(recipe, splits.train)

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(run, "losses", dict.fromkeys(run.losses, fail))
    with pytest.raises(MemoryError, match="out of memory at batch_size 16"):
        next(pretrain(run))
