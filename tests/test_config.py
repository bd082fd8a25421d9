"""Every config composes, every target accepts its keys, and what is read from a run's folder is data, not code."""

import inspect
from pathlib import Path

import gebm_lightning.conf
import hydra
import pytest
import torch
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from gebm_lightning import UserError, build, compose, load
from gebm_lightning.config import FOREIGN, _check_target, instantiate, load_config

CONF = Path(gebm_lightning.conf.__file__).parent
# Those with an underscore are parts of others.
GROUPS = sorted((p.parent.name, p.stem) for p in CONF.glob("*/*.yaml") if not p.stem.startswith("_"))


def targets(node, path=""):
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield path, node
        for key in node:
            yield from targets(node[key], f"{path}.{key}")


def check_signature(path, node):
    found = hydra.utils.get_object(node._target_)
    parameters = inspect.signature(found).parameters
    keys = {str(k) for k in node if not str(k).startswith("_")}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        assert keys <= parameters.keys(), f"{path}: {node._target_} takes no {sorted(keys - parameters.keys())}"
    if not node.get("_partial_"):
        needed = {
            n for n, p in parameters.items() if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        }
        assert needed <= keys, f"{path}: {node._target_} needs {sorted(needed - keys)}"


def test_there_are_groups():
    assert len(GROUPS) > 15


@pytest.mark.parametrize(("group", "name"), GROUPS, ids=lambda v: v)
def test_every_choice_of_every_group_composes(group, name):
    needed = {
        "folder": ["data.root=x"],
        "npz": ["data.path=x"],
        "webdataset": ["data.path=x"],
        "hf": ["data.path=x"],
    }.get(name, [])
    config = "particles" if group == "particles" else "train"
    cfg = compose([f"{group}={name}", *([] if config == "particles" else ["run_dir=/tmp/run"]), *needed], config)
    OmegaConf.resolve(cfg)
    found = list(targets(cfg))
    assert found
    for path, node in found:
        check_signature(path, node)


@pytest.mark.parametrize("config", ["sample", "evaluate", "particles", "export", "report", "dashboard"])
def test_the_other_commands_compose(config):
    cfg = compose(["ckpt=somewhere"] if config in ("sample", "evaluate", "export") else [], config)
    OmegaConf.resolve(cfg)
    for path, node in targets(cfg):
        check_signature(path, node)


@pytest.mark.parametrize("model", ["dcgan", "mlp"])
@pytest.mark.parametrize("size", [8, 16, 32])
def test_shapes_flow_from_data_to_networks(model, size):
    gebm = build(compose([f"model={model}", "model.width=4", f"data.size={size}"]))
    z = torch.zeros(3, 32)
    assert gebm.base(z).shape == (3, 1, size, size) and gebm.energy(gebm.base(z)).shape == (3,)


def test_data_choose_their_features_and_the_command_line_wins():
    assert compose()["features"]._target_.endswith("Digits")
    assert compose(["data=ring"])["features"]._target_.endswith("Identity")
    assert compose(["data=digits", "features=identity"])["features"]._target_.endswith("Identity")
    assert compose(["data=ring", "model=mlp"]).model.base._target_.endswith("MLPBase")


def test_the_documented_command_composes():
    cfg = compose(["model=dcgan", "data=lsun", "trainer.devices=8"])
    OmegaConf.resolve(cfg)
    assert cfg.trainer.devices == 8


def test_unknown_choices_and_keys_are_errors():
    for override in ("model=unknown", "optim.energy.leanring_rate=1", "no_such_key=1"):
        with pytest.raises(HydraException):
            compose([override])


def test_compose_leaves_a_running_hydra_alone():
    with hydra.initialize_config_module("gebm_lightning.conf", version_base="1.3"):
        compose()
        assert hydra.compose("train", ["seed=3"]).seed == 3


def test_the_seed_decides_the_weights():
    a, b, c = (build(compose([f"seed={s}", "model.width=4"])).state_dict() for s in (0, 0, 1))
    torch.manual_seed(5)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["base.layers.0.weight"], c["base.layers.0.weight"])


def test_a_size_that_no_network_is_built_for():
    with pytest.raises(Exception, match="dcgan is not built for"):
        build(compose(["data.size=24"]))


HOSTILE = [
    "os.system",
    "builtins.eval",
    "subprocess.run",
    "torch.load",
    "torch.optim.Adam.load_state_dict",
    "hydra.utils.get_method",
    "gebm_lightning.config.os.system",
    "gebm_lightning.data.toys.torch.load",
    "gebm_lightning.metrics.report.os.replace",
    "gebm_lightning.metrics.report.write_json",
    "gebm_lightning.cli.sample.write_npz",
    "gebm_lightning.networks",
    "gebm_lightning.networks.dcgan.nn.Linear",
    "gebm_lightning",
    "",
    None,
    3,
    ["os.system"],
]


@pytest.mark.parametrize("target", HOSTILE, ids=str)
def test_foreign_targets_of_an_untrusted_config_are_refused(target):
    with pytest.raises(UserError, match="target"):
        instantiate(OmegaConf.create({"a": [{"_target_": target, "_args_": ["true"]}]}), trusted=False)


def test_own_targets_of_an_untrusted_config_are_served():
    cfg = compose(["data=ring", "run_dir=x"])
    for node in (cfg.model, cfg.objective, cfg.sampler, cfg.data, cfg.features):
        instantiate(node, trusted=False)
    for target in FOREIGN:
        _check_target(target)


def test_interpolations_hidden_by_yaml_escapes_are_found(tmp_path):
    text = OmegaConf.to_yaml(compose(["run_dir=x", "logger=csv"]), resolve=True)
    (tmp_path / "config.yaml").write_text(text.replace("name: gebm", 'name: "\\x24{oc.env:HOME}"'))
    assert "x24" in (tmp_path / "config.yaml").read_text()
    with pytest.raises(UserError, match="interpolations"):
        load_config(tmp_path)


def test_folders_that_are_no_runs(tmp_path):
    with pytest.raises(UserError, match="there is no run folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no config\.yaml"):
        load(tmp_path)
    for text, message in [
        ("a: [", "cannot be read as YAML"),
        ("x: 1", "not the config"),
        ("- 1", "not the config"),
        ("", "not the config"),
    ]:
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(UserError, match=message):
            load_config(tmp_path)
    cfg = compose(["run_dir=x"])
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    with pytest.raises(UserError, match="interpolations"):
        load_config(tmp_path)
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    with pytest.raises(UserError, match="no checkpoint"):
        load(tmp_path)


@pytest.mark.parametrize("data", ["cifar10", "lsun", "celeba", "imagenet32"])
@pytest.mark.parametrize("model", ["sngan", "resnet"])
def test_the_papers_image_runs_have_its_settings(data, model):
    cfg = compose([f"experiment={data}_{model}"])
    OmegaConf.resolve(cfg)
    assert (cfg.name, tuple(cfg.data.shape), cfg.data.batch_size, cfg.data.flip) == (
        f"{data}_{model}",
        (3, 32, 32),
        128,
        False,
    )
    assert (cfg.model.latent_dim, cfg.model.energy_floor, cfg.trainer.max_base_updates) == (100, -10.0, 150_000)
    for player in (cfg.optim.energy, cfg.optim.base):
        assert (player._target_, player.lr, list(player.betas)) == ("torch.optim.Adam", 1e-4, [0.5, 0.999])
    assert cfg.optim.energy_scheduler is cfg.optim.base_scheduler is cfg.callbacks.ema is None
    assert cfg.objective.penalties.gradient.weight == 1.0 and cfg.energy_schedule._target_.endswith("PaperSchedule")
    assert (cfg.sampler.beta, cfg.sampler.num_steps, cfg.sampler.kernel.step_size, cfg.sampler.kernel.friction) == (
        100,
        1000,
        1e-4,
        100,
    )
    assert (cfg.sampler.schedule.factor, cfg.sampler.schedule.every) == (0.1, 200)
    reduce = cfg.callbacks.reduce_lr
    assert (reduce.every_n_base_updates, reduce.lag, reduce.patience, reduce.threshold, reduce.factor) == (
        2000,
        10,
        3,
        0.1,
        0.8,
    )
    assert cfg.callbacks.evaluation.every_n_base_updates == 2000
