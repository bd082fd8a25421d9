"""Every key of every config, of another type, out of range, null, or missing: one sentence before training, or it trains."""

import copy
import socket
import warnings

import pytest
import pytorch_lightning as pl
from every_key import SKIPPED, SOURCES, WRONG, changed, leaves, nonsense, target_of, write_sources

from gebm_lightning import UserError, compose
from gebm_lightning.cli.command import expected_error
from gebm_lightning.cli.fit import fit
from gebm_lightning.config import instantiate
from gebm_lightning.data.datamodule import SETTINGS

SMALL = ["trainer.accelerator=cpu", "trainer.max_base_updates=1", "callbacks.evaluation.num_samples=64"]
TOY = ["data=ring", "data.source.num_train=300"]
DATA_ONLY = ["features=identity", "callbacks.evaluation=null", "callbacks.sampling=null", "callbacks.calibration=null"]
OBJECTIVES = (
    *("donsker_varadhan", "fgan_kl", "fgan_pearson", "hinge", "least_squares", "logistic", "mmd", "scaled_mmd"),
    "wasserstein",
)
WITH_DENSITY = ("contrastive_divergence", "nce", "score_matching", "maximum_likelihood")
SAMPLERS = (
    *("base", "sir", "ais", "kla", "mala", "hmc", "rwm", "imh", "tempering", "dgflow", "dot", "mhgan", "drs", "ddls"),
    *("calibrated", "cold", "wander", "means"),
)
VARIANTS = {
    "default": ["model.width=4"],
    **{f"objective={name}": [*TOY, f"objective={name}"] for name in OBJECTIVES},
    **{f"objective={name}": [*TOY, "model=flow_realnvp", f"objective={name}"] for name in WITH_DENSITY},
    **{f"sampler={name}": [*TOY, f"sampler={name}"] for name in SAMPLERS},
    "sngan": ["model=sngan", "model.width=4", "callbacks=finish_log_partition", "energy_schedule=paper"],
    "vae": ["experiment=vaebm_digits_vae", "model.width=4"],
    "flow": ["experiment=uci_kale_f"],
    "ebm": ["experiment=jem_digits", "model.width=4"],
    "line": ["experiment=line"],
    "flower": ["experiment=flower"],
    "reduction": ["experiment=ebm_reduction"],
    "grid": ["data=gaussian_grid"],
    "swiss roll": ["data=swiss_roll"],
    "wandb": [*TOY, "logger=wandb", "logger.offline=true"],
    **{name: [*overrides, "model.width=4", *DATA_ONLY] for name, overrides in SOURCES.items()},
}


class Reached(Exception):
    """Training would begin now."""


SEEN = {}
# What a run needs no value of, or does not look at.
FREE = {"name", "debug", "sweep_objective", "resume", "run_dir"}


def cases(name):
    """This variant's keys that no variant before it has."""
    cfg = compose([*SMALL, *VARIANTS[name]])
    found = []
    for path, value in leaves(cfg):
        key = target_of(cfg, path)
        if path[0] == "data" and path[1] in SETTINGS:
            key = (cfg.data.source._target_, path)  # which hands it on to the source
        if path[-1] not in SKIPPED and path[0] not in FREE and SEEN.setdefault(key, name) == name:
            found.append((path, value))
    return cfg, found


def outcome(cfg, folder):
    """The sentence that a config ends in, or "" where it would train; a defect comes through."""
    cfg = copy.deepcopy(cfg)  # since it is resolved when it is used
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cfg.run_dir = str(folder)
            fit(cfg, folder)
    except Exception as error:
        if isinstance(error, Reached):
            return ""
        sentence = expected_error(error)
        if sentence is None:
            return error
        assert sentence and "\n" not in sentence
        return sentence


@pytest.fixture
def no_training(monkeypatch):
    def reached(*_, **__):
        raise Reached

    monkeypatch.setattr(pl.Trainer, "fit", reached)


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Data in files, where the overrides of `SOURCES` look for them."""
    monkeypatch.chdir(tmp_path)
    write_sources(tmp_path)


@pytest.fixture
def wandb_checks(monkeypatch):
    """wandb checks its settings, and starts nothing; nothing may be connected to."""
    wandb = pytest.importorskip("wandb")
    init = wandb.init

    def refuse(*_):
        raise AssertionError("a network was asked for")

    monkeypatch.setenv("WANDB_MODE", "offline")  # which Lightning's logger sets, and nobody else sets back
    monkeypatch.setattr(wandb, "init", lambda **settings: init(**settings | {"mode": "disabled"}))
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_every_key(name, tmp_path, no_training, request):
    if name in ("wandb", *SOURCES):
        request.getfixturevalue("wandb_checks" if name == "wandb" else "sources")
    cfg, found = cases(name)
    assert outcome(cfg, tmp_path / "as it is") == ""
    wrong = []
    for path, value in found:
        for kind, new in {**WRONG, "missing": ...}.items():
            try:
                other = changed(cfg, path, new)
            except Exception as error:
                assert expected_error(error), (path, kind, error)
                continue
            told = outcome(other, tmp_path / "run")
            if isinstance(told, Exception):
                wrong.append(f"{'.'.join(path)}={kind}: {type(told).__name__}: {str(told).splitlines()[:1]}")
            elif told == "" and nonsense(kind, value):
                wrong.append(f"{'.'.join(path)}={kind} would train")
            if (tmp_path / "run").exists():
                wrong.append(f"{'.'.join(path)}={kind} leaves a folder behind")
                break
    assert not wrong, "\n".join(wrong)


def served(cfg):
    data = instantiate(cfg.data)
    for split in ("train", "val", "test"):
        data.dataset(split).__getitems__(data.order(split, 0, 2).tolist())


@pytest.mark.parametrize("name", SOURCES)
def test_every_key_of_a_source(name, sources):
    """Without a model, which would refuse a shape before the source is asked."""
    cfg = compose(SOURCES[name])
    served(copy.deepcopy(cfg))
    wrong = []
    for path, value in leaves(cfg):
        if path[0] != "data" or path[-1] in SKIPPED or path[1] not in (*SETTINGS, "source"):
            continue
        for kind, new in WRONG.items():
            try:
                served(changed(cfg, path, new))
            except Exception as error:
                if not isinstance(error, UserError) or "\n" in str(error):
                    wrong.append(f"{'.'.join(path)}={kind}: {type(error).__name__}: {error}")
            else:
                if nonsense(kind, value):
                    wrong.append(f"{'.'.join(path)}={kind} is accepted")
    assert not wrong, "\n".join(wrong)
