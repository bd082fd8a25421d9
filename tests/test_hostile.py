"""Builders of networks in a config that was read from a file: ours, torch.nn's and trusted ones, and no others."""

import sys

import pytest
import torch
from omegaconf import OmegaConf

from gebm_lightning import UserError
from gebm_lightning.config import instantiate

EXTERNAL = "gebm_lightning.networks.ExternalBase"
HOSTILE = [
    "os:system",
    "builtins:eval",
    "subprocess:run",
    "posix:system",
    "torch:load",
    "torch.hub:load",
    "torch.nn:os.system",
    "torch.nn:modules",
    "torch.nn:Parameter",
    "torch.nn:functional",
    "torch.nn:factory_kwargs",
    "torch.nn.modules.os:system",
    "torch.nn.modules.module:Path",
    "torch.nn.modules.module:warnings",
    "torch.nn.utils:parametrize",
    "torch.nn:__builtins__",
    "torch.nn:__loader__",
    "torch.nn:Module.__init__",
    "torch.nn.Linear",
    "torch.nn:Linear:Linear",
    "torch.nn:Linear\n",
    " torch.nn:Linear",
    "torch..nn:Linear",
    ":Linear",
    "torch.nn:",
    "torch.nnx:Linear",
    "torch.optim:Adam",
    "hydra.utils:get_method",
    "hydra.utils:instantiate",
    "gebm_lightning.config:instantiate",
    "gebm_lightning.networks.builders:importlib",
    "gebm_lightning.networks.builders:build_network",
    "gebm_lightning.networks.pretrained:load_weights",
    "gebm_lightning.networks.pretrained:Path",
    "gebm_lightning.networks.pretrained:_read_torch",
    "gebm_lightning.networks.blocks:spectral_norm",
    "gebm_lightning.networks.external:GEBM",
    "gebm_lightning.networks.nothing:Network",
    "gebm_lightning.networks2:MLPBase",
    "gebm_lightning:build",
    "own_nets:make",
    "",
    3,
    ["os:system"],
    {"os": "system"},
]


def refused(node, match="builder", **kwargs):
    with pytest.raises(UserError, match=match):
        instantiate(OmegaConf.create(node), trusted=False, **kwargs)


@pytest.mark.parametrize("builder", HOSTILE, ids=repr)
def test_foreign_builders_of_an_untrusted_config_are_refused(builder):
    node = {"_target_": EXTERNAL, "builder": builder, "weights": False, "arguments": {"command": "true"}}
    refused(node)
    refused({"a": [{"b": node}]})
    inner = {"builder": builder, "weights": False}
    refused(inner | {"_target_": EXTERNAL, "builder": "gebm_lightning.networks:ExternalBase", "arguments": inner})


@pytest.fixture
def own_nets(tmp_path, monkeypatch):
    (tmp_path / "own_nets.py").write_text(
        "import os\nfrom os import system\nfrom torch import load, nn\nfrom torch.nn import Linear\n"
        "open(__file__ + '.imported', 'w').close()\n\n\n"
        "def make(size=2):\n    return nn.Linear(size, size)\n\n\nclass Net(nn.Linear):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "own_nets.py.imported"
    sys.modules.pop("own_nets", None)


def test_nothing_is_imported_before_it_is_trusted(own_nets):
    node = {"_target_": EXTERNAL, "builder": "own_nets:make", "weights": False}
    refused(node)
    refused(node, trust=("own", "own_nets.inner", "own_net", ""))
    # By position no key names the builder.
    with pytest.raises(Exception, match="positional"):
        instantiate(OmegaConf.create({"_target_": EXTERNAL, "_args_": ["own_nets:make"]}), trusted=False)
    refused({"_target_": "own_nets.make"}, "target")
    assert not own_nets.exists()
    assert instantiate(OmegaConf.create(node), trusted=False, trust=("own_nets",))(torch.zeros(1, 2)).shape == (1, 2)
    assert own_nets.exists()


def test_trust_is_for_what_a_module_defines_not_for_what_it_imports(own_nets):
    for name in ("system", "load", "os", "nn", "__loader__", "missing"):
        refused({"_target_": EXTERNAL, "builder": f"own_nets:{name}", "weights": False}, trust=("own_nets",))
        refused({"_target_": f"own_nets.{name}"}, trust=("own_nets",))
    refused({"_target_": "own_nets.os.system", "_args_": ["true"]}, trust=("own_nets",))
    net = instantiate(
        OmegaConf.create({"_target_": "own_nets.Net", "_args_": [2, 3]}), trusted=False, trust=("own_nets",)
    )
    assert net.out_features == 3


@pytest.mark.parametrize(
    ("builder", "arguments"),
    [
        ("torch.nn:Linear", {"in_features": 3, "out_features": 2}),
        ("gebm_lightning.networks:MLPBase", {"latent_dim": 3, "shape": [2]}),
        ("gebm_lightning.networks.mlp:MLPBase", {"latent_dim": 3, "shape": [2]}),
        ("gebm_lightning.networks.external:mlp", {"sizes": [3, 2]}),
    ],
)
def test_own_builders_and_torchs_are_served(builder, arguments):
    node = {"_target_": EXTERNAL, "builder": builder, "arguments": arguments, "weights": False}
    assert instantiate(OmegaConf.create(node), trusted=False)(torch.zeros(4, 3)).shape == (4, 2)


@pytest.mark.parametrize(
    "logger", ["gebm_lightning.lightning.loggers.RunWandbLogger", "pytorch_lightning.loggers.WandbLogger"]
)
def test_a_config_that_is_not_trusted_cannot_choose_where_wandb_sends_the_key(logger, tmp_path):
    node = {"_target_": logger, "offline": True, "save_dir": str(tmp_path)}
    refused(node | {"settings": {"base_url": "http://127.0.0.1:1"}}, "settings of wandb's own")
    assert instantiate(OmegaConf.create(node), trusted=False).save_dir == str(tmp_path)
    node["settings"] = {"init_timeout": 1}
    assert instantiate(OmegaConf.create(node), trusted=False, trust=("wandb",)).save_dir == str(tmp_path)
