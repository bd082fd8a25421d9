"""What of a config was taken from the environment, and so is nobody else's business."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.resolvers import oc

from ..errors import UserError


def hide_environment(cfg: DictConfig) -> None:
    """Add the keys that come from the environment to the `hide` of every logger that has one.

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
            node.hide = sorted({*node.hide, *found})


def keys_from_environment(cfg: DictConfig) -> list[str]:
    """Dotted keys of all leaves whose value an environment variable decides, itself or through other keys; a list is one leaf."""
    reads: list[str] = []
    found: list[str] = []

    def recording(*arguments: Any) -> Any:
        reads.append(str(arguments[0]))
        return oc.env(*arguments)

    def walk(prefix: str, node: DictConfig) -> None:
        for key in node:
            if OmegaConf.is_missing(node, key):
                continue
            name = prefix + str(key)
            reads.clear()
            value = node[key]
            if isinstance(value, ListConfig):
                OmegaConf.to_container(value, resolve=True)
            if reads:
                found.append(name)
            elif isinstance(value, DictConfig):
                walk(f"{name}.", value)

    OmegaConf.register_new_resolver("oc.env", recording, replace=True)
    try:
        walk("", cfg)
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
    return found
