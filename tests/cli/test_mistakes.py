"""A mistake gets one sentence, and nothing is left behind or lost."""

import pytest
import torch
from omegaconf import OmegaConf

from gebm_lightning.cli import evaluate, sample, train

MISTAKES = [
    (["model=unknown"], "unknown"),
    (["nonsense=1"], "nonsense"),
    (["optim.energy.lr=high"], "lr"),
    (["seed=a"], "seed"),
    (["data.size=24"], "dcgan is not built for data of shape (1, 24, 24)"),
    (["data.size=12", "model=mlp"], "data.size=12"),
    (["data=ring", "model=dcgan"], "model=mlp"),
    (["features.weights=nowhere.safetensors"], "nowhere.safetensors"),
    (["trainer.devices=2", "trainer.num_nodes=2", "trainer.accelerator=cpu"], "torchrun"),
    (["trainer.devices=2", "trainer.strategy=fsdp", "trainer.accelerator=cpu"], "trainer.strategy=fsdp"),
    (["seed=4294967296"], "seed"),
    (["callbacks.evaluation.curve_steps=[-1]"], "curve_steps"),
    (["callbacks.checkpoint.stop_after_minutes=0"], "stop_after_minutes"),
    (["+data.num_val=5"], "data.num_val"),
    (["resume=auto", "-m"], "resumes its unfinished jobs by itself"),
    (["trainer.precision=16-mixed"], "bf16-mixed"),
    (["train_mode=neither"], "train_mode"),
    (["objective.penalties.gradient.at=middle"], "interpolates"),
    (["model.energy.norm=layer"], "norm"),
    (["model.num_classes=1"], "num_classes"),
    (["model.num_classes=3", "data=ring"], "needs data with labels"),
    (["model.num_classes=5"], "the data have labels from 0 to 9"),
    (["callbacks.evaluation.per_class=true"], "this model is unconditional"),
    (["callbacks.evaluation.scores.kid_subsets=0"], "kid_subsets"),
    (["+callbacks.evaluation.scores.unknown=1"], "unknown"),
    (["features=vgg16"], "features.download=true"),
    (["run_dir=here", "-m"], "each job of a sweep has its own folder"),
    (["sampler=[ula,kla]"], "-m"),
    (["sampler=ula,kla"], "-m"),
    (["resume=nowhere"], "nowhere"),
    (["trainer.max_base_updates=0"], "max_base_updates"),
    (["callbacks.ema.decay=2"], "decay"),
    (["+trainer.unknown=1"], "trainer.unknown"),
    (["seed=-1"], "seed"),
    (["optim.energy.betas=[0.5]"], "optim.energy"),
    (["optim.energy_clip_norm=abc"], "optim.energy_clip_norm"),
    (["objective.penalties.gradient.weight=abc"], "weight"),
    (["objective.penalties=null"], "objective.penalties holds penalties by name"),
    (["objective.penalties.l2=1.0"], "objective.penalties.l2 is a penalty"),
    (["objective=logistic", "objective.saturating=maybe"], "objective.saturating must be true or false"),
    (["objective.base_by=likelihood"], "has no density"),
    (["objective=contrastive_divergence"], "take objective.start=base or replay"),
    (["objective=score_matching"], "has no density"),
    (["objective=maximum_likelihood"], "has no density"),
    (["data=ring", "model=identity"], "Identity has no parameters to train: take train_mode=energy"),
    (["model.prior.dim=5"], "do not fit together"),
    (["data.num_workers=-1"], "num_workers"),
    (["data=ring", "features=digits"], "features=digits"),
    (["data=ring", "data.flip=true"], "mirrors images"),
    (["callbacks.evaluation.splits=[tset]"], "splits"),
    (["callbacks.evaluation.splits=[]"], "splits"),
    (["callbacks.evaluation.num_samples=2"], "num_samples"),
    (["callbacks.evaluation.equilibrium.pool=0"], "pool"),
    (["callbacks.sampling.strip_steps=[]"], "strip_steps"),
    (["callbacks.sampling.num_samples=0"], "num_samples"),
    (["callbacks.monitor.bounds_every=0"], "cadence"),
    (["callbacks.checkpoint.keep_every=0"], "cadence"),
    (["sampler.kernel.step_size=-1"], "step_size"),
    (["sampler.num_steps=-3"], "num_steps"),
    (["sampler.thin=0"], "thin"),
    (["data=null"], "cannot be null"),
    (["sampler.beta=abc"], "beta"),
    (["sampler.beta=nan"], "beta"),
    (["sampler=kla", "sampler.kernel.friction=-1"], "friction"),
    (["init=nowhere"], "nowhere"),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=lambda v: " ".join(v) if isinstance(v, list) else None)
def test_a_mistake_gets_one_sentence_and_leaves_nothing(command, smoke, tmp_path, arguments, words):
    given = [s for s in smoke if s.split("=")[0] not in {a.split("=")[0] for a in arguments}]
    status, _, err = command(train, *given, *arguments)
    assert status == 1
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: ") and words in lines[0], err
    assert not [p for p in tmp_path.rglob("*") if p.is_file()] and not list((tmp_path / "runs").glob("*"))


def test_debug_gives_the_traceback(command, smoke):
    with pytest.raises(Exception, match="train_mode"):
        command(train, *smoke, "train_mode=neither", "debug=true")


def test_an_energy_that_turns_nan_ends_the_run(command, smoke):
    given = [s for s in smoke if not s.startswith("trainer.max_base")]
    status, _, err = command(
        train, *given, "trainer.max_base_updates=400", "optim.energy.lr=1e18", "optim.energy_scheduler=null"
    )
    assert status == 1 and err.splitlines()[-1].startswith("error: training diverged") and "Traceback" not in err


def test_mistakes_of_the_other_commands(command, run, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    for module, arguments, words in [
        (sample, [], "ckpt"),
        (sample, ["ckpt=nowhere"], "there is no run folder"),
        (sample, [f"ckpt={tmp_path}"], "no config.yaml"),
        (sample, [f"ckpt={run}", "num_samples=0"], "num_samples"),
        (sample, [f"ckpt={run}", "device=cuda:9"], "device=cuda:9"),
        (sample, [f"ckpt={run}", "sampler=unknown"], "unknown"),
        (evaluate, [f"ckpt={run}", "compare=[base,unknown]"], "no method unknown"),
        (evaluate, [f"ckpt={run}", "splits=[tset]"], "tset"),
        (evaluate, [f"ckpt={run}", "num_samples=1"], "num_samples"),
        (evaluate, [f"ckpt={run}", "splits=[]"], "splits"),
        (evaluate, [f"ckpt={run}", "per_class=true"], "unconditional"),
        (evaluate, [f"ckpt={run}", "scores.prc_samples=1"], "prc_samples"),
        (evaluate, [f"ckpt={run}", f"out={run}"], "is a folder"),
        (sample, [f"ckpt={run}", f"out={run}/config.yaml"], "out="),
        (sample, [f"ckpt={run}", "device=meta"], "device=meta"),
        (sample, [f"ckpt={run}", "sampler=sir", "sampler.pool=0"], "pool"),
    ]:
        status, _, err = command(module, *arguments)
        assert status == 1 and words in err and "Traceback" not in err and len(err.strip().splitlines()) == 1, err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "other program", "other model", "newer format"])
def test_checkpoints_that_are_none_of_ours(command, run, damage):
    path = run / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("hello")
    elif damage == "other program":
        torch.save({"state_dict": {}}, path)
    elif damage == "other model":
        config = OmegaConf.load(run / "config.yaml")
        config.model.energy.width = 8
        OmegaConf.save(config, run / "config.yaml")
    else:
        content["gebm_lightning"]["format_version"] = 99
        torch.save(content, path)
    for module, key in ((sample, "ckpt"), (train, "resume")):
        status, _, err = command(module, f"{key}={run}")
        assert (
            status == 1 and len(err.strip().splitlines()) == 1 and ("checkpoint" in err or "format version" in err)
        ), err
