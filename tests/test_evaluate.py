"""Each protocol on features with a known answer, and the networks untouched by all of them."""

import copy
import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
import sklearn.linear_model
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vmlite import evaluate as module
from vmlite.datasets import ImageDataset, Splits
from vmlite.evaluate import (
    METRICS,
    balanced_percent,
    classify,
    evaluate,
    evaluating,
    extract,
    extract_views,
    fit_labels,
    knn,
    labelled,
    linear_predictions,
    linear_probe,
    mlp_probe,
    paper_probe,
    percent,
    raw_input_accuracy,
    raw_inputs,
    sensitivity,
    standardise,
    supervised,
)
from vmlite.pretrain import pretrain, start

PROBES = (linear_probe, mlp_probe, knn)


def blobs(n, seed, centres=3, spread=0.3):
    """Gaussian blobs at the corners of a simplex: (features, labels)."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % centres
    return 2 * F.one_hot(y, 6).float() + spread * torch.randn(n, 6, generator=generator), y


def xor(n, seed):
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    x += 0.3 * x.sign()
    return x, (x[:, 0] * x[:, 1] > 0).long()


@pytest.mark.parametrize("probe", PROBES)
def test_separable_features_give_100(probe):
    assert probe(*blobs(300, 0), *blobs(100, 1)) == 100


@pytest.mark.parametrize("probe", PROBES)
def test_wrong_test_labels_give_0(probe):
    x, y = blobs(99, 1)
    assert probe(*blobs(300, 0), x, (y + 1) % 3) == 0


@pytest.mark.parametrize("probe", PROBES)
def test_percent_counts_the_right_answers(probe):
    x, y = blobs(96, 1)
    y[:24] = (y[:24] + 1) % 3
    assert probe(*blobs(300, 0), x, y) == 75


@pytest.mark.parametrize("probe", PROBES)
def test_labels_without_a_cause_give_chance(probe):
    x, y = torch.randn(600, 5, generator=torch.Generator().manual_seed(0)), torch.arange(600) % 3
    assert probe(x[:300], y[:300], x[300:], y[300:]) == pytest.approx(100 / 3, abs=10)


def test_xor_is_for_nonlinear_probes_only():
    data = (*xor(800, 0), *xor(400, 1))
    assert linear_probe(*data) == pytest.approx(50, abs=8)
    assert mlp_probe(*data) > 97
    assert knn(*data) > 97


@pytest.mark.parametrize("probe", PROBES)
def test_the_same_result_twice_whatever_the_global_generator(probe):
    data = (*blobs(200, 0, spread=2.0), *blobs(200, 1, spread=2.0))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = probe(*data)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert probe(*data) == first
    assert 40 < first < 95


@given(st.integers(0, 2**31), st.integers(1, 30), st.sampled_from([0.07, 0.5]))
def test_knn_against_a_slow_reference(seed, k, temperature):
    generator = torch.Generator().manual_seed(seed)
    x, x_test = torch.randn(20, 4, generator=generator), torch.randn(8, 4, generator=generator)
    y, y_test = (torch.randint(3, (n,), generator=generator) for n in (20, 8))
    right = 0
    for query, answer in zip(x_test.tolist(), y_test.tolist(), strict=True):
        scored = []
        for row, label in zip(x.tolist(), y.tolist(), strict=True):
            dot = sum(a * b for a, b in zip(query, row, strict=True))
            scored.append((dot / math.hypot(*query) / math.hypot(*row), label))
        votes = Counter()
        for similarity, label in sorted(scored, reverse=True)[:k]:
            votes[label] += math.exp(similarity / temperature)
        right += max(votes, key=votes.get) == answer
    assert knn(x, y, x_test, y_test, k, temperature) == pytest.approx(100 * right / 8)


def test_knn_in_several_parts_and_by_direction_alone():
    x, y = blobs(60, 0)
    x_test, y_test = blobs(1500, 1)
    assert knn(x, y, x_test, y_test) == 100
    lengths = torch.logspace(-3, 3, 1500)[:, None]
    assert knn(x, y, x_test * lengths, y_test) == 100


def test_standardise():
    x = torch.tensor([[1.0, 5.0, 1e6], [3.0, 5.0, 1e6], [5.0, 5.0, 1e6]])
    train, test = standardise(x, torch.tensor([[9.0, 7.0, 0.0]]))
    torch.testing.assert_close(train, torch.tensor([[-1.0, 0, 0], [0, 0, 0], [1, 0, 0]]))
    torch.testing.assert_close(test, torch.tensor([[3.0, 0, 0]]))


@pytest.mark.parametrize("probe", PROBES)
def test_constant_features_do_no_harm(probe):
    (x, y), (x_test, y_test) = blobs(300, 0), blobs(100, 1)
    x, x_test = (torch.cat([t, torch.full((len(t), 2), 0.7)], 1) for t in (x, x_test))
    assert probe(x, y, x_test, y_test) == 100


def test_more_features_than_examples_give_the_same_classifier():
    """Rotated into the span of the examples; against the same solver on all features."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(3, (60,), generator=generator)
    x, x_test = (torch.randn(n, 400, generator=generator) for n in (60, 200))
    x[:, 0] += 3 * y
    a, b = standardise(x, x_test)
    model = sklearn.linear_model.LogisticRegression(C=1 / (0.01 * 60), tol=1e-6, max_iter=5000).fit(
        a.numpy(), y.numpy()
    )
    direct = torch.as_tensor(model.predict(b.numpy()))
    assert (linear_predictions(x, y, x_test, l2=0.01) == direct).float().mean() >= 0.99
    assert len(direct.unique()) == 3


def test_balanced_percent_weighs_classes_alike():
    y = torch.tensor([0] * 8 + [1] * 2)
    told = torch.tensor([0] * 8 + [1, 0])
    assert percent(told, y) == pytest.approx(90)
    assert balanced_percent(told, y) == pytest.approx(75)
    assert balanced_percent(torch.zeros(10), y) == pytest.approx(50)


def test_fit_labels_and_classify_are_what_supervised_measures(recipe, easy):
    encoder = fit_labels(recipe, easy.train, epochs=5, progress=False)
    assert percent(*classify(encoder, easy.test)) == supervised(recipe, easy, epochs=5, progress=False)


@pytest.mark.parametrize("l2", [1e-4, 0.01, 1.0])
def test_linear_probe_stops_at_the_optimum_of_the_stated_objective(monkeypatch, l2):
    """The gradient of mean cross entropy + l2 / 2 |W|^2 vanishes there; independently of the solver used."""
    fitted = []

    class Recorded(sklearn.linear_model.LogisticRegression):
        def fit(self, x, y):
            fitted.append((super().fit(x, y), x, y))
            return self

    monkeypatch.setattr(sklearn.linear_model, "LogisticRegression", Recorded)
    x, y = blobs(300, 0, spread=2.0)
    linear_probe(5 + 100 * x, y, *blobs(100, 1), l2)
    model, inputs, labels = fitted[0]
    assert np.allclose(inputs.mean(0), 0, atol=1e-4)
    assert np.allclose(inputs.std(0, ddof=1), 1, atol=1e-4)
    inputs, labels = torch.from_numpy(inputs).double(), torch.from_numpy(labels)

    def objective(weight, bias):
        return F.cross_entropy(inputs @ weight.T + bias, labels) + l2 / 2 * weight.square().sum()

    found = [torch.from_numpy(v).double().requires_grad_() for v in (model.coef_, model.intercept_)]
    gradients = torch.autograd.grad(objective(*found), found)
    assert max(g.abs().max() for g in gradients) < 5e-4

    solved = [torch.zeros(v.shape, dtype=torch.double, requires_grad=True) for v in found]
    solver = torch.optim.LBFGS(
        solved, max_iter=500, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        solver.zero_grad()
        value = objective(*solved)
        value.backward()
        return value

    solver.step(closure)
    assert float(objective(*found).detach()) == pytest.approx(float(objective(*solved).detach()), rel=1e-5)
    assert torch.equal((inputs @ found[0].T + found[1]).argmax(1), (inputs @ solved[0].T + solved[1]).argmax(1))


@pytest.fixture
def run(recipe, splits):
    run = start(recipe, splits.train)
    next(pretrain(run))
    run.encoder.train(), run.views.train()
    run.encoder.net.bn1.eval()  # a mixture of modes, to be found again
    run.encoder.head.weight.requires_grad_(False)
    return run


def snapshot(run):
    state = [
        t.clone() for part in run.stateful().values() if isinstance(part, nn.Module) for t in part.state_dict().values()
    ]
    parts = [m for part in (run.encoder, run.views, run.objective) for m in part.modules()]
    return state, [m.training for m in parts], [p.requires_grad for m in parts for p in m.parameters()]


def assert_untouched(run, before):
    after = snapshot(run)
    assert all(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    assert after[1:] == before[1:]


def watch(run):
    """Records whether networks were in training mode each time that they ran."""
    modes = {"encoder": [], "views": []}
    run.encoder.net.layer1.register_forward_hook(lambda m, *_: modes["encoder"].append(m[0].bn1.training))
    run.views.register_forward_hook(lambda m, *_: modes["views"].append(m[0].training))
    return modes


@pytest.mark.parametrize("pool", [True, False])
def test_extract(run, splits, pool):
    before, modes = snapshot(run), watch(run)
    features = extract(run.encoder, splits.test, pool, batch_size=10)
    assert_untouched(run, before)
    assert modes == {"encoder": [False] * 4, "views": []}
    assert not features.requires_grad
    run.encoder.eval()
    expected = run.encoder.features(splits.test.batch(torch.arange(32)), pool)
    torch.testing.assert_close(features, expected)
    assert features.shape == (32, 32 if pool else 32 * 4)


def test_raw_inputs(splits):
    expected = splits.test.batch(torch.arange(32)).flatten(1)
    assert torch.equal(raw_inputs(splits.test, batch_size=10), expected)


def test_raw_inputs_and_features_go_through_the_front_end(run, splits, monkeypatch):
    x = splits.test.batch(torch.arange(32))
    monkeypatch.setattr(splits.test, "inputs", lambda index: splits.test.batch(index) / 2)
    assert torch.equal(raw_inputs(splits.test), x.flatten(1) / 2)
    with evaluating(run.encoder):
        expected = run.encoder.features(x / 2)
    torch.testing.assert_close(extract(run.encoder, splits.test), expected)


def test_evaluating_restores_also_after_an_error(run):
    before = snapshot(run)
    with evaluating(run.encoder, run.views):
        for network in (run.encoder, run.views):
            assert not any(m.training for m in network.modules())
            assert not any(p.requires_grad for p in network.parameters())
    assert_untouched(run, before)
    with pytest.raises(ValueError, match="this viewmaker takes"), evaluating(run.encoder, run.views):
        run.views(torch.rand(1, 1, 8, 8))
    assert_untouched(run, before)


@pytest.mark.parametrize("pool", [True, False])
def test_paper_probe_keeps_views_on_in_training_and_off_in_validation(run, splits, pool):
    """64 examples in batches of 16 for 2 epochs: 8 passes with views, and 1 of one example that finds the width."""
    before, modes, sizes = snapshot(run), watch(run), []
    run.views.register_forward_hook(lambda m, inputs, output: sizes.append(len(inputs[0])))
    torch.manual_seed(0)
    generator = torch.get_rng_state()
    value = paper_probe(run, splits.test, pool=pool, epochs=2, batch_size=16, progress=False)
    assert torch.equal(torch.get_rng_state(), generator)
    assert_untouched(run, before)
    assert sum(sizes) == 2 * 64 + 1
    assert sizes.count(16) == 8
    assert not any(modes["encoder"] + modes["views"])
    assert len(modes["encoder"]) == 9 + 1  # the last is the test set, without views
    assert 0 <= value <= 100
    torch.manual_seed(1)
    assert paper_probe(run, splits.test, pool=pool, epochs=2, batch_size=16, progress=False) == value


def test_extract_views_are_the_features_of_one_view_of_each_example(run):
    before = snapshot(run)
    index = torch.arange(20)
    torch.manual_seed(0)
    found = extract_views(run, index, batch_size=8)
    torch.manual_seed(0)
    with torch.no_grad(), evaluating(run.encoder, run.views):
        parts = [run.encoder.features(run.views(run.draw(part))) for part in index.split(8)]
    assert torch.equal(found, torch.cat(parts))
    assert not torch.equal(found, extract(run.encoder, run.train, index=index))
    assert not found.requires_grad
    assert_untouched(run, before)


def coloured(n, seed):
    """Noise images of three classes: reddish, greenish, bluish."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    images = 0.4 * torch.rand(n, 3, 8, 8, generator=generator) + 0.5 * F.one_hot(y, 3)[:, :, None, None]
    return ImageDataset("coloured", images, {"class": y}, {"class": ("red", "green", "blue")})


@pytest.fixture(scope="module")
def easy():
    return Splits(coloured(96, 0), coloured(48, 1))


def test_paper_probe_solves_an_easy_task(recipe, easy):
    run = start(recipe.replace(views="noise", eps=0.01, loss_form="released"), easy.train)
    for _ in pretrain(run):
        pass
    assert paper_probe(run, easy.test, pool=False, epochs=10, lr=1e-3, batch_size=16, progress=False) > 80


def test_paper_probe_follows_the_papers_schedule(run, splits, monkeypatch):
    rates = []

    class Recorded(torch.optim.SGD):
        def step(self, *arguments):
            rates.append((self.param_groups[0]["lr"], self.param_groups[0]["momentum"]))
            super().step(*arguments)

    monkeypatch.setattr(torch.optim, "SGD", Recorded)
    paper_probe(run, splits.test, pool=True, epochs=5, batch_size=32, progress=False)
    assert [round(rate, 6) for rate, _ in rates] == [0.01] * 6 + [0.001] * 2 + [0.0001] * 2
    assert {momentum for _, momentum in rates} == {0.9}


def test_supervised_solves_an_easy_task_and_repeats_itself(recipe, easy):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    value = supervised(recipe, easy, epochs=5, progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert 85 < value <= 100
    torch.manual_seed(1)
    assert supervised(recipe, easy, epochs=5, progress=False) == value


def test_supervised_measures_on_the_test_set(recipe, easy):
    wrong = coloured(48, 1)
    wrong.targets["class"] = (wrong.targets["class"] + 1) % 3
    assert supervised(recipe, Splits(easy.train, wrong), epochs=5, progress=False) < 15


def test_raw_input_accuracy(easy):
    assert raw_input_accuracy(easy) == 100


def test_evaluate_gives_each_metric_of_its_protocol(run, splits, monkeypatch):
    before, calls = snapshot(run), []

    def paper(run_, test, task):
        calls.append((run_ is run, test is splits.test, task))
        return 12.5

    original = module.extract
    monkeypatch.setattr(module, "paper_probe", paper)
    monkeypatch.setattr(module, "extract", lambda *a: (calls.append(a[2]), original(*a))[1])
    values = evaluate(run, splits.test, metrics=METRICS)
    assert_untouched(run, before)
    assert tuple(values) == METRICS
    assert sorted(map(str, calls)) == sorted(map(str, [True, True, False, False, (True, True, "class")]))
    labels = splits.train.targets["class"], splits.test.targets["class"]
    pooled, maps = ([original(run.encoder, part, pool) for part in splits] for pool in (True, False))
    assert values == {
        "linear_accuracy": linear_probe(pooled[0], labels[0], pooled[1], labels[1]),
        "linear_accuracy_prepool": linear_probe(maps[0], labels[0], maps[1], labels[1]),
        "mlp_accuracy": mlp_probe(pooled[0], labels[0], pooled[1], labels[1]),
        "knn_accuracy": knn(pooled[0], labels[0], pooled[1], labels[1]),
        "linear_accuracy_paper": 12.5,
    }


def test_evaluate_computes_only_what_is_asked(run, splits, monkeypatch):
    monkeypatch.setattr(module, "paper_probe", None)
    assert set(evaluate(run, splits.test, metrics=["knn_accuracy"])) == {"knn_accuracy"}


def test_the_papers_protocol_runs_only_where_it_is_named(run, splits, monkeypatch):
    monkeypatch.setattr(module, "paper_probe", lambda *a: pytest.fail("100 epochs nobody asked for"))
    assert "linear_accuracy_paper" not in evaluate(run, splits.test)


def hide_labels(data, index):
    """The same data, in which the examples `index` take no part in the task."""
    part = copy.copy(data)
    part.targets = {"class": data.targets["class"].clone()}
    part.targets["class"][index] = -1
    return part


def test_labelled_are_the_examples_that_take_part(splits):
    part = hide_labels(splits.test, [0, 3])
    assert labelled(part, "class").tolist() == [i for i in range(32) if i not in (0, 3)]
    assert len(labelled(splits.test, "class")) == 32


def test_a_task_without_labels_or_that_is_not_there_is_refused(splits):
    with pytest.raises(ValueError, match="has no task 'word'; it has class"):
        labelled(splits.test, "word")
    with pytest.raises(ValueError, match="no example of this part of spirograph has a label for the task 'class'"):
        labelled(hide_labels(splits.test, slice(None)), "class")


def test_probes_leave_unlabelled_examples_out(run, splits):
    """Hiding labels gives the same as leaving these examples out of the data."""
    train, test = hide_labels(splits.train, slice(40, None)), hide_labels(splits.test, slice(20, None))
    short = Splits(splits.train.first(40), splits.test.first(20))
    assert raw_input_accuracy(Splits(train, test)) == raw_input_accuracy(short)
    found = evaluate(dataclasses.replace(run, train=train), test)
    assert found == evaluate(dataclasses.replace(run, train=short.train), short.test)


@given(st.floats(0, 1), st.floats(0.01, 100), st.floats(-100, 100))
def test_sensitivity_is_the_share_of_variance_that_is_drawn_again(share, scale, shift):
    kept, drawn, again = torch.randn(3, 2000, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    x, changed = (math.sqrt(1 - share) * kept + math.sqrt(share) * other for other in (drawn, again))
    assert sensitivity(x, x) == 0
    assert sensitivity(x, changed) == pytest.approx(share, abs=0.05)
    assert sensitivity(scale * x + shift, scale * changed + shift) == pytest.approx(
        sensitivity(x, changed), rel=1e-2, abs=1e-3
    )


def test_sensitivity_leaves_constant_features_out():
    x, changed = torch.randn(2, 500, 3).unbind(0)
    wider = torch.cat([x, torch.full((500, 2), 7.0)], 1)
    assert sensitivity(wider, torch.cat([changed, torch.randn(500, 2)], 1)) == sensitivity(x, changed)
