"""Two gloo processes: one step equals a single process's, and a killed worker changes nothing in the end."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from vmlite import distributed
from vmlite.distributed import check_batch, check_processes
from vmlite.objectives import Batch
from vmlite.pretrain import frozen, load_data, seeded, start, with_reversed_gradient, without_gradient
from vmlite.recipes import Recipe

ONE_STEP = """
import sys, threading, torch
from vmlite import distributed
from vmlite.pretrain import load_data, pretrain, start
from vmlite.recipes import Recipe

threading.Thread(target=threading.Event().wait).start()  # never ends, as a thread of gloo's may
recipe = Recipe.from_json(open(sys.argv[1]).read())
run = next(pretrain(start(recipe, load_data(recipe, distributed.join("cpu")).train)))
if distributed.rank() == 0:
    modules = {"encoder": run.encoder, "views": run.views, "objective": run.objective}
    gradients = {f"{m}.{n}": p.grad for m, module in modules.items() for n, p in module.named_parameters()}
    torch.save({"gradients": gradients, "losses": run.history[0], "buffers": dict(run.objective.named_buffers())}, sys.argv[2])
sys.stdout.write("done\\n")  # at once: where output is unbuffered, print writes the line's end apart
distributed.leave()
"""


def torchrun(*arguments, restarts=0, **kwargs):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [f"--max-restarts={restarts}", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, **kwargs)


def one_step(recipe, folder):
    """What the first of two processes has after one step: gradients, losses and the objective's buffers."""
    (folder / "recipe.json").write_text(recipe.to_json())
    (folder / "step.py").write_text(ONE_STEP)
    child = torchrun(folder / "step.py", folder / "recipe.json", folder / "found.pt", stdout=subprocess.PIPE)
    printed, errors = child.communicate(timeout=300)
    assert child.returncode == 0, errors
    assert printed.split() == ["done", "done"]  # flushed, though the processes end at once
    return torch.load(folder / "found.pt")


class TwoStreams:
    """Views whose noise comes from the streams of two processes, each for its half of the batch."""

    def __init__(self, views, keys):
        self.views, self.keys, self.states = views, keys, [None, None]

    def __call__(self, x, count=1):
        made = []
        for i, half in enumerate(x.chunk(2)):
            with seeded(*self.keys[i]):
                if self.states[i] is not None:
                    torch.set_rng_state(self.states[i])
                made.append(self.views(half, count=count).chunk(count))
                self.states[i] = torch.get_rng_state()
        return torch.cat([view for both in zip(*made, strict=True) for view in both])


def reference(recipe, train, reverse):
    """The first step's losses, from one process that treats each half of the batch as a process would."""
    run = start(recipe, train)
    run.encoder.train()
    with seeded(recipe.seed, "order", 0):
        index = torch.randperm(len(train))[: recipe.batch_size]
    keys = [(recipe.seed, "step", 0), (recipe.seed, "step", 0, 1)]
    views = TwoStreams(run.views, keys)
    batch = Batch(run.train.inputs(index), index)

    def encoder(both):
        # a process sees both views of its half in one call
        first, second = both.chunk(2)
        pairs = [torch.cat(pair) for pair in zip(first.chunk(2), second.chunk(2), strict=True)]
        z = [run.encoder(pair).chunk(2) for pair in pairs]
        return torch.cat([*(a for a, _ in z), *(b for _, b in z)])

    if reverse:
        loss, _ = run.objective(encoder, with_reversed_gradient(views), batch)
        loss.backward()
        return run, [loss, -loss]
    loss, _ = run.objective(encoder, without_gradient(views), batch)
    loss.backward()
    run.optimizers["encoder_optimizer"].step()
    with frozen(run.encoder):
        _, viewmaker_loss = run.objective(encoder, views, batch)
        viewmaker_loss.backward()
    return run, [loss, viewmaker_loss]


@pytest.mark.parametrize("update", ["joint", "alternating"])
def test_one_step_of_two_processes_is_one_of_a_single_process(update, recipe, splits, tmp_path):
    recipe = recipe.replace(update=update)
    found = one_step(recipe, tmp_path)
    run, losses = reference(recipe, splits.train, update == "joint")
    assert found["losses"].tolist() == pytest.approx([loss.item() for loss in losses], abs=1e-5)
    for name, module in (("encoder", run.encoder), ("views", run.views)):
        for key, p in module.named_parameters():
            torch.testing.assert_close(found["gradients"][f"{name}.{key}"], p.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("objective", ["instdisc", "byol"])
def test_other_objectives_train_on_two_processes_and_finish(objective, recipe, tmp_path):
    recipe = recipe.replace(objective=objective, epochs=1)
    found = one_step(recipe, tmp_path)
    assert found["losses"].isfinite().all()
    if objective == "instdisc":  # the whole batch's entries move, not one process's alone
        before = start(recipe, load_data(recipe).train).objective.bank
        assert int((found["buffers"]["bank"] != before).any(1).sum()) == recipe.batch_size


IMPATIENT = """
import datetime
from vmlite import distributed, pretrain

distributed.PATIENCE = datetime.timedelta(seconds=10)
pretrain.main()
"""


def pretraining(recipe_file, checkpoint_file, program=("-m", "vmlite.pretrain"), restarts=0):
    return torchrun(
        *program, recipe_file, "--checkpoint", checkpoint_file, "--lines", restarts=restarts, stdout=subprocess.PIPE
    )


def workers(parent):
    """The process ids of torchrun's workers, the first last."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True
    ).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "--checkpoint" in line]


@pytest.fixture(scope="module")
def undisturbed(recipe, tmp_path_factory):
    """A recipe's file, and what two processes make of it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    recipe = recipe.replace(epochs=60)
    (folder / "recipe.json").write_text(recipe.to_json())
    calm = pretraining(folder / "recipe.json", folder / "calm.pt")
    _, errors = calm.communicate(timeout=300)
    assert calm.returncode == 0, errors
    return folder / "recipe.json", torch.load(folder / "calm.pt")


@pytest.mark.parametrize(("what", "told"), [(signal.SIGKILL, "exitcode: -9"), (signal.SIGSTOP, "Timed out")])
def test_a_lost_worker_changes_nothing_in_the_end(what, told, undisturbed, tmp_path):
    """One that is gone, and one that hangs: the others give up waiting, and torchrun starts all again."""
    recipe_file, calm = undisturbed
    (tmp_path / "impatient.py").write_text(IMPATIENT)
    disturbed = pretraining(recipe_file, tmp_path / "disturbed.pt", [tmp_path / "impatient.py"], restarts=10)
    while not (tmp_path / "disturbed.pt").exists() and disturbed.poll() is None:
        time.sleep(0.02)
    found = workers(disturbed.pid)
    assert len(found) == 2, "the run ended before it could be disturbed"
    os.kill(found[1], what)
    _, errors = disturbed.communicate(timeout=300)
    assert disturbed.returncode == 0, errors
    assert told in errors
    ended = torch.load(tmp_path / "disturbed.pt")
    assert ended["step"] == calm["step"] == 60 * 4
    for part in ("encoder", "views"):
        assert all(torch.equal(ended[part][key], calm[part][key]) for key in calm[part])
    assert torch.equal(ended["history"], calm["history"])


def test_alone_nothing_is_gathered_averaged_or_wrapped(generator):
    x = torch.randn(4, 3, generator=generator)
    assert distributed.gather(x) is x
    assert distributed.mean(x) is x
    assert torch.equal(distributed.piece(x), x)
    assert distributed.synchronised(len, [nn.Linear(2, 2)]) is len
    assert (distributed.rank(), distributed.processes()) == (0, 1)


@pytest.mark.parametrize(
    ("n", "batch_size", "message"),
    [
        (0, 64, "processes must be a whole number from 1, got 0"),
        ("2", 64, "processes must be a whole number from 1, got '2'"),
        (True, 64, "processes must be a whole number from 1, got True"),
        (10_000, 64, "CPU cores; ask for fewer"),
    ],
)
def test_processes_that_cannot_be_had_are_refused(n, batch_size, message):
    with pytest.raises(ValueError, match=message):
        check_processes(n, "cpu", batch_size)


@pytest.mark.parametrize(("n", "batch_size", "fitting"), [(3, 64, 63), (2, 2, 4), (4, 6, 8), (2, 5, 4)])
def test_a_batch_that_does_not_divide_is_refused_with_one_that_does(n, batch_size, fitting):
    with pytest.raises(ValueError, match=f"batch_size {batch_size} does not divide into {n}.*try {fitting}\\."):
        check_batch(n, batch_size)
    check_batch(n, fitting)


def test_the_command_line_alone_writes_the_checkpoint_and_tells_its_progress(recipe, tmp_path):
    recipe_file = tmp_path / "recipe.json"
    recipe_file.write_text(recipe.to_json())
    command = [
        sys.executable,
        "-m",
        "vmlite.pretrain",
        str(recipe_file),
        "--checkpoint",
        str(tmp_path / "a.pt"),
        "--lines",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[0])
    assert told["steps"] == 8
    assert told["step"] >= 1
    assert Recipe.from_json(torch.load(tmp_path / "a.pt")["recipe"]) == recipe
