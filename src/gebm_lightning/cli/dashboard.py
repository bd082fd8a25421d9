"""`gebm-dashboard`: wandb's view of a project's runs, made from code."""

from __future__ import annotations

from omegaconf import DictConfig

from ..errors import UserError
from .command import run_command


def main() -> None:
    """Entry of `dashboard.py` and `gebm-dashboard`."""
    run_command("dashboard", _task)


def _task(cfg: DictConfig) -> None:
    from ..dashboards import dashboard, save

    if cfg.entity is None:
        raise UserError("entity= is missing: the wandb user or team that the project belongs to")
    print(save(dashboard(cfg.entity, cfg.project, cfg.view)))


if __name__ == "__main__":
    main()
