"""An exported folder gives the model back bit for bit, and its base to a process that has torch alone."""

import json
import subprocess
import sys

import pytest
import safetensors.torch
import torch
import yaml
from omegaconf import OmegaConf

from gebm_lightning import UserError, build, compose, load
from gebm_lightning.export import CARD, CONFIG, PROGRAM, WEIGHTS, example, export_run
from gebm_lightning.gebm import call_base, call_energy
from gebm_lightning.noise import BlockNoise
from gebm_lightning.samplers import ULA, LatentSampler

MLP = "gebm_lightning.networks.external:mlp"
EXTERNAL = [
    *("model=external", "data=gaussian_grid", "model.latent_dim=3", "model.energy.convention=logit"),
    *(f"model.base.builder={MLP}", "model.base.arguments={sizes:[3,5,2]}", "model.base.weights=false"),
    *(f"model.energy.builder={MLP}", "model.energy.arguments={sizes:[2,4,1]}", "model.energy.weights=false"),
]
SMALL, TABLE = "model.width=4", "data=gaussian_grid"
FLOW = [TABLE, "model.base.flow.transforms=2", "model.base.flow.hidden_features=[4]"]
FAMILIES = {
    "dcgan": ["model=dcgan", SMALL],
    "dcgan, labels, spectral": ["model=dcgan", SMALL, "model.num_classes=10", "model.base.spectral=true"],
    "sngan, spectral": ["model=sngan", SMALL, "model.base.spectral=true"],
    "resnet, labels": ["model=resnet", SMALL, "model.num_classes=10"],
    "mlp, labels, spectral": ["model=mlp", SMALL, "model.num_classes=10", "model.base.spectral=true"],
    "mlp, mmd": ["model=mlp", SMALL, TABLE, "objective=mmd", "objective.num_reference=8"],
    "vae": ["model=vae", SMALL],
    "identity": ["model=identity", SMALL, TABLE],
    "flow_gaussian": ["model=flow_gaussian", SMALL, TABLE],
    "flow_realnvp": ["model=flow_realnvp", *FLOW],
    "flow_maf": ["model=flow_maf", *FLOW],
    "flow_nsf": ["model=flow_nsf", *FLOW],
    "flow_gaussian, flow": ["model=flow_gaussian", TABLE, "model/energy=flow"],
    "external": EXTERNAL,
}
# zuko's coupling layers look for the entries of a mask, whose number tracing does not know.
UNTRACEABLE = {"flow_realnvp"}


def make_run(folder, overrides, averaged=False):
    """A run's folder as training leaves it, with weights that are nobody's initial ones."""
    cfg = compose([*overrides, f"run_dir={folder}"])
    OmegaConf.resolve(cfg)
    gebm = build(cfg)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in gebm.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    state = {f"gebm.{name}": value for name, value in gebm.state_dict().items()}
    if averaged:
        state |= {f"ema.module.{name}": value.clone() for name, value in gebm.base.state_dict().items()}
        state["ema.module.last.bias"] += 1
    (folder / "checkpoints").mkdir(parents=True)
    OmegaConf.save(cfg, folder / CONFIG)
    ours = {"format_version": 1, "version": "0", "base_updates": 3}
    torch.save({"state_dict": state, "gebm_lightning": ours}, folder / "checkpoints" / "last.ckpt")
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """`exported(family) -> (the run's model, the folder, notes)`, each made once."""
    made, root = {}, tmp_path_factory.mktemp("families")

    def of(family):
        if family not in made:
            run = make_run(root / f"run{len(made)}", FAMILIES[family])
            made[family] = load(run), *export_run(run, root / f"out{len(made)}")
        return made[family]

    return of


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_comes_back_bit_for_bit(exported, family):
    gebm, folder, notes = exported(family)
    again = load(folder)
    assert not again.training and again.num_classes == gebm.num_classes
    state, own = again.state_dict(), gebm.state_dict()
    assert state.keys() == own.keys() and all(torch.equal(state[k], own[k]) for k in own)
    given = example(gebm, 5)
    y = given[1] if len(given) == 2 else None
    x = call_base(gebm.base, *given)
    assert torch.equal(call_base(again.base, *given), x)
    assert torch.equal(call_energy(again.energy, x, y), call_energy(gebm.energy, x, y))
    chain = LatentSampler(ULA(1e-3), num_steps=2)
    assert torch.equal(*(chain.refine(g, 4, BlockNoise(0), None if y is None else y[:4]).x for g in (gebm, again)))
    names = {path.name for path in folder.iterdir()}
    if family in UNTRACEABLE:
        assert names == {WEIGHTS, CONFIG, CARD} and len(notes) == 1 and "base.pt2 is left out: torch.export" in notes[0]
        assert "There is no `base.pt2`: torch.export cannot take this base, FlowBase" in (folder / CARD).read_text()
    else:
        assert names == {WEIGHTS, CONFIG, CARD, PROGRAM} and not notes


ALONE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("gebm_lightning", "zuko", "hydra", "omegaconf", "pytorch_lightning"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocker())
import torch
for path, *examples in torch.load(sys.argv[1]):
    base = torch.export.load(path).module()
    torch.save([base(*given) for given in examples], path + ".out")
try:
    import gebm_lightning
except ImportError:
    print("alone")
"""


def test_the_base_runs_where_only_torch_is(exported, tmp_path):
    made = [exported(family) for family in FAMILIES if family not in UNTRACEABLE]
    asked = [[str(folder / PROGRAM), example(gebm, 2), example(gebm, 7)] for gebm, folder, _ in made]
    torch.save(asked, tmp_path / "asked.pt")
    ran = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, tmp_path / "asked.pt"], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0 and ran.stdout == "alone\n", ran.stderr
    for (gebm, _, _), (path, *examples) in zip(made, asked, strict=True):
        for given, x in zip(examples, torch.load(f"{path}.out"), strict=True):
            torch.testing.assert_close(x, call_base(gebm.base, *given), rtol=0, atol=0)


def test_programs_tell_no_paths_and_have_gradients(exported):
    gebm, folder, _ = exported("dcgan")
    assert b".py" not in (folder / PROGRAM).read_bytes()
    (z,) = example(gebm, 4)
    gradients = [
        torch.autograd.grad(b(z.requires_grad_()).square().sum(), z)[0]
        for b in (gebm.base, torch.export.load(folder / PROGRAM).module())
    ]
    torch.testing.assert_close(*gradients)


class Noisy(torch.nn.Module):
    def forward(self, z):
        return z + torch.randn_like(z)


def test_a_base_whose_program_makes_other_samples_has_none(tmp_path):
    from gebm_lightning.export import write_program

    gebm = build(compose(["model=identity", TABLE]))
    gebm.base = Noisy()
    assert "does not make the samples" in (write_program(gebm, tmp_path / PROGRAM) or "")
    assert not list(tmp_path.iterdir())


def test_the_averaged_base_is_the_one_exported(tmp_path):
    run = make_run(tmp_path / "run", ["model=mlp", TABLE, SMALL], averaged=True)
    export_run(run, tmp_path / "a", program=False)
    export_run(run / "checkpoints" / "last.ckpt", tmp_path / "b", ema=False, program=False)
    for folder, ema in (("a", True), ("b", False)):
        expected, found = load(run, ema=ema).state_dict(), load(tmp_path / folder, ema=ema).state_dict()
        assert all(torch.equal(expected[k], found[k]) for k in expected)
    assert "base=ema" in (tmp_path / "a" / CARD).read_text() and "base=raw" in (tmp_path / "b" / CARD).read_text()
    load(tmp_path / "b")
    with pytest.raises(UserError, match="averaged base only"):
        load(tmp_path / "a", ema=False)
    with pytest.raises(UserError, match="exported folder already"):
        export_run(tmp_path / "a", tmp_path / "c")


@pytest.fixture
def folder(tmp_path):
    export_run(make_run(tmp_path / "run", ["model=mlp", TABLE, SMALL]), tmp_path / "out", program=False)
    return tmp_path / "out"


def rewrite(path, change, **told):
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path, metadata=metadata | told)


DAMAGES = {
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-40]), "is damaged or no safetensors file"),
    "empty": (lambda p: p.write_bytes(b""), "is damaged or no safetensors file"),
    "text": (lambda p: p.write_text("hello"), "is damaged or no safetensors file"),
    "foreign": (lambda p: safetensors.torch.save_file({"w": torch.ones(2)}, p), "of another program"),
    "base updates": (lambda p: rewrite(p, lambda t: None, base_updates="²"), "do not say what base it holds"),
    "many base updates": (
        lambda p: rewrite(p, lambda t: None, base_updates="9" * 5000),
        "do not say what base it holds",
    ),
    "newer": (lambda p: rewrite(p, lambda t: None, format_version="99"), "format version 99"),
    "missing": (
        lambda p: rewrite(p, lambda t: t.pop("base.last.bias")),
        "1 tensors differ, the first is base.last.bias",
    ),
    "shape": (lambda p: rewrite(p, lambda t: t.update({"log_partition": torch.ones(2)})), "first is log_partition"),
    "dtype": (
        lambda p: rewrite(p, lambda t: t.update({"log_partition": torch.ones((), dtype=torch.double)})),
        "differ",
    ),
    "a bit": (lambda p: p.write_bytes(p.read_bytes()[:-1] + bytes([p.read_bytes()[-1] ^ 1])), "is damaged"),
    "another config": (
        lambda p: p.with_name(CONFIG).write_text(p.with_name(CONFIG).read_text() + "\n"),
        "not the one that was exported",
    ),
    "no config": (lambda p: p.with_name(CONFIG).unlink(), "no config.yaml"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_folders_that_cannot_be_read(folder, damage):
    change, words = DAMAGES[damage]
    change(folder / WEIGHTS)
    with pytest.raises(UserError, match=words):
        load(folder)


def test_a_hostile_config_is_not_run(folder):
    cfg = OmegaConf.load(folder / CONFIG)
    cfg.model.base = {"_target_": "os.system", "_args_": ["true"]}
    OmegaConf.save(cfg, folder / CONFIG)
    with pytest.raises(UserError, match=r"os\.system"):
        load(folder)


SUMMARY = {
    "rows": [
        {
            "method": "base",
            "scores": {"test": dict(fid_digits=3.25, relative_fid=1, kid=0.1, precision=0.5, recall=0.25)},
        },
        {"method": "mala", "scores": {}, "error": "it | failed"},
    ],
    "likelihood": {"splits": {"test": {"nll": 4.5, "base_nll": 5.5}}},
    "protocol": {
        **{"extractor": "digits", "extractor_weights_sha256": "494976", "extractor_input": "bytes", "seed": 5},
        **{"base": "ema", "splits": {"test": {"num_real": 400, "num_generated": 64}}},
    },
    "base_updates": 9,
}


def test_the_card(tmp_path):
    run = make_run(tmp_path / "run", ["model=mlp", SMALL, "name='my model'", "model.num_classes=10"])
    (run / "summary.json").write_text(json.dumps(SUMMARY))
    assert export_run(run, tmp_path / "out", program=False).notes == []
    card = (tmp_path / "out" / CARD).read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "gebm_lightning" and "energy-based-model" in front["tags"]
    for words in (
        *(
            "# my model\n",
            "| objective | KALE |",
            "| base | test | 3.25 | 1 | 0.1 | 0.5 | 0.25 |",
            "4.5 nats (base: 5.5)",
        ),
        *(
            "after 9 base updates; these weights are those after 3",
            "with base=ema; the base here is the one with base=raw",
        ),
        *("Extractor `digits` (weights 494976", "64 against 400 of test, seed 5, base=ema", "mala: it | failed"),
    ):
        assert words in card, words
    code = (
        card.split("```python\n")[1].split("```")[0].replace("FOLDER", str(tmp_path / "out")).replace("50_000", "100")
    )
    names: dict = {}
    exec(code, names)
    assert names["x"].shape == names["raw"].shape == (64, 1, 8, 8)
    (run / "summary.json").write_text("{}")
    (note,) = export_run(run, tmp_path / "again", program=False).notes
    assert "scores are left out of the card" in note and "None were kept" in (tmp_path / "again" / CARD).read_text()


@pytest.mark.parametrize("family", ["dcgan", "identity"])
def test_the_card_runs_the_base_alone(exported, family, monkeypatch):
    _, folder, _ = exported(family)
    monkeypatch.chdir(folder)
    names: dict = {}
    exec((folder / CARD).read_text().split("```python\n")[2].split("```")[0], names)
    assert len(names["x"]) == 64


def test_texts_under_hidden_keys_are_not_exported(tmp_path, folder):
    hide = ["logger.csv.hide=[name,seed,model.energy._target_]", "name=hunter2"]
    run = make_run(tmp_path / "secret", ["model=mlp", TABLE, SMALL, *hide])
    assert "hunter2" in (run / CONFIG).read_text()
    export_run(run, tmp_path / "told", program=False)
    for path in (tmp_path / "told").iterdir():
        assert b"hunter2" not in path.read_bytes(), path
    cfg = OmegaConf.load(tmp_path / "told" / CONFIG)
    assert cfg.name == "hidden" and cfg.seed == 0
    load(tmp_path / "told")
