"""Configs: composed by Hydra, instantiated with care, turned into models, and read back from a run's folder."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, Node, OmegaConf

from .errors import UserError, check_number, first_line

if TYPE_CHECKING:
    from .gebm import GEBM

CONFIG_MODULE = "gebm_lightning.conf"
PACKAGE = "gebm_lightning"
ROOMS = (
    "networks",
    "objectives",
    "priors",
    "samplers",
    "divergences",
    "transports",
    "data",
    "metrics",
    "callbacks",
    "lightning",
)
FUNCTION_HOMES = ("gebm_lightning.data.toys", "gebm_lightning.lightning.trainer")
FOREIGN = (
    *(f"torch.optim.{name}" for name in ("Adam", "AdamW", "SGD", "RMSprop")),
    *(
        f"torch.optim.lr_scheduler.{name}"
        for name in ("LinearLR", "CosineAnnealingLR", "StepLR", "MultiStepLR", "ExponentialLR")
    ),
    *(f"torchvision.datasets.{name}" for name in ("MNIST", "FashionMNIST", "CIFAR10")),
    *(f"pytorch_lightning.loggers.{name}" for name in ("WandbLogger", "TensorBoardLogger")),
    *(f"zuko.flows.{name}" for name in ("NSF", "MAF", "RealNVP", "NICE")),
)


def compose(overrides: list[str] | None = None, config: str = "train") -> DictConfig:
    """Hydra's composition from Python: `compose(["model=mlp", "data=ring"])`.

    Raises:
        hydra.errors.HydraException: an override names no config or key.
    """
    from .cli.schema import register

    register()
    state = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_module(CONFIG_MODULE, version_base="1.3"):
            return hydra.compose(config, overrides or [])
    finally:
        GlobalHydra.instance().clear()
        if state is not None:
            GlobalHydra.instance().initialize(state)


def instantiate(node: Any, trusted: bool = True, trust: tuple[str, ...] = (), **kwargs: Any) -> Any:
    """Hydra's instantiation, with plain lists and dicts.

    Args:
        node: a config with `_target_`s; None stays None.
        trusted: False for a config that was read from a file: then only this package's classes, its toy laws
            and `make_trainer`, and the named optimisers, schedules, loggers and flows are called; and of the builders of
            external networks those of this package and torch.nn's classes.
        trust: modules and packages whose own classes and functions an untrusted config may name besides.

    Raises:
        UserError: an untrusted config names any other target or builder; or the target itself raises one.
    """
    if node is None:
        return None
    if not trusted:
        from .networks.builders import check_builder

        for target in _values(node, "_target_"):
            _check_target(target, trust)
        for builder in _values(node, "builder"):
            check_builder(builder, trust)
        if "wandb" not in trust and next(_values(node, "settings"), None) is not None:
            raise UserError(
                "the run's config has settings of wandb's own, which may send your account's key to any address: they are "
                "not used; delete them there, or say trust=[wandb]"
            )
    if OmegaConf.is_config(node):
        _check_flags(OmegaConf.to_container(node, resolve=True), str(node._get_full_key("")).strip("."))
    try:
        return hydra.utils.instantiate(node, _convert_="all", **kwargs)
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            mistake = error.__cause__
        elif trusted:
            raise
        else:
            mistake = UserError(f"the run's config cannot be used: {' '.join(str(error).split())}")
    raise mistake


def _values(node: Any, key: str) -> Iterator[Any]:
    """What stands under `key` anywhere in a config."""
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    if isinstance(plain, dict):
        if key in plain:
            yield plain[key]
        for value in plain.values():
            yield from _values(value, key)
    elif isinstance(plain, list):
        for value in plain:
            yield from _values(value, key)


def _check_flags(plain: Any, place: str) -> None:
    """Raise a UserError for a word or a list where one of our targets wants true or false: it would be taken for true."""
    if isinstance(plain, list):
        for i, part in enumerate(plain):
            _check_flags(part, f"{place}[{i}]")
    if not isinstance(plain, dict):
        return
    target = str(plain.get("_target_", ""))
    parameters: Mapping[str, inspect.Parameter] = {}
    if target.startswith(f"{PACKAGE}."):
        # A target that is not there is Hydra's to tell of.
        with suppress(ImportError):
            parameters = inspect.signature(hydra.utils.get_object(target)).parameters
    flags = {key for key, parameter in parameters.items() if parameter.annotation in ("bool", bool)}
    for key, value in plain.items():
        name = f"{place}.{key}" if place else str(key)
        if key in flags and not isinstance(value, bool):
            raise UserError(f"{name} must be true or false, not {value!r}")
        _check_flags(value, name)


def _check_target(target: Any, trust: tuple[str, ...] = ()) -> None:
    if target in FOREIGN:
        return
    if isinstance(target, str) and any(target.startswith(f"{package}.") for package in trust):
        from .networks.builders import check_builder

        check_builder(":".join(target.rsplit(".", 1)), trust)
        return
    refusal = UserError(
        f"the run's config names the target {target!r}, which is not one of {PACKAGE}'s own: it is not run"
    )
    parts = str(target).split(".")
    if len(parts) < 3 or parts[0] != PACKAGE or parts[1] not in ROOMS or any(not p or p.startswith("_") for p in parts):
        raise refusal
    try:
        found = hydra.utils.get_object(str(target))
    except ImportError as error:
        raise UserError(
            f"the run's config names the target {target!r}, which this version of {PACKAGE} lacks"
        ) from error
    home = getattr(found, "__module__", None) or ""
    # A module attribute may be somebody else's function under our name: where it was defined decides.
    own = home.split(".")[0] == PACKAGE and len(home.split(".")) > 1 and home.split(".")[1] in ROOMS
    if not own or not (inspect.isclass(found) or home in FUNCTION_HOMES):
        raise refusal


def build(cfg: DictConfig, trusted: bool = True, trust: tuple[str, ...] = ()) -> GEBM:
    """A fresh model from a config: networks initialised from `cfg.seed`, the energy finished by the objective.

    Raises:
        UserError: the config asks for what no network here is built for.
    """
    return build_parts(cfg, trusted, trust)[0]


def build_parts(cfg: DictConfig, trusted: bool = True, trust: tuple[str, ...] = ()) -> tuple[GEBM, Any, Any]:
    """`(gebm, critic, objective)`: the model, and what its training needs besides.

    Weights files that an untrusted config names are not read: a checkpoint holds the weights.
    """
    import torch

    from .gebm import GEBM
    from .networks import Clipped, FlowEnergy
    from .noise import stable_seed

    num_classes = cfg.model.num_classes
    if num_classes is not None:
        check_number("model.num_classes", num_classes, low=2, integer=True)

    def part(node: DictConfig) -> Any:
        unread = not trusted and OmegaConf.is_dict(node) and "weights" in node
        return instantiate(node, trusted, trust, **({"weights": False} if unread else {}))

    objective = instantiate(cfg.objective, trusted, trust)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stable_seed(cfg.seed, "networks"))
        base, critic, prior = part(cfg.model.base), part(cfg.model.energy), part(cfg.model.prior)
        if isinstance(critic, FlowEnergy):
            critic.attach(base, prior)
        if cfg.model.energy_floor is not None:
            critic = Clipped(critic, cfg.model.energy_floor)
        gebm = GEBM(base, objective.make_energy(critic), prior, num_classes=num_classes)
    return gebm, critic, objective


def load_config(run_dir: str | Path) -> DictConfig:
    """The resolved config of a run's folder; nothing in it is run by this.

    Raises:
        UserError: there is no such folder or config, or it is no config of a run.
    """
    folder = Path(run_dir)
    if folder.suffix == ".ckpt":
        folder = folder.parent.parent
    path = folder / "config.yaml"
    if not folder.is_dir():
        raise UserError(f"there is no run folder {folder}: give the folder that training printed last")
    if not path.is_file():
        raise UserError(f"{folder} is no run folder: it has no config.yaml")
    try:
        cfg = OmegaConf.load(path)
    except Exception as error:
        raise UserError(f"{path} cannot be read as YAML: {first_line(error)}") from error
    parts = ("model", "objective", "data", "features", "sampler", "optim", "callbacks", "logger", "trainer")
    if (
        not isinstance(cfg, DictConfig)
        or not all(isinstance(cfg._get_node(part), DictConfig) for part in parts)
        or not isinstance(cfg._get_node("seed"), Node)
    ):
        raise UserError(f"{path} is not the config of a training run")
    if _has_interpolation(OmegaConf.to_container(cfg, resolve=False)):
        raise UserError(f"{path} has interpolations, which a run's resolved config never has: it is not read")
    return cfg


def _has_interpolation(plain: Any) -> bool:
    if isinstance(plain, dict):
        return any(_has_interpolation(part) for pair in plain.items() for part in pair)
    if isinstance(plain, list):
        return any(_has_interpolation(part) for part in plain)
    return isinstance(plain, str) and "${" in plain


def load(run_dir: str | Path, ema: bool = True, trust: tuple[str, ...] = ()) -> GEBM:
    """The trained model of a run's folder (or of one checkpoint file in it, or of an exported folder), in eval mode on the CPU.

    With `ema` the base is the averaged one where the run kept one. The energy was trained against the raw base, so log Z
    is then estimated again, on 4,096 samples of the averaged one; likewise for objectives that learn no c. `trust` names
    modules of other people's whose networks the run was trained with (`model=external`); no others are imported.

    Raises:
        UserError: no run, no checkpoint, or one of another model.
    """
    from .export import is_exported, load_exported
    from .lightning.checkpoint import read_checkpoint, restore

    if is_exported(run_dir):
        return load_exported(run_dir, ema, trust)
    cfg = load_config(run_dir)
    gebm, _, objective = build_parts(cfg, trusted=False, trust=trust)
    averaged = restore(gebm, read_checkpoint(run_dir), ema)
    gebm.eval()
    if averaged or not objective.learns_log_partition:
        import torch

        from .gebm import estimate_log_partition
        from .noise import BlockNoise

        with torch.no_grad():
            gebm.log_partition.copy_(estimate_log_partition(gebm, BlockNoise(cfg.seed, stream="load")))
    return gebm
