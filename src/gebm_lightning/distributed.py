"""Many processes as one: sums, gathers and batch statistics over all of them; of one process, nothing is changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .noise import BLOCK

T = TypeVar("T")
_ALONE = False
_HOST_GROUPS: dict[int, Any] = {}


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() and not _ALONE else 1


def rank() -> int:
    """This process's number among them."""
    return dist.get_rank() if world_size() > 1 else 0


def leave() -> None:
    """End this process's part in the group, in good order.

    Gloo's threads drop the last tensors a little later than the main thread sees their results; one that did so while Python
    was being taken down would abort the process.
    """
    if dist.is_available() and dist.is_initialized():
        _HOST_GROUPS.clear()
        dist.destroy_process_group()


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process computes for itself, as if there were no others."""
    global _ALONE
    before, _ALONE = _ALONE, True
    try:
        yield
    finally:
        _ALONE = before


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        ctx.rows = slice(rank() * len(x), (rank() + 1) * len(x))
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # Every process has the same function of the whole: its own rows' share of the gradient is all it has to add.
        return grads[0][ctx.rows]


def gather(x: Tensor) -> Tensor:
    """(world · n, …) from each process's x (n, …), in the order of ranks.

    The gradient is that of one's own rows: once `reduce_gradients` has summed over processes, parameters have the
    gradient of a function of the whole batch that all of them computed.
    """
    return x if world_size() == 1 else _Gather.apply(x)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _Sum.apply(grads[0])


def all_sum(x: Tensor) -> Tensor:
    """The sum of all processes' x, differentiable as often as one likes."""
    return x if world_size() == 1 else _Sum.apply(x)


def gather_for_all(x: Tensor) -> Tensor:
    """As `gather`, for functions of the whole batch that differ from process to process, such as a mean over one's own rows.

    The gradient is the sum of what all processes' functions ask of one's own rows.
    """
    if world_size() == 1:
        return x
    n = x.shape[0]
    before, after = (x.new_zeros(k * n, *x.shape[1:]) for k in (rank(), world_size() - 1 - rank()))
    return all_sum(torch.cat([before, x, after]))


@torch.no_grad()
def reduce_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Sum gradients over processes, in one message for each dtype."""
    if world_size() == 1:
        return
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for p in parameters:
        if p.grad is not None:
            by_dtype.setdefault(p.grad.dtype, []).append(p.grad)
    for grads in by_dtype.values():
        flat = torch.cat([g.flatten() for g in grads])
        dist.all_reduce(flat)
        for g, total in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            g.copy_(total.view_as(g))


@torch.no_grad()
def same_everywhere(module: nn.Module) -> None:
    """Give every process rank 0's parameters and buffers."""
    if world_size() > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, src=0)


def _host_group() -> Any:
    # Numbers about the run travel between hosts' memories, also where gradients travel between GPUs.
    if dist.get_backend() == "gloo":
        return None
    key = id(dist.group.WORLD)
    if key not in _HOST_GROUPS:
        _HOST_GROUPS[key] = dist.new_group(backend="gloo", timeout=timedelta(hours=2))
    return _HOST_GROUPS[key]


def broadcast(value: T) -> T:
    """Rank 0's value, on every process."""
    if world_size() == 1:
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0, group=_host_group())
    return box[0]


def all_max(values: list[int]) -> list[int]:
    """The largest of all processes' values, one by one."""
    if world_size() == 1:
        return values
    tensor = torch.tensor(values)
    dist.all_reduce(tensor, dist.ReduceOp.MAX, group=_host_group())
    return tensor.tolist()


def gather_objects(value: T) -> list[T]:
    """Every process's value, in the order of ranks, on every process."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group=_host_group())
    return values


def gather_rows(x: Tensor) -> Tensor:
    """All processes' rows of CPU tensors (n_r, f) with n_r of their own, none included, in the order of ranks."""
    if world_size() == 1:
        return x
    shapes = gather_objects(tuple(x.shape))
    longest = max(s[0] for s in shapes)
    tail = next((s[1:] for s in shapes if s[0] > 0), shapes[0][1:])
    padded = x.new_zeros(longest, *tail)
    if len(x):
        padded[: len(x)] = x
    parts = [torch.empty_like(padded) for _ in shapes]
    dist.all_gather(parts, padded, group=_host_group())
    return torch.cat([part[: s[0]] for part, s in zip(parts, shapes, strict=True)])


def shard(n: int) -> tuple[int, int]:
    """First and last (exclusive) of the n samples that this process makes, at borders of blocks of noise."""
    blocks = -(-n // BLOCK)
    start, stop = (min(blocks * r // world_size() * BLOCK, n) for r in (rank(), rank() + 1))
    return start, stop


class _Synchronised(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the batches of all processes, on any device, differentiable twice.

    `nn.SyncBatchNorm` takes GPU tensors only and has no second derivative, which a gradient penalty needs.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        axes = [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        count = x.numel() // x.shape[1] * world_size()
        mean = all_sum(x.sum(axes)) / count
        centred = x - mean.view(shape)
        variance = all_sum(centred.square().sum(axes)) / count
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
                share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)  # type: ignore[arg-type]
                self.running_mean.lerp_(mean.to(self.running_mean), share)
                self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var), share)
        x = centred * (variance.view(shape) + self.eps).rsqrt()
        if self.affine:
            x = x * self.weight.view(shape) + self.bias.view(shape)
        return x.to(input.dtype)


class _BatchNorm1d(_Synchronised, nn.BatchNorm1d):
    pass


class _BatchNorm2d(_Synchronised, nn.BatchNorm2d):
    pass


class _BatchNorm3d(_Synchronised, nn.BatchNorm3d):
    pass


_KINDS = {nn.BatchNorm1d: _BatchNorm1d, nn.BatchNorm2d: _BatchNorm2d, nn.BatchNorm3d: _BatchNorm3d}


def synchronise(*modules: nn.Module) -> None:
    """Replace every batch norm inside modules by one over all processes, with the same parameters and buffers."""
    for module in modules:
        for name, child in module.named_children():
            kind: Any = _KINDS.get(type(child))  # type: ignore[arg-type]
            if kind is None:
                synchronise(child)
            else:
                new = kind.__new__(kind)
                new.__dict__ = child.__dict__
                setattr(module, name, new)
