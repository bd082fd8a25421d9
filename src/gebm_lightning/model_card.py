"""The README.md of an exported folder: what the model is, how to load and sample it, its scores with their protocol."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from .errors import first_line
from .gebm import GEBM
from .priors import Gaussian, Uniform

TAGS = ("generalized-energy-based-model", "energy-based-model", "generative-model", "pytorch")
SCORES = {"relative FID": "relative_fid", "KID": "kid", "precision": "precision", "recall": "recall"}


def read_summary(run: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """A run's `summary.json`, None where there is none, and a sentence if it is there but cannot be read."""
    path = run / "summary.json"
    if not path.is_file():
        return None, []
    try:
        summary = json.loads(path.read_text())
        scores(summary, "ema", "0")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, StopIteration) as error:
        return None, [f"the scores are left out of the card: {path} cannot be read ({first_line(error)})"]
    return summary, []


def write_card(
    path: Path,
    gebm: GEBM,
    cfg: DictConfig,
    told: dict[str, str],
    summary: dict[str, Any] | None,
    missing: str | None,
    trust: tuple[str, ...] = (),
) -> None:
    """Write the card.

    Args:
        told: "base", ema or raw, and "base_updates", how many the checkpoint had seen.
        summary: the content of `summary.json`, or None.
        missing: why there is no `base.pt2`; None if it is there.
        trust: modules that `load` must be told of.
    """
    parts = [front_matter(gebm, cfg), about(gebm, cfg, told), usage(gebm, cfg, trust), alone(gebm, missing)]
    parts.append(scores(summary, told["base"], told["base_updates"]) if summary else "## Scores\n\nNone were kept.")
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def front_matter(gebm: GEBM, cfg: DictConfig) -> str:
    """The YAML that a model hub reads."""
    task = ["pipeline_tag: unconditional-image-generation"] if _is_image(cfg) and gebm.num_classes is None else []
    return "\n".join(["---", "library_name: gebm_lightning", *task, "tags:", *(f"- {tag}" for tag in TAGS), "---"])


def table(header: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """A table in Markdown."""
    lines = [[" ".join(str(cell).split()).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _target(cfg: DictConfig, key: str) -> str:
    return str(OmegaConf.select(cfg, f"{key}._target_") or "unknown").split(".")[-1]


def about(gebm: GEBM, cfg: DictConfig, told: dict[str, str]) -> str:
    """What it is, and the config in short."""
    sizes = {part: sum(p.numel() for p in getattr(gebm, part).parameters()) for part in ("base", "energy")}
    averaged = "the running average of the trained one" if told["base"] == "ema" else "the trained one itself"
    rows = [
        ("data", f"{_target(cfg, 'data.source')}, {tuple(cfg.data.get('shape') or ()) or 'of unknown shape'}"),
        ("objective", _target(cfg, "objective")),
        ("base", f"{_target(cfg, 'model.base')}, {sizes['base']:,} parameters, {averaged} (base={told['base']})"),
        ("energy", f"{_target(cfg, 'model.energy')}, {sizes['energy']:,} parameters"),
        ("latents", f"{_target(cfg, 'model.prior')}, {gebm.prior.dim} dimensions"),
        ("classes", "none" if gebm.num_classes is None else gebm.num_classes),
        ("log Z", f"{gebm.log_partition.item():.6g}"),
        ("base updates", told["base_updates"]),
        ("seed", cfg.seed),
    ]
    name = " ".join(str(cfg.get("name") or "gebm").split())
    return (
        f"# {name}\n\n"
        "A generalized energy-based model ([Arbel, Zhou & Gretton, ICLR 2021](https://arxiv.org/abs/2003.05033)): a "
        "base maps latents to data, and the model is the base's law times exp(−E)/Z, with an energy E that is low on real data."
        "\n\n" + table(("", ""), rows) + "\n\nAll settings are in `config.yaml`."
    )


def usage(gebm: GEBM, cfg: DictConfig, trust: tuple[str, ...]) -> str:
    """How to load and sample it with this package."""
    trusted = f", trust={trust!r}" if trust else ""
    labels, y = ("", "") if gebm.num_classes is None else ("y = gebm.sample_labels(64, BlockNoise(1))\n", ", y")
    foreign = f" `trust` lets it import what defines its networks: {', '.join(trust)}." if trust else ""
    return (
        "## Load and sample\n\nWith the package `gebm_lightning`, where FOLDER is this folder:\n\n```python\n"
        "from gebm_lightning import load\nfrom gebm_lightning.noise import BlockNoise\n"
        "from gebm_lightning.samplers import SIR, BaseSampler\n\n"
        f'gebm = load("FOLDER"{trusted})  # runs no code of the folder\n{labels}'
        f"x = SIR(pool=50_000).refine(gebm, 64, BlockNoise(0){y}).x  # the model, by importance resampling\n"
        f"raw = BaseSampler().refine(gebm, 64, BlockNoise(0){y}).x  # the base alone\n```\n\n"
        "The package has other samplers, such as Langevin chains; the one of the training run is `sampler` in `config.yaml`."
        + foreign
        + (" Images are in [−1, 1]." if _is_image(cfg) else "")
    )


def _is_image(cfg: DictConfig) -> bool:
    return len(cfg.data.get("shape") or ()) == 3


def alone(gebm: GEBM, missing: str | None) -> str:
    """How to run the base with torch alone, or why that cannot be."""
    if missing is not None:
        return f"## The base alone\n\nThere is no `base.pt2`: {missing}."
    prior, d = gebm.prior, gebm.prior.dim
    comment, draw = "", f"torch.randn(64, {d})"
    if isinstance(prior, Uniform):
        draw = f"{prior.low} + {prior.high - prior.low} * torch.rand(64, {d})"
    elif not isinstance(prior, Gaussian):
        comment = f"  # in place of the prior's law, a {type(prior).__name__} that is in model.safetensors"
    y = "" if gebm.num_classes is None else f", torch.randint({gebm.num_classes}, (64,))"
    return (
        "## The base alone\n\nWith torch and nothing else, on the CPU, for any number of samples:\n\n```python\nimport torch\n\n"
        f'base = torch.export.load("base.pt2").module()\nx = base({draw}{y}){comment}\n```'
    )


def scores(summary: dict[str, Any], base: str, base_updates: str) -> str:
    """Scores and their protocol, as `summary.json` has them, and in what it is about other weights than these."""
    protocol = summary["protocol"]
    rows, columns, failed = [], dict(SCORES), []
    for row in summary["rows"]:
        if not row["scores"]:
            failed.append(f"{row['method']}: {row.get('error', 'no scores')}")
        for split, found in row["scores"].items():
            fid = next(key for key in found if key.startswith("fid_"))
            columns = {fid: fid, **SCORES}
            rows.append((row["method"], split, *(f"{found[key]:.4g}" for key in columns.values())))
    text = ["## Scores", table(("samples", "against", *columns), rows), *failed]
    for split, found in summary.get("likelihood", {}).get("splits", {}).items():
        text.append(f"Negative log-likelihood, {split}: {found['nll']:.4g} nats (base: {found['base_nll']:.4g}).")
    seen = summary.get("base_updates")
    if str(seen) != base_updates:
        text.append(f"They were taken after {seen} base updates; these weights are those after {base_updates}.")
    if protocol["base"] != base:
        text.append(f"They were taken with base={protocol['base']}; the base here is the one with base={base}.")
    sizes = ", ".join(f"{n['num_generated']} against {n['num_real']} of {s}" for s, n in protocol["splits"].items())
    text.append(
        f"Extractor `{protocol['extractor']}` (weights {protocol['extractor_weights_sha256']}, input {protocol['extractor_input']}), "
        f"samples {sizes}, seed {protocol['seed']}, base={protocol['base']}. The protocol in full:"
    )
    text.append(f"```json\n{json.dumps(protocol, indent=2)}\n```")
    return "\n\n".join(text)
