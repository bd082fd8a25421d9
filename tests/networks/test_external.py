"""Networks and weights from elsewhere: they give the numbers they gave there, and every misfit is one sentence."""

import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from gebm_lightning import UserError, build, compose, load
from gebm_lightning.cli.fit import train
from gebm_lightning.cli.resume import resumed_config
from gebm_lightning.config import build_parts
from gebm_lightning.networks import ExternalBase, ExternalEnergy
from gebm_lightning.networks.builders import mlp
from gebm_lightning.networks.external import check
from gebm_lightning.networks.pretrained import load_weights, read_weights
from gebm_lightning.noise import BlockNoise
from gebm_lightning.samplers import ULA, LatentSampler

MLP = "gebm_lightning.networks.external:mlp"
SIZES = [3, 5, 5, 2]


class Constant(nn.Module):
    """A critic that returns what it was given."""

    def __init__(self, value):
        super().__init__()
        self.value = torch.tensor(value)

    def forward(self, x):
        return self.value


class Labelled(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.embedding = nn.Embedding(classes, 2)

    def forward(self, z, y):
        return z + self.embedding(y)


def trained(seed=0, sizes=SIZES):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return mlp(sizes)


def write(path, tensors):
    if path.suffix == ".npz":
        np.savez(path, **{k: v.numpy() for k, v in tensors.items()})
    elif path.suffix == ".safetensors":
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


def overrides(base, energy=None, prefixes=("generator.", "critic.")):
    """Of a model with both networks' weights in one file."""
    given = []
    for part, sizes, prefix in zip(("base", "energy"), (SIZES, [2, 4, 1]), prefixes, strict=True):
        given += [
            f"model.{part}.builder={MLP}",
            f"model.{part}.arguments={{sizes:{sizes}}}".replace(" ", ""),
            f"model.{part}.weights={base if part == 'base' else energy or base}",
            f"model.{part}.prefix={prefix}",
        ]
    return ["model=external", "data=gaussian_grid", "model.latent_dim=3", "model.energy.convention=logit", *given]


@pytest.fixture
def weights(tmp_path):
    generator, critic = trained(1).state_dict(), trained(2, [2, 4, 1]).state_dict()
    both = {f"generator.{k}": v for k, v in generator.items()} | {f"critic.{k}": v for k, v in critic.items()}
    return write(tmp_path / "gan.safetensors", both)


def test_a_gan_from_elsewhere_is_a_model_that_is_sampled_without_training(weights):
    gebm = build(compose([*overrides(weights), "model.energy.scale=2.0"]))
    check(gebm)
    z = gebm.prior.sample(5, BlockNoise(0))
    torch.testing.assert_close(gebm.base(z), trained(1)(z))
    torch.testing.assert_close(gebm.energy(gebm.base(z)), -2 * trained(2, [2, 4, 1])(trained(1)(z)).squeeze(1))
    assert all(p.requires_grad for p in gebm.parameters())
    assert LatentSampler(ULA(1e-2), num_steps=3).refine(gebm, 4, BlockNoise(0)).x.shape == (4, 2)


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".pth", ".safetensors"])
def test_every_kind_of_file_by_name_and_by_order(tmp_path, suffix):
    there = trained()
    path = write(
        tmp_path / f"w{suffix}", {f"g.{k}": v for k, v in there.state_dict().items()} | {"other": torch.ones(1)}
    )
    here = trained(7)
    load_weights(here, path, "g.")
    assert all(torch.equal(a, b) for a, b in zip(here.parameters(), there.parameters(), strict=True))
    layers = {f"{int(k[0]) // 2}{k[1:]}": v for k, v in there.state_dict().items()}
    renamed, here = write(tmp_path / f"r{suffix}", layers), trained(7)
    with pytest.raises(UserError, match=r"tensors differ, the first is .* set match=order"):
        load_weights(here, renamed, key="weights")
    load_weights(here, renamed, match="order")
    assert all(torch.equal(a, b) for a, b in zip(here.parameters(), there.parameters(), strict=True))


def test_more_than_ten_layers_are_ordered_by_number(tmp_path):
    there, here = trained(0, [3] * 14), trained(1, [3] * 14)
    layers = {f"l{int(k.split('.')[0]) // 2}.{k.split('.')[1]}": v for k, v in there.state_dict().items()}
    load_weights(here, write(tmp_path / "w.safetensors", layers), match="order")
    assert all(torch.equal(a, b) for a, b in zip(here.parameters(), there.parameters(), strict=True))


def test_an_order_that_a_file_does_not_keep_is_not_guessed(tmp_path):
    words = {"first": "0", "second": "2", "last": "4"}
    there = {f"{w}.{k}": v for w, i in words.items() for k, v in trained(0, [3] * 4)[int(i)].state_dict().items()}
    with pytest.raises(UserError, match="keeps no order"):
        load_weights(trained(1, [3] * 4), write(tmp_path / "w.safetensors", there), match="order")
    load_weights(trained(1, [3] * 4), write(tmp_path / "w.pt", there), match="order")


@pytest.mark.parametrize("nest", [lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"netG": s}, nn.ParameterDict])
def test_files_of_torch_may_hold_the_tensors_further_in(tmp_path, nest):
    there, here = trained(), trained(1)
    if nest is nn.ParameterDict:
        content, prefix = {k: nn.Parameter(v) for k, v in there.state_dict().items()}, ""
    else:
        content = nest(there.state_dict())
        prefix = "netG." if "netG" in content else ""
    torch.save(content, tmp_path / "w.pt")
    load_weights(here, tmp_path / "w.pt", prefix)
    assert torch.equal(here[0].weight, there[0].weight)


def test_counters_of_batch_norms_may_be_missing(tmp_path):
    there = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = {k: v + 0.5 for k, v in there.state_dict().items() if "num_batches" not in k}
    for match in ("name", "order"):
        here = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        load_weights(here, write(tmp_path / "w.npz", state), match=match)
        torch.testing.assert_close(here[1].running_mean, state["1.running_mean"])


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_weights_file_is_not_run(tmp_path):
    flag = tmp_path / "run"
    torch.save({"0.weight": Bomb(flag)}, tmp_path / "new.pt")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Bomb(flag), protocol=2))
    np.savez(tmp_path / "objects.npz", w=np.array([Bomb(flag)], dtype=object))
    torch.save(trained(), tmp_path / "module.pt")
    for name in ("new.pt", "bare.pth", "objects.npz", "module.pt"):
        with pytest.raises(UserError, match="cannot be read as weights") as caught:
            read_weights(tmp_path / name)
        assert "weights_only=False" not in str(caught.value)
    assert not flag.exists()
    pickle.loads((tmp_path / "bare.pth").read_bytes())
    assert flag.exists()


def test_damaged_files(tmp_path):
    for suffix in (".npz", ".pt", ".safetensors"):
        path = write(tmp_path / f"w{suffix}", trained().state_dict())
        whole = path.read_bytes()
        for damage in (whole[: len(whole) // 2], b"", b"nothing of the kind"):
            path.write_bytes(damage)
            with pytest.raises(UserError, match="cannot be read as weights"):
                read_weights(path)
    path = write(tmp_path / "w.pt", trained().state_dict())
    whole = bytearray(path.read_bytes())
    at = whole.find(trained()[0].weight.detach().numpy().tobytes())
    assert at > 0
    whole[at] ^= 1
    path.write_bytes(whole)
    with pytest.raises(UserError, match="checksum"):
        read_weights(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s | {"0.weight": torch.ones(5, 4)},
            r"1 tensors differ, the first is 0\.weight \(\(5, 4\) in the file",
        ),
        (lambda s: {k: v for k, v in s.items() if k != "4.bias"}, r"1 .* 4\.bias \(missing in the file"),
        (lambda s: s | {"6.bias": torch.ones(2)}, r"1 .* 6\.bias .* missing in the network"),
        (lambda s: s | {"4.bias": torch.tensor([1.0, math.nan])}, "not finite"),
        (lambda s: {}, "holds no tensors by name"),
    ],
)
def test_weights_of_another_network(tmp_path, change, message):
    network = trained(3)
    before = network[0].weight.clone()
    with pytest.raises(UserError, match=message):
        load_weights(network, write(tmp_path / "w.pt", change(trained().state_dict())))
    assert torch.equal(network[0].weight, before)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.base.builder=null", r"model\.base\.builder is not set"),
        ("model.base.builder=mlp", "package.module:callable"),
        ("model.base.builder=no_such_package.nets:make", "cannot be imported: No module named"),
        ("model.base.builder=gebm_lightning.networks.external:none", "no callable of this name"),
        ("model.base.builder=builtins:dict", "must return a torch.nn.Module, not a dict"),
        ("model.base.builder=gebm_lightning.networks:MLPBase", r"fails with model\.base\.arguments"),
        ("model.base.arguments.sizes=[3]", "two or more sizes"),
        ("model.base.arguments.sizes=[3,5,2]", "tensors differ"),
        ("model.base.weights=null", r"model\.base\.weights is not set"),
        ("model.base.weights=nowhere.npz", "there is no such file"),
        ("model.base.weights=weights.onnx", r"end in \.safetensors, \.npz, \.pt, \.pth"),
        ("model.base.prefix=gen.", "no tensor whose name begins with the prefix 'gen.'"),
        ("model.base.match=best", "must be one of name, order"),
        ("model.energy.convention=null", "energy, logit, wasserstein, probability, f_gan"),
        ("model.energy.convention=critic", "energy, logit, wasserstein, probability, f_gan"),
        ("model.energy.convention=f_gan:none", "f_gan:kl"),
        ("model.energy.scale=-1", r"model\.energy\.scale must be a number of at least 0"),
        ("model.latent_dim=4", r"model\.base: the network does not take latents of shape \(n, 4\).*model\.latent_dim"),
        ("model.energy.input_shape=[3]", r"model\.energy: the network does not take data of shape \(n, 2\)"),
        ("model.base.latent_shape=[3,1,1]", "does not take latents"),
        ("data.shape=[1,8,8]", r"makes data of shape \(2,\), but the data have \(1, 8, 8\)"),
    ],
)
def test_mistakes_in_the_config(weights, override, message):
    with pytest.raises(UserError, match=message) as caught:
        check(build(compose([*overrides(weights), override])))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("convention", "v", "expected"),
    [
        ("energy", [0.5, -2.0], [0.5, -2.0]),
        ("logit", [0.5, -2.0], [-0.5, 2.0]),
        ("wasserstein", [0.5, -2.0], [-0.5, 2.0]),
        ("probability", [0.5, 0.9], [0.0, math.log(1 / 9)]),
        ("f_gan:kl", [0.5, -2.0], [0.5, 3.0]),
        ("f_gan:squared_hellinger", [0.5, -2.0], [-1.0, 4.0]),
    ],
)
@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 1, 1, 1)])
def test_conventions_and_scale(convention, v, expected, shape):
    value = torch.tensor(v).reshape(shape)
    energy = ExternalEnergy(
        builder=Constant, arguments={"value": value.tolist()}, weights=False, convention=convention, scale=3.0
    )
    torch.testing.assert_close(energy(torch.zeros(2, 2)), 3 * torch.tensor(expected))


def test_sure_probabilities_stay_finite():
    energy = ExternalEnergy(builder=Constant, arguments={"value": [0.0, 1.0]}, weights=False, convention="probability")(
        torch.zeros(2, 2)
    )
    assert torch.isfinite(energy).all() and energy[0] > 15 and energy[1] < -15


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([0.5, 1.5], "returns 0.5 to 1.5, which are no probabilities"),
        ([[0.5, 0.5], [0.1, 0.2]], r"one number a sample, \(n,\) or \(n, 1\), not \(2, 2\)"),
        (0.5, r"as many outputs, not \(\)"),
        ([0.5, 0.5, 0.5], r"as many outputs, not \(3,\)"),
    ],
)
def test_outputs_that_do_not_fit_the_convention(value, message):
    energy = ExternalEnergy(builder=Constant, arguments={"value": value}, weights=False, convention="probability")
    with pytest.raises(UserError, match=message):
        energy(torch.zeros(2, 2))


def test_shapes_of_latents_and_data():
    images = {"builder": nn.ConvTranspose2d, "arguments": {"in_channels": 3, "out_channels": 1, "kernel_size": 4}}
    assert ExternalBase(**images, weights=False, latent_shape=(-1, 1, 1))(torch.zeros(2, 3)).shape == (2, 1, 4, 4)
    flat = {"builder": MLP, "arguments": {"sizes": [3, 16]}, "weights": False}
    assert ExternalBase(**flat, shape=(1, 4, 4))(torch.zeros(2, 3)).shape == (2, 1, 4, 4)
    assert ExternalBase(**flat)(torch.zeros(2, 3)).shape == (2, 16)
    with pytest.raises(UserError, match=r"makes data of shape \(1, 4, 4\), but the data have \(4, 4, 1\)"):
        ExternalBase(**images, weights=False, latent_shape=(3, 1, 1), shape=(4, 4, 1))(torch.zeros(2, 3))
    energy = {"builder": MLP, "arguments": {"sizes": [16, 1]}, "weights": False, "convention": "logit"}
    assert ExternalEnergy(**energy, input_shape=(16,))(torch.zeros(2, 1, 4, 4)).shape == (2,)


def test_labels_reach_networks_that_take_them_and_not_others():
    labelled = ExternalBase(builder=Labelled, weights=False)
    y = torch.tensor([0, 2])
    torch.testing.assert_close(labelled(torch.zeros(2, 2), y), labelled.network.embedding(y))
    with pytest.raises(UserError, match="does not take latents"):
        labelled(torch.zeros(2, 2))


def test_final_activations_of_mlps():
    assert isinstance(mlp([2, 3, 1], final="tanh")[-1], nn.Tanh) and isinstance(
        mlp([2, 1], final="sigmoid")[-1], nn.Sigmoid
    )
    assert [k for k in mlp([2, 3, 1]).state_dict()] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    with pytest.raises(UserError, match="final"):
        mlp([2, 1], final="exp")


def test_a_models_own_config_does_not_read_the_file_again(weights):
    cfg = compose(overrides(weights))
    Path(weights).unlink()
    gebm, _, _ = build_parts(cfg, trusted=False)
    assert gebm.base(torch.zeros(2, 3)).shape == (2, 2)


@pytest.mark.slow
def test_an_energy_tuned_on_a_generator_from_elsewhere_is_loaded_without_its_file(tmp_path, monkeypatch, smoke):
    (tmp_path / "their_nets.py").write_text("from torch import nn\n\n\ndef make(n):\n    return nn.Linear(3, n)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    there = nn.Linear(3, 2)
    both = {f"generator.{k}": v for k, v in there.state_dict().items()}
    both |= {f"critic.{k}": v for k, v in trained(2, [2, 4, 1]).state_dict().items()}
    path, run_dir = write(tmp_path / "gan.npz", both), tmp_path / "run"
    own = [
        "model.base.builder=their_nets:make",
        "model.base.arguments={n:2}",
        "train_mode=energy",
        f"run_dir={run_dir}",
    ]
    theirs = [o for o in overrides(path) if not o.startswith(("model.base.builder", "model.base.arguments"))]
    smoke = [o for o in smoke if not o.startswith("model.")]
    assert train(compose([*theirs, *own, *smoke]), run_dir)["base_updates"] == 4
    path.unlink()
    with pytest.raises(UserError, match=r"their_nets:make.*trust"):
        load(run_dir)
    gebm = load(run_dir, trust=("their_nets",))
    z = torch.randn(4, 3)
    torch.testing.assert_close(gebm.base(z), there(z))
    assert not torch.equal(gebm.energy.network[0].weight, both["critic.0.weight"])
    with pytest.raises(UserError, match=r"their_nets:make.*trust"):
        train(resumed_config(run_dir, ["trainer.max_base_updates=6"]), run_dir)
    assert (
        train(resumed_config(run_dir, ["trainer.max_base_updates=6", "trust=[their_nets]"]), run_dir)["base_updates"]
        == 6
    )
