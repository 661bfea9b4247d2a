"""Objectives: what the encoder minimises and what the viewmaker is trained against.

An objective is called as `objective(encoder, views, batch)` and returns two losses, the encoder's and the
viewmaker's. `views(x)` is one fresh view of each input, and `views(x, count=2)` one of each and then another one of
each, (2 N, ...); `vmlite.views.Chain` makes any module such views. Where `zero_sum` is true the second loss is minus
the first, and both players can be trained from one backward pass.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vmlite import distributed

Views = Callable[..., Tensor]
NTXENT_FORMS = ("equation", "released")


@dataclass(frozen=True)
class Batch:
    """Network inputs (N, C, H, W) and the identity (N,) of each example, the same in every epoch."""

    x: Tensor
    index: Tensor


class Objective(nn.Module):
    """Base class. Trainable parameters join the encoder's optimiser; buffers join the checkpoint."""

    zero_sum = True

    def forward(self, encoder: nn.Module, views: Views, batch: Batch) -> tuple[Tensor, Tensor]:
        """The encoder's and the viewmaker's loss, for a zero-sum objective from `loss`."""
        loss = self.loss(encoder, views, batch)
        return loss, -loss

    def loss(self, encoder: nn.Module, views: Views, batch: Batch) -> Tensor:
        """The encoder's loss, a scalar."""
        raise TypeError(f"{type(self).__name__} must define loss, or forward where it is not zero-sum.")

    def after_step(self) -> None:
        """Called once after each step of the encoder's optimiser, e.g. to update a memory bank."""


def nt_xent(z1: Tensor, z2: Tensor, temperature: float = 0.07, form: str = "equation") -> Tensor:
    """Normalised temperature-scaled cross entropy of paired embeddings z1, z2 (N, D), a scalar.

    "equation" is the paper's loss (section 3): every view is an anchor, its own similarity is left out of the
    denominator. "released" is the loss of the authors' code up to a constant: only the first views are anchors, and
    an anchor's similarity with itself, always 1, stays in the denominator. It keeps the loss above log(2) even
    when positives coincide, so their pull never fades.
    """
    n = len(z1)
    with torch.autocast(z1.device.type, enabled=False):  # similarities over a small temperature need float32
        z = F.normalize(torch.cat([z1, z2]).to(torch.promote_types(z1.dtype, torch.float32)), dim=1)
        anchors = z[:n] if form == "released" else z
        similarity = anchors @ z.T / temperature
        if form == "equation":
            similarity = similarity.masked_fill(torch.eye(2 * n, dtype=torch.bool, device=z.device), -torch.inf)
        positive = torch.arange(n, n + len(anchors), device=z.device) % (2 * n)
        return F.cross_entropy(similarity, positive)


class NTXent(Objective):
    """SimCLR's objective: two views of each example, `nt_xent` between their embeddings.

    Args:
        temperature, form: see `nt_xent`.
        batch_norm: "both" sends both views through the encoder in one call, so that batch norm takes its statistics
            over them together; "each" makes two calls, as the authors' code does.
    """

    def __init__(self, temperature: float = 0.07, form: str = "equation", batch_norm: str = "both") -> None:
        super().__init__()
        if form not in NTXENT_FORMS:
            raise ValueError(f"the loss form must be one of {', '.join(NTXENT_FORMS)}, got {form!r}.")
        self.temperature, self.form, self.batch_norm = temperature, form, batch_norm

    def loss(self, encoder: nn.Module, views: Views, batch: Batch) -> Tensor:
        both = views(batch.x, count=2)
        z1, z2 = encoder(both).chunk(2) if self.batch_norm == "both" else map(encoder, both.chunk(2))
        return nt_xent(distributed.gather(z1), distributed.gather(z2), self.temperature, self.form)


class InstDisc(Objective):
    """Instance discrimination with a memory bank (Wu et al. 2018): one view of each example.

    The view's embedding is classified as its own entry of the bank among `negatives` entries drawn uniformly.

    Args:
        n_examples: size of the training set, one bank entry each.
        momentum: share of the old entry that an update keeps.
    """

    bank: Tensor

    def __init__(
        self, n_examples: int, dim: int = 128, temperature: float = 0.07, negatives: int = 4096, momentum: float = 0.5
    ) -> None:
        super().__init__()
        self.temperature, self.negatives, self.momentum = temperature, negatives, momentum
        self.register_buffer("bank", F.normalize(torch.randn(n_examples, dim), dim=1))
        self._last: tuple[Tensor, Tensor] | None = None

    def loss(self, encoder: nn.Module, views: Views, batch: Batch) -> Tensor:
        z = F.normalize(encoder(views(batch.x)).float(), dim=1)
        with torch.autocast(z.device.type, enabled=False):  # as in nt_xent
            drawn = torch.randint(len(self.bank), (len(z), self.negatives), device=z.device)
            # One product with the whole bank is cheaper than gathering (N, negatives, D) as long as the bank is small.
            similarity = z @ self.bank.T if len(self.bank) <= 8 * self.negatives else None
            if similarity is not None:
                positive, negative = similarity.gather(1, batch.index[:, None]), similarity.gather(1, drawn)
            else:
                positive = (z * self.bank[batch.index]).sum(1, keepdim=True)
                negative = torch.einsum("nd,nkd->nk", z, self.bank[drawn])
            self._last = (batch.index, z.detach())
            logits = torch.cat([positive, negative], 1) / self.temperature
            return F.cross_entropy(logits, torch.zeros_like(batch.index))

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the bank entries of the last batch towards its embeddings."""
        if self._last is not None:
            index, z = map(distributed.gather, self._last)
            self.bank[index] = F.normalize(self.momentum * self.bank[index] + (1 - self.momentum) * z, dim=1)
            self._last = None


class BYOL(Objective):
    """Bootstrap your own latent (Grill et al. 2020): predict a momentum encoder's embedding of the other view.

    Args:
        encoder: the encoder that will be trained; its copy is the target network.
        dim: size of its embedding.
        momentum: share of the old target that an update keeps.
    """

    def __init__(self, encoder: nn.Module, dim: int = 128, momentum: float = 0.99) -> None:
        super().__init__()
        self.momentum = momentum
        self.target = copy.deepcopy(encoder).requires_grad_(False)
        self.predictor = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.BatchNorm1d(4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim)
        )
        self._encoder = [encoder]  # in a list, so that the encoder does not become a child of its objective

    def loss(self, encoder: nn.Module, views: Views, batch: Batch) -> Tensor:
        both = views(batch.x, count=2)
        prediction = F.normalize(self.predictor(encoder(both)).float(), dim=1)
        # The target's weights need no gradient, but its input does: the viewmaker moves both sides of the comparison.
        target = F.normalize(self.target(both).float(), dim=1)
        return 2 - 2 * (prediction * target.roll(len(batch.x), 0)).sum(1).mean()

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the target network towards the encoder."""
        for old, new in zip(self.target.parameters(), self._encoder[0].parameters(), strict=True):
            old.lerp_(new, 1 - self.momentum)


OBJECTIVES = ("simclr", "instdisc", "byol")
