"""The commands of the README and of the pages on experiments run, each at smoke size: of a sweep the last job."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from snippets import HOWTOS, PAGES, ROOT, commands, lines_of
from test_docs import ENTRIES, MODULES, jobs

from gebm_lightning import compose
from gebm_lightning.cli import fit
from gebm_lightning.cli.export import name_run
from gebm_lightning.cli.resume import search_path

REAL = Path(os.environ.get("GEBM_REAL_DATA", "absent"))
FILES = {"DIR": REAL, "CIFAR": REAL / "cifar10.npz", "WEIGHTS": REAL / "inception-2015-12-05-nofc.pth"}
# Where the words are, what the command needs is not on every machine.
ELSEWHERE = {
    "features=clip": "weights of CLIP",
    "hub=user/name": "an account at a hub",
    "my_package.nets:Generator": "somebody's own package",
    "launcher=slurm": "a cluster",
    "trainer.num_nodes=2": "two machines",
    "data.download=true": "the network",
}
SMALL = {
    "train": [
        *("trainer.max_base_updates=4", "trainer.accelerator=cpu", "model.width=4", "data.batch_size=16", "debug=true"),
        *(
            "base_samples=1",
            "sampler.num_steps=2",
            "sampler.refiner.num_steps=2",
            "sampler.warmup=0",
            "energy_schedule.num=1",
        ),
        *("objective.num_steps=2", "objective.buffer=32", "data.source.num_train=300"),
        *(
            "callbacks.sampling.num_samples=8",
            "callbacks.sampling.strip_steps=[0,2]",
            "callbacks.evaluation.num_samples=16",
        ),
        *("callbacks.evaluation.max_real=16", "callbacks.evaluation.equilibrium.pool=128"),
        *("callbacks.evaluation.curve_steps=[1,2]", "callbacks.evaluation.scores.kid_subsets=2"),
        *("callbacks.calibration.num_samples=64", "hydra.sweeper.n_trials=1"),
    ],
    "sample": ["num_samples=64", "sampler.num_steps=2", "sampler.thin=1", "sampler.warmup=0"],
    "evaluate": [
        *(
            "num_samples=16",
            "max_real=16",
            "scores.kid_subsets=2",
            "scores.kid_subset_size=8",
            "scores.prc_samples=16",
        ),
        *("methods.sir.pool=128", "methods.mhgan.num_proposals=2", "methods.ddls.refiner.num_steps=2"),
        *(f"methods.{name}.num_steps=2" for name in ("ula", "kla", "mala", "hmc", "imh", "dgflow", "dot", "wander")),
    ],
    "particles": ["num_steps=2", "num_particles=20", "target.num=20", "frames=2"],
    "export": [],
    "report": [],
}


def entry(words):
    """(command, arguments) of those words that are one of ours; make's own lines are looked up."""
    if words[:2] == ("make", "train"):
        return [("train", [w for a in words[2:] for _, found in lines_of(a.removeprefix("ARGS=")) for w in found])]
    if words == ("make", "tables"):
        told = subprocess.run(
            ["make", "-n", "-o", ".venv/.stamp", "tables", "ARGS="], cwd=ROOT, capture_output=True, text=True
        )
        return [("train", list(found[2:])) for _, found in lines_of(told.stdout) if found[1] == "train.py"]
    if words[0] == "python":
        words = words[1:]
    return [(ENTRIES[words[0]], list(words[1:]))] if words[0] in ENTRIES and "--help" not in words else []


def at_smoke_size(name, arguments):
    """The arguments of one job, with what `SMALL` has for keys that there are."""
    flags = [a for a in arguments if a.startswith("--")]
    overrides = jobs([a for a in arguments if not a.startswith("--")])[-1]
    if name in ("export", "report"):
        return overrides
    overrides = [a for a in overrides if not a.startswith(("sweeper=", "name="))]
    cfg = compose([*search_path(flags), *overrides], name)
    own_cloud = [a for a in overrides if a.startswith("benchmark=")]
    wanted = [o for o in SMALL[name] if not (own_cloud and o.startswith(("num_particles", "target")))]
    small = [o for o in wanted if OmegaConf.select(cfg, o.split("=")[0], default=None) is not None]
    keys = {o.split("=")[0] for o in small}
    return [*flags, *(a for a in overrides if a.split("=")[0].lstrip("+") not in keys), *small]


def has_entries(page):
    return page not in HOWTOS and any(
        ENTRIES.keys() & set(c.words[:2]) or c.words == ("make", "tables") for c in commands(page)
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if has_entries(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_its_commands_run(page, tmp_path, monkeypatch, capsys):
    """From the first to the last; RUN is the last run on the page, of the same networks if there is one."""
    monkeypatch.chdir(tmp_path)
    last, runs, without, ran = None, {}, set(), 0
    for number, (name, arguments) in enumerate(e for c in commands(page) for e in entry(c.words)):
        line = " ".join(arguments)
        if reasons := [why for words, why in ELSEWHERE.items() if words in line]:
            without.add(reasons[0])
            continue
        needed = {word for word in FILES if re.search(rf"\b{word}\b", line) and not FILES[word].exists()}
        if needed or ("table=power data" in line and not (REAL / "power.csv").exists()):
            without.add("GEBM_REAL_DATA")
            continue
        for word, path in FILES.items():
            arguments = [re.sub(rf"\b{word}\b", str(path), a) for a in arguments]
        networks = tuple(a for a in arguments if a.startswith("model"))
        last = runs.get(networks, last)
        if last is None and re.search(r"\bRUN\b", line):
            last = tmp_path / "default"
            fit.train(compose([*at_smoke_size("train", []), f"run_dir={last}"]), last)
        arguments = [re.sub(r"\bRUN2?\b", str(last), a) for a in arguments]
        arguments = at_smoke_size(name, name_run(arguments, "run") if name == "report" else arguments)
        if name == "train":
            last = runs[networks] = tmp_path / f"run{number}"
            arguments.append(f"run_dir={last}")
        monkeypatch.setattr(sys, "argv", ["program", *arguments])
        try:
            MODULES[name].main()
        except SystemExit as stop:
            assert not stop.code, f"{name} {arguments}: {capsys.readouterr().err}"
        ran += 1
    assert ran
    if without - set(ELSEWHERE.values()):
        pytest.skip(f"{ran} commands ran; others need {', '.join(sorted(without))}")
