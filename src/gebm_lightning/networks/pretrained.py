"""Weights trained elsewhere: read as data, no code of theirs is run, and fitted to a network by name or by order."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from ..archive import load_torch
from ..errors import UserError, first_line

MATCHES = ("name", "order")


def _read_npz(path: Path) -> Any:
    with np.load(path, allow_pickle=False) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def _read_torch(path: Path) -> Any:
    try:
        raw = load_torch(path)
    except pickle.UnpicklingError as error:
        # torch's own text would advise to run the code.
        raise ValueError("it is damaged, or holds more than tensors; save a state_dict()") from error
    return raw["state_dict"] if isinstance(raw, dict) and isinstance(raw.get("state_dict"), Mapping) else raw


READERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": safetensors.torch.load_file,
    ".npz": _read_npz,
    ".pt": _read_torch,
    ".pth": _read_torch,
}


def _tensors(tree: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Tensors of nested dicts under dotted names; what else lies among them, such as an epoch, is no weight."""
    if isinstance(tree, Tensor):
        yield path, tree.detach()
    elif isinstance(tree, Mapping):
        for name, part in tree.items():
            yield from _tensors(part, f"{path}.{name}" if path else str(name))


def read_weights(path: str | Path, prefix: str = "", key: str = "weights") -> dict[str, Tensor]:
    """The tensors of a file by name, in its order; of those that begin with `prefix`, which is cut off.

    Args:
        path: safetensors, npz, or a .pt or .pth of tensors only, perhaps under "state_dict" or in nested dicts.
        prefix: such as "generator."; other tensors are passed over.
        key: the config's key, for errors.

    Raises:
        UserError: the file is missing, damaged, of another kind, would run code, or has no such tensor.
    """
    file = Path(path)
    if file.suffix not in READERS:
        raise UserError(f"{key}={file}: weights are read from files that end in {', '.join(READERS)}")
    if not file.is_file():
        raise UserError(f"{key}={file}: there is no such file")
    try:
        tensors = {name: tensor for name, tensor in _tensors(READERS[file.suffix](file)) if name}
    except Exception as error:
        raise UserError(f"{key}={file} cannot be read as weights: {first_line(error)}") from error
    chosen = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if not chosen:
        some = ", ".join(list(tensors)[:4])
        raise UserError(
            f"{key}={file} has no tensor whose name begins with the prefix {prefix!r}: its names are {some} …"
            if tensors
            else f"{key}={file} holds no tensors by name: save a state_dict()"
        )
    for name, tensor in chosen.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError(f"{key}={file}: its tensor {prefix}{name} has numbers that are not finite")
    return chosen


def load_weights(
    network: nn.Module, path: str | Path, prefix: str = "", match: str = "name", key: str = "weights"
) -> None:
    """Put a file's tensors into a network, all or none.

    Args:
        network: what takes them; counters of batch norms (`num_batches_tracked`) may be missing from the file.
        path: of the file, see `read_weights`.
        prefix: cut off the file's names.
        match: "name", or "order": the k-th tensor of the file is the k-th of the network, shapes must agree. A safetensors
            file keeps no order: there both sides are ordered by name, numbers by size.
        key: the config's key, for errors.

    Raises:
        UserError: the file cannot be read, or its tensors are not the network's.
    """
    if match not in MATCHES:
        raise UserError(f"{key.replace('weights', 'match')} must be one of {', '.join(MATCHES)}, not {match!r}")
    given = read_weights(path, prefix, key)
    own = {name: tensor for name, tensor in network.state_dict().items() if isinstance(tensor, Tensor)}
    if match == "order":
        pairs = _in_order(own, given, Path(path).suffix == ".safetensors")
        if pairs is None:
            raise UserError(
                f"{key}={path}: a safetensors file keeps no order, and these names give none; use npz or .pt"
            )
        if len(pairs[0]) != len(pairs[1]):
            raise UserError(f"{key}={path} has {len(pairs[1])} tensors, the network has {len(pairs[0])}")
        wrong = [(a, b) for a, b in zip(*pairs, strict=True) if own[a].shape != given[b].shape]
        state = {a: given[b] for a, b in zip(*pairs, strict=True)}
    else:
        wrong = [(name, name) for name in own if not _is_counter(name) and name not in given]
        wrong += [(name, name) for name in given if name not in own or own[name].shape != given[name].shape]
        state = given
    if wrong:
        a, b = wrong[0]
        pairs = _in_order(own, given, Path(path).suffix == ".safetensors") if match == "name" else None
        fit = pairs is not None and [own[n].shape for n in pairs[0]] == [given[n].shape for n in pairs[1]]
        hint = f"; in order all shapes agree: set {key.replace('weights', 'match')}=order" if fit else ""
        in_file, in_network = (tuple(side[n].shape) if n in side else "missing" for side, n in ((given, b), (own, a)))
        raise UserError(
            f"{key}={path} does not fit the network: {len(wrong)} tensors differ, the first is {b} "
            f"({in_file} in the file, {in_network} in the network){hint}"
        )
    network.load_state_dict(state, strict=False)


def _is_counter(name: str) -> bool:
    return name.split(".")[-1] == "num_batches_tracked"


def _natural(name: str) -> list[tuple[bool, int, str]]:
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"([0-9]+)", name)]


def _in_order(own: dict[str, Tensor], given: dict[str, Tensor], by_name: bool) -> tuple[list[str], list[str]] | None:
    """Names of both sides without counters, as they come or by name; None where names cannot tell the order."""
    if by_name and (_ambiguous(own) or _ambiguous(given)):
        return None
    ours, theirs = ([name for name in side if not _is_counter(name)] for side in (own, given))
    return (sorted(ours, key=_natural), sorted(theirs, key=_natural)) if by_name else (ours, theirs)


def _ambiguous(tensors: dict[str, Tensor]) -> bool:
    """Whether tensors of one kind and shape are told apart by words, whose order may be another than the layers'."""
    for a, b in combinations(tensors, 2):
        if tensors[a].shape == tensors[b].shape and a.split(".")[-1] == b.split(".")[-1]:
            pairs = zip(_natural(a), _natural(b), strict=False)
            left, right = next((pair for pair in pairs if pair[0] != pair[1]), ((False, 0, ""),) * 2)
            if not (left[0] and right[0]):
                return True
    return False
