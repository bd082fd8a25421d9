"""A sweep's results: `sweep.csv`, `sweep.md` and `sweep.png` in its folder."""

from __future__ import annotations

import csv
import io
import json
import os
from math import isfinite
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FOLDERS: list[Path] = []


class RememberSweep(Callback):
    """Hydra's callback that learns where a sweep lies, in the process that started it."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _FOLDERS.append(Path(config.hydra.sweep.dir).absolute())


def report_sweeps() -> None:
    """Write the results of the sweeps that this process has started, and print the table."""
    while _FOLDERS:
        folder = _FOLDERS.pop()
        rows = collect(folder)
        if rows:
            write(folder, rows)


def job_folders(folder: Path) -> list[Path]:
    """Those of a sweep's jobs that have begun, without what was put aside."""
    return [path.parent for path in sorted(folder.glob("*/config.yaml")) if ".broken-" not in path.parent.name]


def collect(folder: Path) -> list[dict[str, Any]]:
    """One row for each job: the keys in which the jobs' configs differ, its state, and its scores."""
    configs = {job: _flat(job / "config.yaml") for job in job_folders(folder)}
    differing = [
        key
        for key in sorted({key for config in configs.values() for key in config})
        if len({str(config.get(key)) for config in configs.values()}) > 1
    ]
    columns = {key: tuple(str(config.get(key)) for config in configs.values()) for key in differing}
    # A value that the config hands on to other keys shows once, under the shortest.
    differing = [
        k for k in differing if k == min((o for o in differing if columns[o] == columns[k]), key=lambda o: (len(o), o))
    ]
    for root in [key for key in differing if key.endswith("._target_") and key.count(".") == 1]:
        differing = _without_consequences(differing, root, columns)
    rows = []
    for job, config in configs.items():
        row: dict[str, Any] = {"job": job.name} | {key: config.get(key) for key in differing}
        row["state"] = "finished" if (job / "finished.json").is_file() else "unfinished"
        summary = job / "summary.json"
        rows.append(row | (summary_scores(json.loads(summary.read_text())) if summary.is_file() else {}))
    return sorted(rows, key=lambda row: [str(row[key]) for key in differing])


def _without_consequences(keys: list[str], root: str, columns: dict[str, tuple[str, ...]]) -> list[str]:
    """The keys without those that only follow from another class in a group, such as the settings that it alone has."""

    def follows(key: str, told: list[str]) -> bool:
        groups: dict[tuple[str, ...], set[str]] = {}
        for i, value in enumerate(columns[key]):
            groups.setdefault(tuple(columns[k][i] for k in told), set()).add(value)
        return all(len(values) == 1 for values in groups.values())

    told = [root]
    group = root.removesuffix("_target_")
    for key in sorted((k for k in keys if k.startswith(group) and k != root), key=lambda k: (k.count("."), len(k))):
        if not follows(key, told):
            told.append(key)
    return [k for k in keys if k in told or not follows(k, told)]


def _flat(path: Path) -> dict[str, Any]:
    """A config's leaves by dotted key, without what only says where a run lies."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, node: Any) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(f"{prefix}.{key}" if prefix else str(key), value)
        elif prefix not in ("run_dir", "resume") and not prefix.endswith(".save_dir"):
            flat[prefix] = node

    walk("", OmegaConf.to_container(OmegaConf.load(path)))
    return flat


def summary_scores(summary: dict[str, Any]) -> dict[str, float]:
    row = {}
    for result in summary["rows"]:
        method = result["method"].replace(" ", "_")
        for split, scores in result["scores"].items():
            fid = next(value for key, value in scores.items() if key.startswith("fid_"))
            row[f"{split}/relative_fid/{method}"], row[f"{split}/fid/{method}"] = scores["relative_fid"], fid
            for key in ("high_quality", "modes", "mode_js"):
                if key in scores:
                    row[f"{split}/{key}/{method}"] = scores[key]
        if "ess_share" in result:
            row[f"ess_share/{method}"] = result["ess_share"]
    for split, told in summary.get("likelihood", {}).get("splits", {}).items():
        row[f"{split}/nll"], row[f"{split}/base_nll"] = told["nll"], told["base_nll"]
    for split, bounds in summary.get("bounds", {}).items():
        row[f"{split}/kale"], row[f"{split}/donsker_varadhan"] = bounds["kale"], bounds["donsker_varadhan"]
    return row


def write(folder: Path, rows: list[dict[str, Any]]) -> None:
    """All three files, each all or nothing; the table is printed as well."""
    from ..callbacks.images import save

    keys = keys_of(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, keys)
    writer.writeheader()
    writer.writerows(rows)
    _replace(folder / "sweep.csv", text.getvalue())
    table = markdown(rows, keys)
    if averaged := over_seeds(rows, keys):
        table += "\nMean ± standard deviation over seeds:\n\n" + markdown(averaged, keys_of(averaged))
    _replace(folder / "sweep.md", table)
    drawn = figure(rows, keys)
    if drawn is not None:
        save(drawn, folder / "sweep.png")
    print(table)
    print(folder)


def keys_of(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def over_seeds(rows: list[dict[str, Any]], keys: list[str]) -> list[dict[str, Any]]:
    """One row for each setting whose jobs differ in their seed alone, of those that are scored; none if seeds do not differ."""
    settings = [k for k in keys if "/" not in k and k not in ("job", "state", "seed")]
    if "seed" not in keys:
        return []
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if any("/" in key for key in row):
            groups.setdefault(str([row.get(k) for k in settings]), []).append(row)
    averaged = []
    for group in groups.values():
        row = {k: group[0].get(k) for k in settings} | {"seeds": len(group)}
        for key in (k for k in keys if "/" in k):
            values = [r[key] for r in group if key in r]
            if values:
                spread = f" ± {stdev(values):.3f}" if len(values) > 1 and all(map(isfinite, values)) else ""
                row[key] = f"{fmean(values):.3f}{spread}"
        averaged.append(row)
    return averaged


def markdown(rows: list[dict[str, Any]], keys: list[str]) -> str:
    """The rows as a table."""
    headings, lines = cells(rows, keys)
    texts = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return "\n".join([*texts, *("| " + " | ".join(line) + " |" for line in lines)]) + "\n"


def cells(rows: list[dict[str, Any]], keys: list[str]) -> tuple[list[str], list[list[str]]]:
    """Headings of the rows' table, and its lines: what differs, relative FID, FID of the base, the equilibrium's ESS, the bounds.

    Where the data's modes are known, their scores stand in the place of FID, and of the bounds.
    """
    shown = [k for k in keys if "/" not in k]
    known = [k for k in keys if k.split("/")[1:2] in (["high_quality"], ["modes"], ["mode_js"])]
    if known:
        split = known[-1].split("/")[0]
        shown += sorted((k for k in known if k.startswith(split)), key=lambda k: k.split("/")[1])
        shown += [k for k in keys if k.endswith("ess_share/equilibrium")]
    else:
        ends = ("/nll", "/base_nll", "/fid/base", "ess_share/equilibrium", "/kale", "/donsker_varadhan")
        shown += [k for k in keys if ("/relative_fid/" in k and not k.endswith("/base")) or k.endswith(ends)]
    lines = [[_text(_short(k, row.get(k)), ".3f" if "/" in k else ".4g") for k in shown] for row in rows]
    return [k.removesuffix("._target_") for k in shown], lines


def figure(rows: list[dict[str, Any]], keys: list[str]) -> Figure | None:
    """Relative FID of each scored job; None if there are none."""
    from matplotlib.figure import Figure

    scored = [row for row in rows if any("/relative_fid/" in key for key in row)]
    if not scored:
        return None
    settings = [k for k in keys if "/" not in k and k not in ("job", "state")]
    labels = [", ".join(_setting(k, row[k]) for k in settings if row[k] is not None) or row["job"] for row in scored]
    split = "test" if any("test/relative_fid/equilibrium" in row for row in scored) else "train"
    drawn = Figure(figsize=(8, 1.2 + 0.35 * len(scored)), layout="constrained")
    ax = drawn.subplots()
    for marker, method in (("o", "short_run"), ("D", "equilibrium")):
        values = [row.get(f"{split}/relative_fid/{method}", float("nan")) for row in scored]
        ax.plot(values, range(len(scored)), marker, label=method.replace("_", " "))
    ax.axvline(1.0, color="grey", linewidth=0.8)
    ax.set_yticks(range(len(scored)), labels, fontsize=7)
    ax.invert_yaxis()
    ax.set_xlabel(f"FID against {split} data, relative to the base's")
    ax.legend(fontsize=8)
    return drawn


def _setting(key: str, value: Any) -> str:
    return f"{key.removesuffix('._target_').rsplit('.', 1)[-1]}={_text(_short(key, value), '.4g')}"


def _short(key: str, value: Any) -> Any:
    return str(value).rsplit(".", 1)[-1] if key.endswith("._target_") else value


def _text(value: Any, form: str) -> str:
    return "" if value is None else format(value, form) if isinstance(value, float) else str(value)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
