"""The texts hold what they say: every command is one, every picture has its command, the how-to pages run, the site builds."""

import importlib
import inspect
import json
import re
import subprocess
import sys
import tomllib
import zlib
from pathlib import Path

import hydra
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from snippets import HOWTOS, PAGES, ROOT, SHELL, blocks, commands, lines_of, sections

from gebm_lightning import compose
from gebm_lightning.cli import dashboard, evaluate, export, fit, particles, report, sample, train
from gebm_lightning.cli.export import name_run
from gebm_lightning.cli.resume import search_path
from gebm_lightning.figures import FIGURES, RUN_FIGURES

MODULES = {"train": train, "sample": sample, "evaluate": evaluate, "particles": particles, "export": export}
MODULES |= {"report": report, "dashboard": dashboard}
ENTRIES = {f"{name}.py": name for name in MODULES} | {f"gebm-{name}": name for name in MODULES}
MAKEFILE = (ROOT / "Makefile").read_text()
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
PUBLIC = [
    "objectives",
    "divergences",
    "samplers",
    "transports",
    "data",
    "metrics",
    "callbacks",
    "lightning",
    "figures",
    "networks",
]
COMMANDS = list({command.words: command for page in PAGES for command in commands(page)}.values())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """`folder(page)`: an empty folder, the current one, with the files that the page shows, as a user would have it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def fill(page):
        for block in blocks(page.read_text()):
            if block.title:
                path = tmp_path / block.title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.body)
        for name in [name for name in sys.modules if (tmp_path / name.split(".")[0]).is_dir()]:
            del sys.modules[name]
        return tmp_path

    return fill


def jobs(arguments):
    """The overrides of a single run; of a sweep those of as many jobs as name each choice once, numbers by their first."""
    overrides = [a for a in arguments if not a.startswith("-")]
    if "-m" not in arguments:
        return [overrides]
    parsed = OverridesParser.create().parse_overrides(overrides)
    values = []
    for override, text in zip(parsed, overrides, strict=True):
        key = override.get_key_element()
        if override.is_interval_sweep():
            values.append([f"{key}={override.value().start}"])
        elif override.is_sweep_override():
            choices = list(override.sweep_string_iterator())
            values.append([f"{key}={choice}" for choice in choices if choice[0].isalpha()] or [f"{key}={choices[0]}"])
        else:
            values.append([text])
    return [[v[min(i, len(v) - 1)] for v in values] for i in range(max(map(len, values)))]


def check_entry(name, arguments):
    """Compose what one of the commands would, and look for what Hydra lets pass."""
    if arguments == ["--help"]:
        return
    if name in ("export", "report"):
        arguments = name_run(arguments, "ckpt" if name == "export" else "run")
    for overrides in jobs(arguments):
        cfg = compose([*search_path(arguments), *overrides], name)
        with_run = OmegaConf.merge({"run_dir": "run"}, cfg) if name == "train" else cfg
        OmegaConf.resolve(with_run)
        assert not OmegaConf.missing_keys(cfg), f"keys without a value: {OmegaConf.missing_keys(cfg)}"
        assert not list(not_taken(OmegaConf.to_container(with_run)))
        if name == "evaluate":
            assert set(cfg.compare) <= {"base", *cfg.methods}, f"methods that there are none of: {cfg.compare}"


def not_taken(node):
    """The keys that the `_target_` above them does not take."""
    if isinstance(node, dict):
        parameters = (
            inspect.signature(hydra.utils.get_object(node["_target_"])).parameters if "_target_" in node else {}
        )
        if parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            yield from (f"{node['_target_']}: {k}" for k in node if k[0] != "_" and k not in parameters)
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
        yield from not_taken(value)


def check_make(target, *arguments):
    assert re.search(rf"^{re.escape(target)}:", MAKEFILE, re.M), f"the Makefile has no target {target}"
    for argument in arguments:
        key, _, value = argument.partition("=")
        assert key == "ARGS"
        if target == "train":
            check_entry("train", [w for _, words in lines_of(value) for w in words])


def check(command):
    """Raise if there is something in a command that does not exist."""
    program, *rest = command.words
    if program == "srun":
        program, *rest = rest
    if program == "torchrun":
        (at,) = [i for i, word in enumerate(rest) if word.endswith(".py")]
        program, rest = "python", rest[at:]
    if program == "python" and rest[0] in ENTRIES:
        program, *rest = rest
    if program in ENTRIES:
        check_entry(ENTRIES[program], rest)
    elif program == "make":
        check_make(*rest)
    elif program == "python" and rest[:2] == ["-m", "gebm_lightning.figures"]:
        names = {word for word in rest[3:] if not word.startswith("--")}
        assert names <= {*FIGURES, *RUN_FIGURES} and ("--run=RUN" in rest or not names & RUN_FIGURES.keys())
    elif program == "python" and rest[0] == "-m":
        assert importlib.util.find_spec(rest[1]), f"there is no module {rest[1]}"
    elif program == "python":
        assert (ROOT / rest[0]).is_file(), f"there is no {rest[0]}"
    elif program == "pip":
        (extra,) = re.findall(r"(?:\.|gebm-lightning)\[(.*)\]", " ".join(rest))
        assert set(extra.split(",")) <= EXTRAS.keys()
    elif program == "sbatch":
        assert rest[0] in {block.title for block in blocks(command.page.read_text())}
    else:
        assert (program == "export" and rest == ["PYTHONPATH=."]) or rest == ["SLURM_KILL_BAD_EXIT=1"]


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_every_command_is_one(command, folder):
    folder(command.page)
    check(command)


def test_there_are_commands_of_every_kind():
    programs = {word for command in COMMANDS for word in command.words[:2]}
    assert len(COMMANDS) > 50
    assert programs >= {"train.py", "sample.py", "evaluate.py", "particles.py"} | {
        "make",
        "gebm-export",
        "srun",
        "torchrun",
    }


@pytest.mark.parametrize(
    "typo",
    [
        "python train.py trainer.max_base_update=5",
        "python train.py objective=kales",
        "python train.py -m objective=kale,donsker_varadahn seed=0,1",
        "python train.py data=folder data.size=64",
        "python evaluate.py ckpt=RUN 'compare=[base,sirr]'",
        "python evaluate.py ckpt=RUN methods.ula.kernel.stepsize=1",
        "python sample.py ckpt=RUN 'sampler.schedule={_target_:gebm_lightning.samplers.StepDecay,facto:0.1,every:2}'",
        "make trian",
        "make train ARGS='sed=1'",
        "pip install -e '.[sweep]'",
        "python -m gebm_lightning.figures OUT kale_flows",
        "python -m gebm_lightning.figures OUT relative_fid",
        "python benchmarks/kernel.py",
        "gebm-trian seed=1",
    ],
)
def test_a_typo_would_be_found(typo, folder):
    page = ROOT / "README.md"
    (command,) = commands(page, f"```\n{typo}\n```\n")
    with pytest.raises((AssertionError, HydraException, OmegaConfBaseException)):
        check(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_picture_has_the_command_that_made_it(page):
    for section in sections(page.read_text()):
        for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", section):
            assert (page.parent / path).is_file(), path
            beside = [command.words for command in commands(page, section)]
            made = [w for w in beside if Path(path).stem in w] if "gallery/" in path else beside
            assert made or ("make", "figures") in beside, f"{path} has no command in its section"


# What makes each command a matter of seconds; what the page says comes after, and wins.
SMALL = {
    "train": ["callbacks.evaluation.splits=[test]", "callbacks.evaluation.scores.kid_subsets=2"],
    "sample": [],
    "evaluate": [
        *(
            "num_samples=64",
            "max_real=64",
            "scores.kid_subsets=2",
            "scores.kid_subset_size=16",
            "scores.prc_samples=64",
        ),
        *("methods.sir.pool=128", "methods.mhgan.num_proposals=2", "methods.ddls.refiner.num_steps=2"),
        *(f"methods.{name}.num_steps=2" for name in ("ula", "kla", "mala", "hmc")),
    ],
}


def run_entry(name, arguments, smoke, monkeypatch, capsys):
    """Run a command in this process, at smoke size."""
    small = [*SMALL[name], *(smoke if name == "train" and not any(a.startswith("resume=") for a in arguments) else [])]
    if name == "train" and any(a.startswith(("model=", "data=")) for a in arguments):
        small = [o for o in small if not o.startswith(("model.", "sampler."))]
    arguments = [re.sub(r"^(trainer\.max_base_updates)=.*", r"\1=6", a) for a in arguments]
    flags = [a for a in arguments if a.startswith("-")]
    monkeypatch.setattr(sys, "argv", ["program", *flags, *small, *(a for a in arguments if a not in flags)])
    try:
        MODULES[name].main()
    except SystemExit as stop:
        assert not stop.code, capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("page", HOWTOS, ids=lambda p: p.stem)
def test_a_howto_runs(page, folder, smoke, monkeypatch, capsys):
    """The page's blocks from the first to the last; what needs a cluster is left to the composition."""
    here, text = folder(page), page.read_text()
    if re.search(r"\bRUN\b", text):
        fit.train(compose([*smoke, "run_dir=RUN", "callbacks.evaluation.splits=[test]"]), here / "RUN")
    ran = []
    for block in blocks(text):
        if block.language == "python" and not block.title:
            exec(compile(block.body, f"{page.name}:{block.line}", "exec"), {})
        for _, words in lines_of(block.body) if block.language in SHELL and not block.title else ():
            if words[0] in ENTRIES and "launcher=slurm" not in words:
                run_entry(ENTRIES[words[0]], list(words[1:]), smoke, monkeypatch, capsys)
                ran.append(words)
    assert ran
    for words in (words for words in ran if words[0] == "gebm-evaluate"):
        (out,) = (word.removeprefix("out=") for word in words if word.startswith("out="))
        rows = json.loads((here / out).read_text())["rows"]
        assert len(rows) > 1 and not [row["error"] for row in rows if row.get("error")]


def test_the_sampler_of_the_howto_is_exact(folder):
    folder(ROOT / "docs" / "howto" / "extend.md")
    from gebm_lightning.noise import BlockNoise
    from gebm_lightning.samplers import sample_chain

    kernel = importlib.import_module("my_gebm.barker").Barker(1.0)
    scale = torch.tensor([1.0, 0.3])
    z0 = torch.full((4096, 2), 2.0)
    z = sample_chain(kernel, lambda z: (z / scale).square().sum(1) / 2, z0, 300, generator=BlockNoise(0)).z / scale
    # Standard errors of mean and variance: 1/64 and sqrt(2)/64.
    assert z.mean(0).abs().max() < 4.5 / 64 and (z.var(0) - 1).abs().max() < 4.5 * 2**0.5 / 64


@pytest.mark.slow
def test_the_site_builds_and_has_every_public_name(tmp_path):
    pytest.importorskip("mkdocs"), pytest.importorskip("mkdocstrings_handlers.python"), pytest.importorskip("material")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    inventory = (tmp_path / "site" / "objects.inv").read_bytes().split(b"\n", 4)[4]
    known = {line.split(" ")[0] for line in zlib.decompress(inventory).decode().splitlines()}
    for module in PUBLIC:
        package = importlib.import_module(f"gebm_lightning{module and '.'}{module}")
        names = {f"{package.__name__}.{name}" for name in package.__all__ if not name.startswith("__")}
        assert names <= known, sorted(names - known)
    assert (tmp_path / "site" / "howto" / "extend" / "index.html").is_file()
