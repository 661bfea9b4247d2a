"""Each objective against a slow reference, and the state it carries."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vmlite import checkpoint
from vmlite.objectives import BYOL, Batch, InstDisc, NTXent, Objective, nt_xent
from vmlite.pretrain import pretrain, start
from vmlite.views import Chain, L1Noise

UPDATES = ("alternating", "joint")
OBJECTIVES = ("simclr", "instdisc", "byol")


def embeddings(n, dim, seed):
    return torch.randn(2, n, dim, generator=torch.Generator().manual_seed(seed))


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
    return dot / math.sqrt(sum(x * x for x in a.tolist()) * sum(y * y for y in b.tolist()))


def slow_equation(z1, z2, t):
    """Section 3: -1/2N sum over anchors i with positive j of log exp(s_ij / t) / sum_{k != i} exp(s_ik / t)."""
    z, n = [*z1, *z2], len(z1)
    total = 0.0
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        denominator = sum(math.exp(cosine(z[i], z[k]) / t) for k in range(2 * n) if k != i)
        total -= math.log(math.exp(cosine(z[i], z[j]) / t) / denominator)
    return total / (2 * n)


def slow_released(z1, z2, t):
    """FACTS, section 1: only view-1 anchors, the anchor itself stays in the denominator."""
    z, n = [*z1, *z2], len(z1)
    total = 0.0
    for i in range(n):
        total -= cosine(z1[i], z2[i]) / t - math.log(sum(math.exp(cosine(z1[i], k) / t) for k in z))
    return total / n


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**31), st.sampled_from([0.07, 0.5, 2.0]))
def test_nt_xent_against_the_equation(n, dim, seed, t):
    z1, z2 = embeddings(n, dim, seed)
    assert float(nt_xent(z1, z2, t)) == pytest.approx(slow_equation(z1, z2, t), rel=1e-4, abs=1e-5)
    assert float(nt_xent(z1, z2, t, "released")) == pytest.approx(slow_released(z1, z2, t), rel=1e-4, abs=1e-5)


@given(st.integers(2, 8), st.integers(0, 2**31))
def test_equation_is_symmetric_in_the_views_and_the_order_of_examples(n, seed):
    z1, z2 = embeddings(n, 4, seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(nt_xent(z1, z2), nt_xent(z2, z1), rtol=1e-5, atol=1e-5)
    for form in ("equation", "released"):
        torch.testing.assert_close(
            nt_xent(z1, z2, form=form), nt_xent(z1[order], z2[order], form=form), rtol=1e-5, atol=1e-5
        )


def test_released_is_not_symmetric_in_the_views():
    z1, z2 = embeddings(6, 4, 0)
    assert abs(nt_xent(z1, z2, 0.5, "released") - nt_xent(z2, z1, 0.5, "released")) > 1e-3


@pytest.mark.parametrize("form", ["equation", "released"])
@given(seed=st.integers(0, 2**31))
def test_length_of_an_embedding_does_not_matter(form, seed):
    z1, z2 = embeddings(5, 4, seed)
    lengths = torch.logspace(-3, 3, 5)[:, None]
    torch.testing.assert_close(
        nt_xent(z1, z2, form=form), nt_xent(z1 * lengths, z2 / lengths, form=form), rtol=1e-4, atol=1e-5
    )


@given(st.integers(1, 8), st.integers(0, 2**31), st.floats(0, 3))
def test_released_stays_above_log_2(n, seed, noise):
    z1, z2 = embeddings(n, 8, seed)
    assert nt_xent(z1, z1 + noise * z2, form="released") >= math.log(2) - 1e-5


def test_only_the_released_form_has_that_floor():
    """Positives coincide and negatives are at right angles: the equation's loss vanishes, the other pulls on."""
    z1 = torch.eye(6).requires_grad_()
    z2 = torch.eye(6) + 0.01 * torch.roll(torch.eye(6), 1, 0)
    equation, released = nt_xent(z1, z2), nt_xent(z1, z2, form="released")
    assert equation < 1e-4
    assert float(released.detach()) == pytest.approx(math.log(2), abs=1e-3)
    pull = [torch.autograd.grad(loss, z1)[0].norm() for loss in (equation, released)]
    assert pull[1] > 1000 * pull[0]


def test_equation_of_indistinguishable_embeddings_is_chance():
    z = torch.ones(8, 4)
    assert float(nt_xent(z, z)) == pytest.approx(math.log(15))
    assert float(nt_xent(z, z, form="released")) == pytest.approx(math.log(16))


def test_ntxent_uses_two_fresh_views_in_one_encoder_call():
    calls = []

    class Recorder(nn.Module):
        def forward(self, x):
            calls.append(x)
            return x.flatten(1)

    x = torch.rand(4, 1, 2, 3)
    loss, other = NTXent(0.5)(Recorder(), Chain(L1Noise(0.3)), Batch(x, torch.arange(4)))
    assert len(calls) == 1
    z1, z2 = calls[0].flatten(1).chunk(2)
    assert not torch.equal(z1, z2)
    assert float(loss) == pytest.approx(slow_equation(z1, z2, 0.5), rel=1e-4)
    assert other == -loss


def test_refused_form():
    with pytest.raises(ValueError, match="one of equation, released, got 'paper'"):
        NTXent(form="paper")


def test_an_objective_without_a_loss_says_what_is_missing():
    with pytest.raises(TypeError, match="Objective must define loss"):
        Objective()(nn.Identity(), nn.Identity(), Batch(torch.rand(2, 3), torch.arange(2)))


def flat(x):
    return x.flatten(1)


@pytest.mark.parametrize("negatives", [3, 8, 200], ids=["gathered", "whole bank", "more than the bank"])
def test_instdisc_against_a_slow_reference(negatives):
    torch.manual_seed(0)
    objective = InstDisc(64, dim=5, temperature=0.3, negatives=negatives)
    x, index = torch.randn(4, 5, 1, 1, requires_grad=True), torch.tensor([7, 60, 0, 21])
    torch.manual_seed(5)
    loss, other = objective(flat, nn.Identity(), Batch(x, index))
    torch.manual_seed(5)
    drawn = torch.randint(64, (4, negatives)).tolist()
    terms = []
    for i, own in enumerate(index.tolist()):
        z = x[i].flatten() / x[i].norm()
        scores = [(z @ objective.bank[k] / 0.3).exp() for k in [own, *drawn[i]]]
        terms.append(-(scores[0] / sum(scores)).log())
    expected = sum(terms) / 4
    torch.testing.assert_close(loss, expected)
    assert other == -loss
    gradients = [torch.autograd.grad(value, x)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients)


def test_instdisc_bank_update():
    objective = InstDisc(20, dim=5, momentum=0.25)
    before = objective.bank.clone()
    torch.testing.assert_close(before.norm(dim=1), torch.ones(20))
    x, index = 3 * torch.randn(4, 5, 1, 1), torch.tensor([2, 19, 0, 7])
    objective(flat, nn.Identity(), Batch(x, index))
    assert torch.equal(objective.bank, before)  # nothing moves before the step
    objective.after_step()
    for row in range(20):
        if row in index.tolist():
            z = x[index.tolist().index(row)].flatten()
            moved = 0.25 * before[row] + 0.75 * z / z.norm()
            torch.testing.assert_close(objective.bank[row], moved / moved.norm())
        else:
            assert torch.equal(objective.bank[row], before[row])
    torch.testing.assert_close(objective.bank.norm(dim=1), torch.ones(20))
    after = objective.bank.clone()
    objective.after_step()  # without a batch in between
    assert torch.equal(objective.bank, after)


@pytest.mark.parametrize("update", UPDATES)
def test_instdisc_in_a_run_changes_only_the_rows_of_the_batch(recipe, splits, update):
    run = start(recipe.replace(objective="instdisc", update=update), splits.train)
    steps, seen = pretrain(run), []
    run.objective.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[2].index.tolist()))
    before = run.objective.bank.clone()
    next(steps)
    changed = (run.objective.bank != before).any(1).nonzero().flatten().tolist()
    assert changed == sorted(seen[0])
    assert len(changed) == 16


def byol(predictor=None, momentum=0.9):
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(6, 4))
    objective = BYOL(encoder, dim=4, momentum=momentum)
    if predictor is not None:
        objective.predictor = predictor
    return encoder, objective


def test_byol_against_a_slow_reference():
    encoder, objective = byol()
    nn.init.normal_(objective.target[1].weight)
    x = torch.rand(5, 6, 1, 1)
    loss, other = objective(encoder, lambda x, count: torch.cat([x + 0.3, x - 0.2]), Batch(x, torch.arange(5)))
    predicted = objective.predictor(encoder(torch.cat([x + 0.3, x - 0.2])))
    t1, t2 = objective.target(x + 0.3), objective.target(x - 0.2)
    expected = sum(2 - 2 * cosine(predicted[i], t2[i]) for i in range(5))
    expected += sum(2 - 2 * cosine(predicted[5 + i], t1[i]) for i in range(5))
    assert float(loss.detach()) == pytest.approx(expected / 10, rel=1e-4)
    assert other == -loss


def test_byol_loss_is_zero_where_the_prediction_equals_the_target():
    encoder, objective = byol(nn.Identity())
    batch = Batch(torch.rand(5, 6, 1, 1), torch.arange(5))
    assert float(objective(encoder, Chain(nn.Identity()), batch)[0].detach()) == pytest.approx(0, abs=1e-6)
    flipped = nn.Linear(4, 4, bias=False)
    flipped.weight.data = -torch.eye(4)
    objective.predictor = flipped
    assert float(objective(encoder, Chain(nn.Identity()), batch)[0].detach()) == pytest.approx(4, abs=1e-5)


def test_byol_target_moves_by_the_ema_alone():
    encoder, objective = byol(momentum=0.9)
    old = [p.clone() for p in objective.target.parameters()]
    loss, _ = objective(encoder, Chain(nn.Identity()), Batch(torch.rand(5, 6, 1, 1), torch.arange(5)))
    loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in objective.target.parameters())
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(p.grad + 1)
    new = [p.clone() for p in encoder.parameters()]
    objective.after_step()
    for a, b, p, q in zip(old, new, objective.target.parameters(), encoder.parameters(), strict=True):
        torch.testing.assert_close(p, 0.9 * a + 0.1 * b)
        assert torch.equal(q, b)


@pytest.mark.parametrize("update", UPDATES)
def test_byol_in_a_run_follows_the_stepped_encoder(recipe, splits, update):
    run = start(recipe.replace(objective="byol", update=update), splits.train)
    old = [p.clone() for p in run.encoder.parameters()]
    next(pretrain(run))
    for a, b, p in zip(old, run.encoder.parameters(), run.objective.target.parameters(), strict=True):
        torch.testing.assert_close(p, 0.99 * a + 0.01 * b)
    assert not torch.equal(old[0], next(run.encoder.parameters()))


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_after_step_is_called_once_per_encoder_step_and_after_it(recipe, splits, monkeypatch, name, update):
    run = start(recipe.replace(objective=name, update=update), splits.train)
    events, passes = [], []
    optimizer, after_step = run.optimizers["encoder_optimizer"], run.objective.after_step
    optimizer.register_step_post_hook(lambda *_: events.append("step"))
    run.objective.register_forward_hook(lambda *_: passes.append(1))
    monkeypatch.setattr(run.objective, "after_step", lambda: (events.append("after"), after_step()))
    for _ in zip(range(3), pretrain(run), strict=False):
        pass
    done = run.step
    assert events == ["step", "after"] * done
    assert len(passes) == done * (2 if update == "alternating" else 1)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_parameters_join_the_encoders_optimizer_and_buffers_the_checkpoint(recipe, splits, tmp_path, name):
    run = start(recipe.replace(objective=name), splits.train)
    optimized = {id(p) for group in run.optimizers["encoder_optimizer"].param_groups for p in group["params"]}
    trainable = [p for module in (run.encoder, run.objective) for p in module.parameters() if p.requires_grad]
    assert optimized == {id(p) for p in trainable}
    assert not optimized & {id(p) for p in run.views.parameters()}
    if name == "byol":
        assert {id(p) for p in run.objective.predictor.parameters()} <= optimized
        assert not {id(p) for p in run.objective.target.parameters()} & optimized

    next(pretrain(run))
    checkpoint.save(run, tmp_path / "run.pt")
    other = start(recipe.replace(objective=name), splits.train)
    state, fresh = run.objective.state_dict(), other.objective.state_dict()
    assert name == "simclr" or any(not torch.equal(state[key], fresh[key]) for key in state)
    checkpoint.load(other, tmp_path / "run.pt")
    fresh = other.objective.state_dict()
    assert state.keys() == fresh.keys()
    assert all(torch.equal(state[key], fresh[key]) for key in state)


@pytest.mark.parametrize(("batch_norm", "sizes"), [("both", [8]), ("each", [4, 4])])
def test_batch_norm_sees_both_views_together_or_each_alone(batch_norm, sizes):
    seen = []

    def encoder(x):
        seen.append(len(x))
        return x.flatten(1)

    x = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    found = NTXent(batch_norm=batch_norm).loss(
        encoder, lambda x, count: torch.cat([x + 1] * count), Batch(x, torch.arange(4))
    )
    assert seen == sizes
    torch.testing.assert_close(found, nt_xent((x + 1).flatten(1), (x + 1).flatten(1)))
