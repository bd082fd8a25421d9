"""A config as others may see it: what its loggers hide is not in it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf


def without_hidden(cfg: DictConfig) -> DictConfig:
    """A copy of a run's config in which the texts under the `hide` of its loggers are `hidden`.

    Those of model and objective stay, since without them nothing could be built.
    """
    shown = copy.deepcopy(cfg)
    for node in cfg.logger.values():
        hide: Any = node.get("hide") if OmegaConf.is_dict(node) else None
        for key in hide if OmegaConf.is_list(hide) else []:
            for leaf, value in leaves_of(cfg, str(key)):
                if leaf.split(".")[0] in ("model", "objective"):
                    continue
                if isinstance(value, str) or (OmegaConf.is_list(value) and any(isinstance(v, str) for v in value)):
                    OmegaConf.update(shown, leaf, "hidden", merge=False)
    return shown


def leaves_of(cfg: DictConfig, key: str) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of all leaves at or under a key; none where the config has it not."""
    *above, last = key.split(".")
    parent: Any = OmegaConf.select(cfg, ".".join(above)) if above else cfg
    if not OmegaConf.is_dict(parent) or last not in parent or OmegaConf.is_missing(parent, last):
        return
    value = parent[last]
    if OmegaConf.is_dict(value) and not OmegaConf.is_interpolation(parent, last):
        for inner in value:
            yield from leaves_of(cfg, f"{key}.{inner}")
    else:
        yield key, value
