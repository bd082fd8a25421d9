"""What of a config is nobody else's business: what the environment decides, and what follows from hidden keys."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.resolvers import oc

from ..errors import UserError
from ..hidden import leaves_of
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
        leaves = list(leaves_of(cfg, key))
        if not leaves and process_rank() == 0:
            print(f"note: a logger's hide names {key}, which the config has not", file=sys.stderr)
        for leaf, value in leaves:
            OmegaConf.update(traced, leaf, f"${{{HIDDEN}:{len(values)}}}", merge=False)
            values.append(value)
    try:
        return _keys_that_call(HIDDEN, values.__getitem__, traced)
    finally:
        OmegaConf.clear_resolver(HIDDEN)


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
