"""The loop: both updates' gradients, reproducibility, resuming, and who may touch what."""

import itertools
import math

import pytest
import torch
from torch import nn

from vmlite import checkpoint, pretrain
from vmlite.environment import find_device
from vmlite.objectives import Batch, Objective, nt_xent
from vmlite.pretrain import frozen, seeded, start, train, with_front_end
from vmlite.viewmaker import Viewmaker
from vmlite.views import Chain, L1Noise

OBJECTIVES = ("simclr", "instdisc", "byol")
UPDATES = ("alternating", "joint")
STEP = {"alternating": pretrain.alternating_step, "joint": pretrain.joint_step}
COMBINATIONS = list(itertools.product(OBJECTIVES, UPDATES))
combinations = pytest.mark.parametrize(("objective", "update"), COMBINATIONS)


def steps(run, n):
    """Take n steps and leave the loop there."""
    for _ in itertools.islice(pretrain.pretrain(run), n):
        pass
    return run


def same(a, b):
    """Whether two states (nested containers of tensors and plain values) are identical bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def state(run):
    return {name: part.state_dict() for name, part in run.stateful().items()} | {"history": run.history}


class Replay(nn.Module):
    """A viewmaker that is handed the same noise maps in every pass of an objective."""

    def __init__(self, viewmaker, x, calls):
        super().__init__()
        self.viewmaker = viewmaker
        noise = [[n.double() for n in viewmaker.draw_noise(x)] for _ in range(calls)]
        self.noise = itertools.cycle(noise)

    def forward(self, x, count=1):
        noise = [torch.cat(maps) for maps in zip(*itertools.islice(self.noise, count), strict=True)]
        return self.viewmaker(x, noise, count)


@pytest.fixture
def float64(monkeypatch):
    """Objectives compare embeddings in float32; here in float64, so that small differences count."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def replayed(recipe, splits, objective, update, **changes):
    """A run in float64 whose passes all see the same noise and negatives, and whose banks and targets stand still."""
    run = start(recipe.replace(objective=objective, update=update, **changes), splits.train)
    for part in (run.encoder, run.views, run.objective):
        part.double()
    x = splits.train.batch(torch.arange(16)).double()
    run.views = Replay(run.views[0], x, calls=1 if objective == "instdisc" else 2)
    run.objective.momentum = 1.0
    run.objective.register_forward_pre_hook(lambda *_: torch.manual_seed(9) and None)
    if objective == "byol":  # a target of its own: at the start it equals the encoder
        for p in run.objective.target.parameters():
            nn.init.normal_(p, std=0.3)
    return run, Batch(x, torch.arange(16))


def parameters(run):
    """(the encoder player's trainable parameters, the viewmaker's)"""
    return tuple(
        [p for m in ms for p in m.parameters() if p.requires_grad]
        for ms in ((run.encoder, run.objective), (run.views,))
    )


def assert_close_gradients(found, expected):
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-5, atol=1e-5 * float(max(g.abs().max() for g in expected)))


@combinations
def test_gradients_of_both_players(float64, recipe, splits, objective, update):
    """Both updates give the encoder the gradient of its loss, and the viewmaker the gradient of minus that loss."""
    small = {"encoder_lr": 1e-30, "encoder_momentum": 0.0, "weight_decay": 0.0, "viewmaker_lr": 1e-30}
    run, batch = replayed(recipe, splits, objective, update, **small)
    mine, theirs = parameters(run)
    loss = run.objective(run.encoder, run.views, batch)[0]
    expected = torch.autograd.grad(loss, [*mine, *theirs])
    losses = STEP[update](run, batch)
    torch.testing.assert_close(losses[0], loss.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(losses[1], -loss.detach(), rtol=1e-5, atol=1e-6)
    assert max(g.abs().max() for g in expected[len(mine) :]) > 1e-6
    assert_close_gradients([p.grad for p in mine], expected[: len(mine)])
    assert_close_gradients([p.grad for p in theirs], [-g for g in expected[len(mine) :]])


@combinations
def test_gradients_against_finite_differences(float64, recipe, splits, objective, update):
    """Nothing is cut off on the way to either player: along a random direction the loss changes as they are told."""
    small = {"encoder_lr": 1e-30, "encoder_momentum": 0.0, "weight_decay": 0.0, "viewmaker_lr": 1e-30}
    run, batch = replayed(recipe, splits, objective, update, **small)
    STEP[update](run, batch)
    for player, sign in zip(parameters(run), (1, -1), strict=True):
        gradients = [sign * p.grad for p in player]
        length = 1e-8 / float(sum(g.square().sum() for g in gradients)).__pow__(0.5)

        def loss(distance, player=player, gradients=gradients):
            with torch.no_grad():
                for p, g in zip(player, gradients, strict=True):
                    p.add_(distance * g)
                value = float(run.objective(run.encoder, run.views, batch)[0])
                for p, g in zip(player, gradients, strict=True):
                    p.sub_(distance * g)
            return value

        slope = (loss(length) - loss(-length)) / (2 * length)
        assert slope == pytest.approx(float(sum(g.square().sum() for g in gradients)), rel=1e-3)


@combinations
@pytest.mark.parametrize("player", ["encoder", "viewmaker"])
def test_a_small_step_moves_the_loss_the_players_way(float64, recipe, splits, objective, update, player):
    """At the same noise an encoder's step lowers the loss, a viewmaker's raises it."""
    rates = {"encoder_lr": 1e-30, "viewmaker_lr": 1e-30, "weight_decay": 0.0}
    rates[f"{player}_lr"] = 1e-5 if player == "viewmaker" else 1e-4
    run, batch = replayed(recipe, splits, objective, update, **rates)
    with torch.no_grad():
        before = run.objective(run.encoder, run.views, batch)[0]
        mine, theirs = parameters(run)
        weights = [[p.clone() for p in player] for player in (mine, theirs)]
    STEP[update](run, batch)
    with torch.no_grad():
        change = run.objective(run.encoder, run.views, batch)[0] - before
    assert change < -1e-5 if player == "encoder" else change > 1e-5
    still = (theirs, weights[1]) if player == "encoder" else (mine, weights[0])
    torch.testing.assert_close(*still, rtol=0, atol=1e-20)


class Apart(Objective):
    """Not zero-sum: the viewmaker minimises the size of its views."""

    zero_sum = False

    def forward(self, encoder, views, batch):
        both = views(batch.x, count=2)
        z1, z2 = encoder(both).chunk(2)
        return nt_xent(z1, z2), both[: len(batch.x)].square().mean()


def test_an_objective_that_is_not_zero_sum(recipe, splits, monkeypatch):
    monkeypatch.setattr(pretrain, "build_objective", lambda *_: Apart())
    with pytest.raises(ValueError, match="update 'joint' needs a zero-sum objective"):
        start(recipe.replace(update="joint"), splits.train)
    run = start(recipe.replace(encoder_lr=1e-30, viewmaker_lr=1e-30), splits.train)
    batch = Batch(splits.train.batch(torch.arange(16)), torch.arange(16))
    run.views = Replay(run.views[0], batch.x, 1).double()
    run.encoder.double()
    batch = Batch(batch.x.double(), batch.index)
    expected = torch.autograd.grad(run.views(batch.x).square().mean(), list(run.views.parameters()))
    _, loss = pretrain.alternating_step(run, batch)
    torch.testing.assert_close(loss, run.views(batch.x).detach().square().mean())
    assert_close_gradients([p.grad for p in run.views.parameters()], expected)


def test_the_viewmakers_pass_leaves_the_encoder_player_alone(recipe, splits, monkeypatch):
    run = start(recipe.replace(objective="byol"), splits.train)
    optimizer, kept = run.optimizers["encoder_optimizer"], []
    run.objective.register_forward_pre_hook(lambda *_: kept.append(snapshot()))

    def snapshot():
        params = optimizer.param_groups[0]["params"]
        return [(p.detach().clone(), None if p.grad is None else p.grad.clone()) for p in params]

    next(pretrain.pretrain(run))
    assert len(kept) == 2  # before the encoder's pass, and before the viewmaker's
    for (weight, gradient), p in zip(kept[1], optimizer.param_groups[0]["params"], strict=True):
        assert torch.equal(p, weight)
        assert torch.equal(p.grad, gradient)
        assert p.requires_grad
    assert any(g.abs().max() > 0 for _, g in kept[1])
    assert all(g is None for _, g in kept[0])


def test_the_encoders_pass_leaves_the_viewmaker_alone(recipe, splits):
    run = start(recipe, splits.train)
    seen, gradients = [], []
    run.objective.register_forward_pre_hook(lambda *_: seen.append([p.clone() for p in run.views.parameters()]))
    run.objective.register_forward_pre_hook(lambda *_: gradients.extend(p.grad for p in run.views.parameters()))
    next(pretrain.pretrain(run))
    assert all(g is None for g in gradients)
    assert same(*seen)
    assert not same(seen[1], list(run.views.parameters()))


@pytest.mark.parametrize("update", UPDATES)
def test_viewmaker_meets_the_updated_encoder_only_when_alternating(recipe, splits, update):
    run = start(recipe.replace(update=update, encoder_lr=0.5), splits.train)
    weights = []
    run.objective.register_forward_pre_hook(lambda *_: weights.append(run.encoder.net.conv1.weight.clone()))
    next(pretrain.pretrain(run))
    assert len(weights) == (2 if update == "alternating" else 1)
    if update == "alternating":
        assert not torch.equal(*weights)
        assert torch.equal(weights[1], run.encoder.net.conv1.weight)
        assert run.history[0, 1] != -run.history[0, 0]
    else:
        assert run.history[0, 1] == -run.history[0, 0]


def test_bf16_viewmaker_meets_the_updated_encoder(recipe, splits):
    """Autocast must not hand the second pass the weights it cast for the first."""
    run = start(recipe.replace(precision="bf16", encoder_lr=0.5, weight_decay=0.0), splits.train)
    outputs = []
    run.encoder.register_forward_hook(lambda module, inputs, output: outputs.append((inputs[0], output)))
    next(pretrain.pretrain(run))
    x, embedding = outputs[1]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        again = run.encoder(x)
    torch.testing.assert_close(again, embedding, rtol=0.02, atol=0.02)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        fresh = start(run.recipe, splits.train).encoder(x)
    assert not torch.allclose(fresh, embedding, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("update", UPDATES)
def test_bf16_steps_are_finite_and_keep_float32_weights(recipe, splits, update):
    run = start(recipe.replace(precision="bf16", update=update), splits.train)
    dtypes = []
    run.encoder.head.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    steps(run, 3)
    assert run.history[:3].isfinite().all()
    assert set(dtypes) == {torch.bfloat16}
    for module in (run.encoder, run.views):
        assert all(p.dtype == torch.float32 and p.isfinite().all() for p in module.parameters())
    assert all(p.grad.abs().max() > 0 for p in run.views.parameters() if p.ndim == 4)


def test_frozen_restores_also_after_an_error():
    net = nn.Linear(2, 2)
    net.bias.requires_grad_(False)
    with frozen(net):
        assert not net.weight.requires_grad
        x = torch.ones(1, 2, requires_grad=True)
        assert torch.autograd.grad(net(x).sum(), x)[0].abs().max() > 0
    assert net.weight.requires_grad
    with pytest.raises(RuntimeError, match="shapes"), frozen(net):
        net(torch.ones(1, 3))
    assert net.weight.requires_grad
    assert not net.bias.requires_grad


@combinations
def test_same_seed_same_numbers(recipe, splits, objective, update):
    recipe = recipe.replace(objective=objective, update=update)
    torch.manual_seed(1)
    first = steps(start(recipe, splits.train), 3)
    torch.manual_seed(2)
    again = steps(start(recipe, splits.train), 3)
    other = steps(start(recipe.replace(seed=1), splits.train), 3)
    assert first.history[:3].isfinite().all()
    assert same(first.history[:3], again.history[:3])
    assert same(first.encoder.state_dict(), again.encoder.state_dict())
    assert not same(first.encoder.state_dict(), other.encoder.state_dict())
    assert not torch.isclose(first.history[:3], other.history[:3], rtol=1e-6).any()


def test_every_step_and_every_view_draws_noise_of_its_own(recipe, splits, monkeypatch):
    run, drawn = start(recipe, splits.train), []
    first = run.views[0]._first
    monkeypatch.setattr(run.views[0], "_first", lambda x, noise: drawn.extend(noise.split(len(x))) or first(x, noise))
    steps(run, 3)
    assert len(drawn) == 3 * 2 * 2  # steps, players, views
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(drawn, 2))


def test_a_consumer_may_draw_what_it_likes(recipe, splits):
    undisturbed = steps(start(recipe, splits.train), 8)
    run = start(recipe, splits.train)
    before = torch.get_rng_state()
    for i, _ in enumerate(pretrain.pretrain(run)):
        torch.set_rng_state(before) if i % 2 else torch.rand(100)
        run.views(splits.train.batch(torch.arange(4)))
    assert same(state(run), state(undisturbed))


@pytest.mark.parametrize("views", ["viewmaker", "expert"])
def test_the_global_generator_is_left_as_it_was(recipe, splits, views):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    run = start(recipe.replace(views=views), splits.train)
    assert torch.equal(torch.get_rng_state(), before)
    for _ in itertools.islice(pretrain.pretrain(run), 5):
        assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("objective", "update", "at"), [*((*pair, 6) for pair in COMBINATIONS), ("simclr", "alternating", 4)]
)
def test_kill_and_resume_repeats_the_undisturbed_run(recipe, splits, tmp_path, objective, update, at):
    recipe = recipe.replace(objective=objective, update=update)
    undisturbed = steps(start(recipe, splits.train), 8)
    checkpoint.save(steps(start(recipe, splits.train), at), tmp_path / "run.pt")
    resumed = start(recipe, splits.train)
    checkpoint.load(resumed, tmp_path / "run.pt")
    assert resumed.step == at
    assert resumed.history[at:].isnan().all()
    assert len(list(pretrain.pretrain(resumed))) == 8 - at
    assert same(state(resumed), state(undisturbed))


def test_the_generator_yields_the_run_after_every_step(recipe, splits):
    run = start(recipe, splits.train)
    assert (run.step, run.steps) == (0, 8)
    assert run.history.isnan().all()
    for i, yielded in enumerate(pretrain.pretrain(run), 1):
        assert yielded is run
        assert run.step == i
        assert run.history[:i].isfinite().all()
        assert run.history[i:].isnan().all()
    assert i == 8
    assert list(pretrain.pretrain(run)) == []


def test_each_epoch_visits_every_example_once_in_an_order_of_its_own(recipe, splits):
    run = start(recipe.replace(update="joint", epochs=3), splits.train)
    seen = []
    run.objective.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[2]))
    steps(run, 12)
    for batch in seen:
        assert torch.equal(batch.x, splits.train.batch(batch.index))
    order = torch.cat([batch.index for batch in seen]).view(3, 64)
    assert all(sorted(epoch.tolist()) == list(range(64)) for epoch in order)
    assert not torch.equal(order[0], order[1])
    assert not torch.equal(order[1], order[2])
    assert not torch.equal(order[0], torch.arange(64))


def test_an_incomplete_batch_is_dropped_and_too_large_a_batch_refused(recipe, splits):
    assert start(recipe.replace(batch_size=24), splits.train).steps == 2 * 2
    assert start(recipe.replace(batch_size=64), splits.train).steps == 2
    with pytest.raises(ValueError, match="batch_size is 65, but there are only 64 training examples; lower it"):
        start(recipe.replace(batch_size=65), splits.train)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize(
    ("views", "learns"),
    [
        ("viewmaker", True),
        ("viewmaker:untrained", False),
        ("viewmaker:deterministic", True),
        ("noise", False),
        ("expert", False),
        ("expert:crop-flip", False),
        ("expert:crop-flip+viewmaker", True),
    ],
)
def test_every_kind_of_views_trains_the_encoder(recipe, splits, views, learns, update):
    run = start(recipe.replace(views=views, update=update), splits.train)
    encoder, viewmaker = ([p.clone() for p in m.parameters()] for m in (run.encoder, run.views))
    steps(run, 1)
    assert run.history[0].isfinite().all()
    assert not same(encoder, list(run.encoder.parameters()))
    assert ("viewmaker_optimizer" in run.optimizers) == learns
    assert (not same(viewmaker, list(run.views.parameters()))) == learns


def test_views_follow_the_recipe(recipe, splits):
    recipe = recipe.replace(views="expert:crop-flip+viewmaker", eps=0.2, norm="inf", viewmaker_blocks=1)
    _, viewmaker = pretrain.build_views(recipe, splits.train)
    assert (viewmaker.eps, viewmaker.norm, viewmaker.clamp) == (0.2, float("inf"), (0.0, 1.0))
    assert (len(viewmaker.blocks), viewmaker.out.in_channels, viewmaker.channels) == (1, 4, 3)
    (still,) = pretrain.build_views(recipe.replace(views="viewmaker:deterministic"), splits.train)
    x = splits.train.batch(torch.arange(2))
    assert torch.equal(still(x), still(x))


def test_optimizers_follow_the_recipe(recipe, splits):
    recipe = recipe.replace(encoder_lr=0.2, encoder_momentum=0.5, weight_decay=0.01, viewmaker_lr=0.3)
    optimizers = start(recipe, splits.train).optimizers
    (encoder,), (viewmaker,) = (optimizers[f"{name}_optimizer"].param_groups for name in ("encoder", "viewmaker"))
    assert (encoder["lr"], encoder["momentum"], encoder["weight_decay"]) == (0.2, 0.5, 0.01)
    assert (viewmaker["lr"], viewmaker["weight_decay"]) == (0.3, 0)


class Echo(nn.Module):
    """A raw-domain view: (N, T) waveforms with noise."""

    domain = "raw"

    def forward(self, x):
        return x + 0.1 * torch.randn_like(x)


class FrontEnd(nn.Module):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return x.view(len(x), 1, 8, 12)


class Waves:
    """64 raw recordings of 96 samples, each with one of two pitches."""

    name, shape, clamp = "waves", (1, 8, 12), None
    mean, std = torch.zeros(1), torch.ones(1)

    def __init__(self):
        self.front_end = FrontEnd()
        self.waves = torch.sin(torch.arange(96) * torch.linspace(0.1, 1, 64)[:, None])

    def __len__(self):
        return 64

    def batch(self, index, random=False):
        return self.waves[index]

    def inputs(self, index, random=False):
        return self.front_end(self.batch(index))


def test_the_front_end_goes_between_raw_and_input_views():
    front_end, raw, viewmaker, noise = nn.Flatten(), Echo(), Viewmaker(1, width=2), L1Noise()
    views, raw_views = with_front_end(Chain(viewmaker, noise), front_end)
    assert list(views) == [viewmaker, noise]
    assert not raw_views
    views, raw_views = with_front_end(Chain(raw, viewmaker, noise), front_end)
    assert list(views) == [raw, front_end, viewmaker, noise]
    assert raw_views
    views, raw_views = with_front_end(Chain(raw), front_end)
    assert list(views) == [raw, front_end]
    with pytest.raises(ValueError, match="raw examples must come before"):
        with_front_end(Chain(viewmaker, raw), front_end)
    with pytest.raises(ValueError, match="raw examples must come before"):
        with_front_end(Chain(raw, viewmaker, Echo()), front_end)


@pytest.mark.parametrize(("raw", "calls"), [(False, 1), (True, 2)])
def test_raw_views_train_through_the_front_end(recipe, monkeypatch, raw, calls):
    """Without raw views the front end runs once a batch, with them once for each player's two views of it."""
    data = Waves()
    terms = [Echo()] * raw + [Viewmaker(1, width=2)]
    monkeypatch.setattr(pretrain, "build_views", lambda *_: Chain(*terms))
    run = start(recipe, data)
    steps(run, 1)
    assert run.history[0].isfinite().all()
    assert data.front_end.calls == calls


def test_networks_return_to_training_mode(recipe, splits):
    run = start(recipe, splits.train)
    run.encoder.eval(), run.views.eval()
    steps(run, 1)
    assert run.encoder.training
    assert run.views.training


def test_seeded_depends_on_the_key_alone_and_restores():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    drawn = []
    for key in [(0, "step", 1), (0, "step", 1), (0, "step", 2), (1, "step", 1), (0,), (0, "order", 1)]:
        with seeded(*key):
            drawn.append(float(torch.rand(())))
        assert torch.equal(torch.get_rng_state(), before)
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 5
    with pytest.raises(RuntimeError, match="negative dimension"), seeded(0):
        torch.rand(-1)
    assert torch.equal(torch.get_rng_state(), before)


def test_find_device():
    assert find_device("cpu") == torch.device("cpu")
    assert find_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match=r"'warp' is not available here .* use 'cpu'"):
        find_device("warp")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_an_absent_gpu_is_said_to_be_absent():
    with pytest.raises(ValueError, match=r"device 'cuda' is not available here .* use 'cpu'"):
        find_device("cuda")


def test_train_writes_a_checkpoint_every_epoch_and_resumes(recipe, splits, tmp_path, monkeypatch):
    file, saved, save = tmp_path / "deep" / "run.pt", [], checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda run, path: (saved.append(run.step), save(run, path)))
    undisturbed = train(start(recipe, splits.train), file, progress=False)
    assert saved == [4, 8]
    save(steps(start(recipe, splits.train), 3), file)
    resumed = train(start(recipe, splits.train), file, resume=True, progress=False)
    assert saved == [4, 8, 4, 8]
    assert same(state(resumed), state(undisturbed))
    assert train(start(recipe, splits.train), file, resume=True, progress=False).step == 8
    assert saved == [4, 8, 4, 8]
    train(start(recipe, splits.train), file, resume=False, progress=False)
    assert saved == [4, 8] * 3


def test_the_encoder_learns(recipe, splits):
    """Six epochs lower the contrastive loss of a viewmaker that stands still."""
    run = start(recipe.replace(views="viewmaker:untrained", epochs=6, temperature=0.5), splits.train)
    steps(run, 24)
    first, last = run.history[:4, 0].mean(), run.history[-4:, 0].mean()
    assert last < first - 0.2


def learning_rates(run):
    return {name: optimizer.param_groups[0]["lr"] for name, optimizer in run.optimizers.items()}


def test_cosine_rates_fall_from_the_recipes_to_zero_in_both_players(recipe, splits):
    run = start(recipe.replace(schedule="cosine"), splits.train)
    seen = [learning_rates(run) for _ in pretrain.pretrain(run)]
    expected = [0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    for name, rate in (("encoder_optimizer", recipe.encoder_lr), ("viewmaker_optimizer", recipe.viewmaker_lr)):
        assert [rates[name] for rates in seen] == pytest.approx([rate * share for share in expected])


def test_constant_rates_stay(recipe, splits):
    run = start(recipe, splits.train)
    rates = learning_rates(run)
    assert all(learning_rates(run) == rates for _ in pretrain.pretrain(run))


def test_a_resumed_run_goes_on_with_the_rates_it_had(recipe, splits, tmp_path):
    recipe = recipe.replace(schedule="cosine")
    whole, stopped, resumed = (start(recipe, splits.train) for _ in range(3))
    steps(whole, 8)
    checkpoint.save(steps(stopped, 5), tmp_path / "run.pt")
    checkpoint.load(resumed, tmp_path / "run.pt")
    assert same(state(steps(resumed, 8)), state(whole))


def test_load_data_follows_the_recipe(recipe):
    train_set, test_set = pretrain.load_data(recipe)
    assert (len(train_set), len(test_set), train_set.shape) == (64, 32, (3, 12, 12))
