"""Evaluation: how much of a task can be read from a frozen representation.

Every protocol takes features and labels as tensors and returns percent of test examples answered correctly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from vmlite.build import build_encoder, place
from vmlite.datasets import Dataset, Splits
from vmlite.encoders import Encoder
from vmlite.pretrain import Run, frozen, seeded
from vmlite.recipes import Recipe

L2 = 0.001


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Within the block the modules are in eval mode and need no gradient; afterwards they are as before."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        with frozen(*modules):
            yield
    finally:
        for part, mode in modes:
            part.training = mode


@torch.no_grad()
def extract(
    encoder: Encoder,
    data: Dataset,
    pool: bool = True,
    index: Tensor | None = None,
    batch_size: int = 512,
    progress: bool = False,
) -> Tensor:
    """Features without views: (N, feature_dim) pooled, or the flattened last feature maps; None: of all examples."""
    batches = _all(data, index, encoder.mean.device).split(batch_size)
    with evaluating(encoder):
        made = [
            encoder.features(data.inputs(index), pool)
            for index in tqdm(batches, desc="features", disable=not progress, leave=False)
        ]
    return torch.cat(made)


@torch.no_grad()
def extract_views(run: Run, index: Tensor, pool: bool = True, batch_size: int = 500) -> Tensor:
    """Features, as of `extract`, of one view of each of the run's training examples `index`."""
    with evaluating(run.encoder, run.views):
        return torch.cat([run.encoder.features(run.views(run.draw(part)), pool) for part in index.split(batch_size)])


@torch.no_grad()
def raw_inputs(data: Dataset, index: Tensor | None = None, batch_size: int = 512) -> Tensor:
    """The network inputs, flattened: the features of a linear classifier without any encoder; None: of all examples."""
    return torch.cat([data.inputs(i).flatten(1) for i in _all(data, index).split(batch_size)])


def labelled(data: Dataset, task: str) -> Tensor:
    """The index of the examples that have a label for the task. Raises ValueError where there are none."""
    if task not in data.targets:
        raise ValueError(f"{data.name} has no task {task!r}; it has {', '.join(data.targets)}.")
    index = (data.targets[task] >= 0).nonzero()[:, 0]
    if not len(index):
        raise ValueError(f"no example of this part of {data.name} has a label for the task {task!r}.")
    return index


def _all(data: Dataset, index: Tensor | None, device: torch.device | None = None) -> Tensor:
    return torch.arange(len(data), device=device) if index is None else index


def standardise(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the training features' mean and standard deviation; a constant feature becomes zero."""
    std, mean = torch.std_mean(train, 0)
    scale = torch.where(std > 1e-6 * (1 + mean.abs()), std, torch.inf)
    return (train - mean) / scale, (test - mean) / scale


def linear_probe(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, l2: float = L2) -> float:
    """Percent of the test examples that `linear_predictions` gets right."""
    return percent(linear_predictions(x, y, x_test, l2), y_test)


def linear_predictions(x: Tensor, y: Tensor, x_test: Tensor, l2: float = L2) -> Tensor:
    """Classes (N_test,) by multinomial logistic regression on standardised features, fitted with L-BFGS.

    Minimises the mean cross entropy plus l2 / 2 times the squared norm of the weights, until no entry of the gradient
    exceeds 1e-4. The best weights lie in the span of the training examples, so more features than examples are first
    rotated into it: the same classifier, sooner. There the gradient is small long before the end: 1e-5, in float64.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    (x, x_test), wide = standardise(x.float(), x_test.float()), x.shape[1] > len(x)
    a, b = x.cpu().numpy(), x_test.cpu().numpy()
    if wide:
        products, with_test = (torch.from_numpy(product).double() for product in (a @ a.T, a @ b.T))
        products.diagonal().add_(1e-6 * products.diagonal().mean())  # else rounding makes some eigenvalues negative
        factor = torch.linalg.cholesky(products)
        a, b = factor.numpy(), torch.linalg.solve_triangular(factor, with_test, upper=False).T.numpy()
    with threadpool_limits(1):  # L-BFGS on matrices of this size is slower with more threads
        model = LogisticRegression(C=1 / (l2 * len(a)), tol=1e-5 if wide else 1e-4, max_iter=2000)
        model.fit(a, y.cpu().numpy())
    return torch.as_tensor(model.predict(b), device=y.device)


def knn(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, k: int = 20, temperature: float = 0.07) -> float:
    """Weighted k-nearest-neighbour vote by cosine similarity (Wu et al. 2018, section 3.4)."""
    x, x_test = F.normalize(x.float(), dim=1), F.normalize(x_test.float(), dim=1)
    votes = F.one_hot(y).float()
    correct = 0
    for part, answer in zip(x_test.split(1024), y_test.split(1024), strict=True):
        similarity, index = (part @ x.T).topk(min(k, len(x)), dim=1)
        score = ((similarity / temperature).exp()[:, :, None] * votes[index]).sum(1)
        correct += int((score.argmax(1) == answer).sum())
    return 100 * correct / len(y_test)


def mlp_probe(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, hidden: int = 512, epochs: int = 30) -> float:
    """One hidden layer on standardised features: Linear-BatchNorm-ReLU-Linear; Adam 1e-3 falling to 0, batch 256, weight decay 1e-4."""
    x, x_test = standardise(x.float(), x_test.float())
    with seeded("mlp_probe"):
        net = nn.Sequential(
            nn.Linear(x.shape[1], hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, int(y.max()) + 1)
        ).to(x.device)
        optimizer = torch.optim.Adam(net.parameters(), 1e-3, weight_decay=1e-4)
        _fit(lambda index: net(x[index]), y, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR, epochs, 256)
    with evaluating(net), torch.no_grad():
        return percent(net(x_test).argmax(1), y_test)


def paper_probe(
    run: Run,
    test: Dataset,
    task: str = "class",
    pool: bool = False,
    epochs: int = 100,
    lr: float = 0.01,
    batch_size: int = 128,
    progress: bool = True,
) -> float:
    """The paper's linear evaluation (section 4.1): the pretraining views stay on while the classifier trains.

    SGD with momentum .9, the rate divided by 10 after 60 and 80 % of the epochs; no views on the test images. As in the
    paper, CIFAR-10 uses the features before pooling.
    """
    train = run.train
    part, part_test = labelled(train, task), labelled(test, task)
    y = train.targets[task][part]

    with seeded("paper_probe"):
        width = extract_views(run, torch.zeros(1, dtype=torch.long, device=y.device), pool).shape[1]
        classifier = nn.Linear(width, len(train.classes[task])).to(y.device)
        optimizer = torch.optim.SGD(classifier.parameters(), lr, momentum=0.9)

        def drops(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
            return torch.optim.lr_scheduler.MultiStepLR(optimizer, [int(0.6 * steps), int(0.8 * steps)])

        _fit(
            lambda index: classifier(extract_views(run, part[index], pool)),
            y,
            optimizer,
            drops,
            epochs,
            batch_size,
            progress,
        )
    with torch.no_grad():
        logits = classifier(extract(run.encoder, test, pool, part_test))
    return percent(logits.argmax(1), test.targets[task][part_test])


def supervised(recipe: Recipe, data: Splits, task: str = "class", epochs: int = 10, progress: bool = True) -> float:
    """Test accuracy of the recipe's encoder trained from scratch on the labels: what the network can do at best."""
    return percent(*classify(fit_labels(recipe, data.train, task, epochs, progress), data.test, task))


def fit_labels(recipe: Recipe, train: Dataset, task: str = "class", epochs: int = 10, progress: bool = True) -> Encoder:
    """The recipe's encoder trained from scratch on the labels; its embedding holds the logits of the classes.

    SGD with Nesterov momentum .9, weight decay 5e-4, one cycle of the learning rate up to .1, no augmentation.
    """
    part = labelled(train, task)
    y = train.targets[task][part]
    with seeded("supervised", recipe.seed):
        encoder = place(build_encoder(recipe.replace(embedding_dim=len(train.classes[task])), train), y.device)
        optimizer = torch.optim.SGD(encoder.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)

        def cycle(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
            return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, steps, cycle_momentum=False)

        _fit(
            lambda index: encoder(train.inputs(part[index], random=True)), y, optimizer, cycle, epochs, recipe.batch_size,
            progress,
        )  # fmt: skip
    return encoder


def classify(encoder: Encoder, test: Dataset, task: str = "class") -> tuple[Tensor, Tensor]:
    """The classes that an encoder from `fit_labels` tells, and the true ones, of the labelled examples."""
    part = labelled(test, task)
    with evaluating(encoder), torch.no_grad():
        logits = torch.cat([encoder(test.inputs(index)) for index in part.split(512)])
    return logits.argmax(1), test.targets[task][part]


def _fit(
    logits: Callable[[Tensor], Tensor],
    y: Tensor,
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[torch.optim.Optimizer, int], torch.optim.lr_scheduler.LRScheduler],
    epochs: int,
    batch_size: int,
    progress: bool = False,
) -> None:
    """Minimise the cross entropy of `logits(index)` over shuffled batches."""
    batches = max(1, len(y) // batch_size)
    scheduler = schedule(optimizer, epochs * batches)
    for _ in tqdm(range(epochs), desc="training on labels", disable=not progress, leave=False, delay=1):
        for index in torch.randperm(len(y), device=y.device)[: batches * batch_size].chunk(batches):
            optimizer.zero_grad()
            F.cross_entropy(logits(index), y[index]).backward()
            optimizer.step()
            scheduler.step()


def sensitivity(x: Tensor, x_changed: Tensor) -> float:
    """How far features (N, D) move with a change of their examples: 0 not at all, 1 as far as from one example to another.

    The mean squared change of a feature over that between two of the N examples at random; constant features are left out.
    """
    std = x.std(0)
    told = std > 1e-6 * (1 + x.mean(0).abs())
    return float(((x_changed - x)[:, told] / std[told]).square().mean()) / 2


def percent(predicted: Tensor, y: Tensor) -> float:
    """Accuracy: the share of examples whose class is told, in percent."""
    return 100 * float((predicted == y).double().mean())


def balanced_percent(predicted: Tensor, y: Tensor) -> float:
    """Class-balanced accuracy: the mean over the classes that occur in `y` of each one's accuracy, in percent."""
    return sum(percent(predicted[y == c], y[y == c]) for c in y.unique()) / len(y.unique())


FROZEN_METRICS: dict[str, tuple[bool, Callable[[Tensor, Tensor, Tensor, Tensor], float]]] = {
    "linear_accuracy": (True, linear_probe),
    "linear_accuracy_prepool": (False, linear_probe),
    "mlp_accuracy": (True, mlp_probe),
    "knn_accuracy": (True, knn),
}
METRICS = (*FROZEN_METRICS, "linear_accuracy_paper")


def evaluate(
    run: Run, test: Dataset, task: str = "class", metrics: Sequence[str] = tuple(FROZEN_METRICS)
) -> dict[str, float]:
    """The chosen metrics of a run's encoder, names as in METRICS. Features are extracted once for each kind.

    "linear_accuracy_paper", which trains for 100 epochs, only where it is named."""
    made: dict[bool, tuple[Tensor, Tensor]] = {}
    values = {}
    part, part_test = labelled(run.train, task), labelled(test, task)
    y, y_test = run.train.targets[task][part], test.targets[task][part_test]
    for metric in tqdm(metrics, desc="evaluating", leave=False, delay=2):
        if metric == "linear_accuracy_paper":
            values[metric] = paper_probe(run, test, task)
            continue
        pool, probe = FROZEN_METRICS[metric]
        if pool not in made:
            made[pool] = extract(run.encoder, run.train, pool, part), extract(run.encoder, test, pool, part_test)
        values[metric] = probe(made[pool][0], y, made[pool][1], y_test)
    return values


def raw_input_accuracy(data: Splits, task: str = "class") -> float:
    """`linear_probe` on the network's input: the floor of a classifier without any encoder."""
    parts = [(part, labelled(part, task)) for part in data]
    (x, y), (x_test, y_test) = [(raw_inputs(part, index), part.targets[task][index]) for part, index in parts]
    return linear_probe(x, y, x_test, y_test)
