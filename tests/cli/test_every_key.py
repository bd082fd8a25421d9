"""Every key of every config, of another type, out of range, null, or missing: one sentence before training, or it trains."""

import copy
import math
import warnings

import pytest
import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf

from gebm_lightning import compose
from gebm_lightning.cli import evaluate, export, particles, sample, train
from gebm_lightning.cli.command import expected_error
from gebm_lightning.cli.fit import fit

SMALL = ["trainer.accelerator=cpu", "trainer.max_base_updates=1", "callbacks.evaluation.num_samples=64"]
TOY = ["data=ring", "data.source.num_train=300"]
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
}
WRONG = {"abc": "abc", "-1": -1, "nan": math.nan, "1e30": 1e30, "null": None, "[]": [], "{}": {}, "true": True}


class Reached(Exception):
    """Training would begin now."""


def leaves(cfg, path=()):
    """(path, value) of everything that is no dict; lists count as a whole, unresolved interpolations not."""
    for key in cfg:
        if isinstance(cfg._get_node(key), DictConfig) and not cfg._get_node(key)._is_none():
            yield from leaves(cfg[key], (*path, key))
        elif not OmegaConf.is_interpolation(cfg, key) and not OmegaConf.is_missing(cfg, key):
            yield (*path, key), cfg[key]


def target_of(cfg, path):
    """What a key belongs to: the nearest _target_ above it, and the way from there."""
    for depth in range(len(path) - 1, 0, -1):
        node = cfg
        for part in path[:depth]:
            node = node[part]
        if "_target_" in node:
            return node["_target_"], path[depth:]
    return "", path


SEEN = {}
SKIPPED = {"_target_", "_partial_", "_convert_"}
# What a run needs no value of, or does not look at.
FREE = {"name", "debug", "sweep_objective", "resume", "run_dir"}


def cases(name):
    """This variant's keys that no variant before it has."""
    cfg = compose([*SMALL, *VARIANTS[name]])
    found = []
    for path, value in leaves(cfg):
        key = target_of(cfg, path)
        if path[-1] not in SKIPPED and path[0] not in FREE and SEEN.setdefault(key, name) == name:
            found.append((path, value))
    return cfg, found


def outcome(cfg, folder):
    """The sentence that a config ends in, or "" where it would train; a defect comes through."""
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


def changed(cfg, path, value):
    cfg = copy.deepcopy(cfg)
    OmegaConf.set_struct(cfg, False)
    *above, key = path
    node = cfg
    for part in above:
        node = node[part]
    if value is ...:
        del node[key]
    else:
        node[key] = value
    return cfg


@pytest.fixture
def no_training(monkeypatch):
    def reached(*_, **__):
        raise Reached

    monkeypatch.setattr(pl.Trainer, "fit", reached)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_every_key(name, tmp_path, no_training):
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
            elif told == "" and kind in ("abc", "[]", "{}") and isinstance(value, (int, float)):
                wrong.append(f"{'.'.join(path)}={kind} would train")
            if (tmp_path / "run").exists():
                wrong.append(f"{'.'.join(path)}={kind} leaves a folder behind")
                break
    assert not wrong, "\n".join(wrong)


COMMANDS = {
    sample: ["num_samples=8"],
    evaluate: [
        *("num_samples=64", "max_real=64", "compare=[base,sir]", "methods.sir.pool=128"),
        *("scores.kid_subsets=2", "scores.kid_subset_size=16", "scores.prc_samples=64"),
    ],
    particles: ["num_steps=2", "num_particles=20", "target.num=20", "animation=null", "frames=2"],
    export: ["program=false"],
}
# Groups, and keys that are neither read nor written without another one; those of methods are the samplers', tried elsewhere.
GROUPS = {"objective", "model", "features", "data", "sampler", "methods", "debug"}


@pytest.fixture
def toy(command, smoke):
    """A finished run on points."""
    status, out, err = command(train, "data=ring", *smoke, "callbacks.evaluation=null", "callbacks.sampling=null")
    assert status == 0, err
    return out.strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("module", COMMANDS, ids=lambda m: m.__name__.rsplit(".", 1)[-1])
def test_every_key_of_a_command(module, command, toy, tmp_path):
    name = module.__name__.rsplit(".", 1)[-1]
    given = [] if module is particles else [f"ckpt={toy}"]
    status, _, err = command(module, *given, *COMMANDS[module])
    assert status == 0, err
    wrong = []
    for path, value in leaves(compose([], name)):
        key = ".".join(path)
        if path[0] in GROUPS or path[-1] in SKIPPED:
            continue
        for kind in [*WRONG, "missing"]:
            argument = f"~{key}" if kind == "missing" else f"{key}={kind}"
            others = [a for a in [*given, *COMMANDS[module]] if not a.startswith(f"{key}=")]
            if kind == "missing" and len(others) < len(given) + len(COMMANDS[module]):
                continue
            try:
                status, _, err = command(
                    module, *others, argument, *([] if key == "out" else [f"out={tmp_path}/{key}-{kind}"])
                )
            except Exception as error:
                wrong.append(f"{argument}: {type(error).__name__}: {str(error).splitlines()[:1]}")
                continue
            lines = [line for line in err.splitlines() if line.startswith("error: ")]
            if status not in (0, 1) or (status == 1) != (len(lines) == 1):
                wrong.append(f"{argument}: status {status}: {err[-200:]}")
            if status == 0 and kind in ("abc", "[]", "{}") and isinstance(value, int | float):
                wrong.append(f"{argument} was accepted")
            if status == 1 and (tmp_path / f"{key}-{kind}").exists():
                wrong.append(f"{argument} left something half-written")
    assert not wrong, "\n".join(wrong)
