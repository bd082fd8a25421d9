"""What makes a network from a config: "package.module:callable" with keyword arguments, and which of them may be called."""

from __future__ import annotations

import importlib
import inspect
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from ..errors import UserError, check_number, first_line
from .activations import LeakyReLU

OWN = "gebm_lightning.networks"
BUILDER = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
FINAL: dict[str | None, Callable[[], nn.Module]] = {None: nn.Identity, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


def mlp(sizes: Sequence[int], slope: float = 0.2, final: str | None = None) -> nn.Sequential:
    """Linear layers of `sizes`, with leaky ReLUs between and `final` ("tanh", "sigmoid" or None) at the end.

    Its tensors are named 0.weight, 0.bias, 2.weight, 2.bias …

    Raises:
        UserError: fewer than two sizes, or an unknown `final`.
    """
    for size in sizes:
        check_number("a size of mlp", size, low=1, integer=True)
    if len(sizes) < 2 or final not in FINAL:
        raise UserError(f"mlp takes two or more sizes and final=tanh, sigmoid or null, not {list(sizes)} and {final!r}")
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), LeakyReLU(slope)]
    layers[-1] = FINAL[final]()
    return nn.Sequential(*layers)


def build_network(builder: str | Callable[..., Any] | None, arguments: Mapping[str, Any] | None, key: str) -> nn.Module:
    """`builder(**arguments)`, a module; a text "package.module:callable" is imported.

    Raises:
        UserError: there is no such callable, it fails, or it returns something else.
    """
    if builder is None:
        raise UserError(f"{key}.builder is not set: name what builds the network as package.module:callable")
    make: Any = builder
    if isinstance(builder, str):
        if not BUILDER.fullmatch(builder):
            raise UserError(f"{key}.builder={builder}: a builder is written package.module:callable")
        module, name = builder.split(":")
        try:
            make = getattr(importlib.import_module(module), name, None)
        except Exception as error:
            raise UserError(
                f"{key}.builder={builder} cannot be imported: {first_line(error)}; is its folder in PYTHONPATH?"
            ) from error
    if not callable(make):
        raise UserError(f"{key}.builder={builder}: there is no callable of this name")
    try:
        network = make(**(arguments or {}))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{key}.builder={builder} fails with {key}.arguments: {first_line(error)}") from error
    if not isinstance(network, nn.Module):
        raise UserError(f"{key}.builder={builder} must return a torch.nn.Module, not a {type(network).__name__}")
    return network


def _within(module: str, packages: Sequence[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def check_builder(builder: Any, trust: tuple[str, ...] = ()) -> None:
    """Let pass networks of this package and of torch.nn, and what is defined in a module of `trust`; import no others.

    Args:
        builder: as a config read from a file names it; None passes.
        trust: modules, or packages with all their modules.

    Raises:
        UserError: it is anything else.
    """
    if builder is None:
        return
    refusal = UserError(
        f"the run's config names the builder {builder!r}, which is not gebm_lightning's own or trusted: it is not run; "
        "if you know its module, name that in trust"
    )
    if not isinstance(builder, str) or not BUILDER.fullmatch(builder):
        raise refusal
    module, name = builder.split(":")
    dunder = any(part.startswith("__") for part in (*module.split("."), name))
    if dunder or not (module == "torch.nn" or _within(module, (OWN, *trust))):
        raise refusal
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"the run's config names the builder {builder!r}, which is not there") from error
    # An imported name may be somebody else's: where it was defined decides.
    home = getattr(found, "__module__", None) or ""
    network = inspect.isclass(found) and issubclass(found, nn.Module) and _within(home, (OWN, "torch.nn.modules"))
    if not (network or found is mlp or (callable(found) and _within(home, trust))):
        raise refusal
