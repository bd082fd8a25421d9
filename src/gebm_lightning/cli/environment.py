"""What of a config is nobody else's business: what the environment decides, and what follows from hidden keys."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.resolvers import oc

from ..errors import UserError
from .launch import process_rank

HIDDEN = "gebm.hidden"


def hide_environment(cfg: DictConfig) -> None:
    """Add the keys that come from the environment, or from keys hidden already, to the `hide` of every logger that has one.

    In the config, because the run's `config.yaml` holds values only: a resumed run could not tell any more.

    Raises:
        UserError: a `hide` is no list of keys.
    """
    loggers = [node for node in cfg.logger.values() if OmegaConf.is_dict(node) and "hide" in node]
    if not loggers:
        return
    for node in loggers:
        if not OmegaConf.is_list(node.hide) or not all(isinstance(key, str) for key in node.hide):
            raise UserError(f"a logger's hide must be a list of the config's keys, not {node.hide!r}")
    found = keys_from_environment(cfg)
    with open_dict(cfg):
        for node in loggers:
            node.hide = sorted({*node.hide, *found, *keys_from(cfg, list(node.hide))})


def without_hidden(cfg: DictConfig) -> DictConfig:
    """A copy of a run's config in which the texts under the `hide` of its loggers are `hidden`.

    Those of model and objective stay, since without them nothing could be built.
    """
    shown = copy.deepcopy(cfg)
    for node in cfg.logger.values():
        hide: Any = node.get("hide") if OmegaConf.is_dict(node) else None
        for key in hide if OmegaConf.is_list(hide) else []:
            for leaf, value in _leaves(cfg, str(key)):
                if leaf.split(".")[0] in ("model", "objective"):
                    continue
                if isinstance(value, str) or (OmegaConf.is_list(value) and any(isinstance(v, str) for v in value)):
                    OmegaConf.update(shown, leaf, "hidden", merge=False)
    return shown


def keys_from_environment(cfg: DictConfig) -> list[str]:
    """Dotted keys of all leaves whose value an environment variable decides, itself or through other keys; a list is one leaf."""
    try:
        return _keys_that_call("oc.env", oc.env, cfg)
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def keys_from(cfg: DictConfig, keys: list[str]) -> list[str]:
    """Dotted keys of all leaves whose value one of `keys`, or what is under it, decides; those themselves among them."""
    traced = copy.deepcopy(cfg)
    values: list[Any] = []
    for key in keys:
        leaves = list(_leaves(cfg, key))
        if not leaves and process_rank() == 0:
            print(f"note: a logger's hide names {key}, which the config has not", file=sys.stderr)
        for leaf, value in leaves:
            OmegaConf.update(traced, leaf, f"${{{HIDDEN}:{len(values)}}}", merge=False)
            values.append(value)
    try:
        return _keys_that_call(HIDDEN, values.__getitem__, traced)
    finally:
        OmegaConf.clear_resolver(HIDDEN)


def _leaves(cfg: DictConfig, key: str) -> Iterator[tuple[str, Any]]:
    *above, last = key.split(".")
    parent: Any = OmegaConf.select(cfg, ".".join(above)) if above else cfg
    if not OmegaConf.is_dict(parent) or last not in parent or OmegaConf.is_missing(parent, last):
        return
    value = parent[last]
    if OmegaConf.is_dict(value) and not OmegaConf.is_interpolation(parent, last):
        for inner in value:
            yield from _leaves(cfg, f"{key}.{inner}")
    else:
        yield key, value


def _keys_that_call(resolver: str, function: Callable[..., Any], cfg: DictConfig) -> list[str]:
    calls: list[str] = []
    found: list[str] = []

    def recording(*arguments: Any) -> Any:
        calls.append(str(arguments[0]))
        return function(*arguments)

    def walk(prefix: str, node: DictConfig) -> None:
        for key in node:
            if OmegaConf.is_missing(node, key):
                continue
            name = prefix + str(key)
            calls.clear()
            value = node[key]
            if isinstance(value, ListConfig):
                OmegaConf.to_container(value, resolve=True)
            if calls:
                found.append(name)
            elif isinstance(value, DictConfig):
                walk(f"{name}.", value)

    OmegaConf.register_new_resolver(resolver, recording, replace=True)
    walk("", cfg)
    return found
