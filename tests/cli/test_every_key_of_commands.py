"""Every key of every command's config, of another type, out of range, null, or missing: one sentence, or it works."""

import pytest
from every_key import SKIPPED, WRONG, leaves, nonsense

from gebm_lightning import compose
from gebm_lightning.cli import dashboard, evaluate, export, particles, report, sample, train

COMMANDS = {
    sample: ["num_samples=8"],
    evaluate: [
        *("num_samples=64", "max_real=64", "compare=[base,sir]", "methods.sir.pool=128"),
        *("scores.kid_subsets=2", "scores.kid_subset_size=16", "scores.prc_samples=64"),
    ],
    particles: ["num_steps=2", "num_particles=20", "target.num=20", "animation=null", "frames=2"],
    export: ["program=false"],
    report: [],
    dashboard: ["entity=me"],
}
# Groups, and keys that are neither read nor written without another one; those of methods are the samplers', tried elsewhere.
GROUPS = {"objective", "model", "features", "data", "sampler", "methods", "debug"}


def given_to(module, run):
    """What says which run, if the command is about one."""
    keys = {particles: None, dashboard: None, report: "run"}
    key = keys.get(module, "ckpt")
    return [] if key is None else [f"{key}={run}"]


@pytest.fixture
def toy(command, smoke):
    """A finished run on points."""
    status, out, err = command(train, "data=ring", *smoke, "callbacks.evaluation=null", "callbacks.sampling=null")
    assert status == 0, err
    return out.strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("module", COMMANDS, ids=lambda m: m.__name__.rsplit(".", 1)[-1])
def test_every_key_of_a_command(module, command, toy, tmp_path, request):
    name = module.__name__.rsplit(".", 1)[-1]
    given, has_out = given_to(module, toy), module is not dashboard
    if module is dashboard:
        request.getfixturevalue("wandb_server")
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
                out = [f"out={tmp_path}/{key}-{kind}"] if has_out and key != "out" else []
                status, _, err = command(module, *others, argument, *out)
            except Exception as error:
                wrong.append(f"{argument}: {type(error).__name__}: {str(error).splitlines()[:1]}")
                continue
            lines = [line for line in err.splitlines() if line.startswith("error: ")]
            if status not in (0, 1) or (status == 1) != (len(lines) == 1):
                wrong.append(f"{argument}: status {status}: {err[-200:]}")
            if status == 0 and nonsense(kind, value):
                wrong.append(f"{argument} was accepted")
            if status == 1 and (tmp_path / f"{key}-{kind}").exists():
                wrong.append(f"{argument} left something half-written")
    assert not wrong, "\n".join(wrong)
