"""wandb's dashboard of a project as code: a workspace is built here without any network, and sent when it is saved."""

from __future__ import annotations

from typing import Any

from .errors import UserError, first_line
from .panels import PANELS, PICTURES, TABLE

STEP = "trainer/global_step"
"""What Lightning's logger calls the x-axis: base updates, here."""


def dashboard(entity: str, project: str, name: str = "GEBM") -> Any:
    """A `wandb_workspaces.workspaces.Workspace` with a section for each of `PANELS`', and the pictures and the table first.

    Raises:
        UserError: wandb-workspaces is not installed, or refuses a name.
    """
    try:
        import wandb_workspaces.reports.v2 as parts
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise UserError("dashboards need wandb-workspaces: pip install 'gebm-lightning[dashboards]'") from error
    media = parts.MediaBrowser(title="samples", media_keys=[f"images/{name}" for name in PICTURES], num_columns=1)
    table = parts.WeavePanelSummaryTable(table_name=TABLE)
    sections = [workspaces.Section(name="Samples", panels=[media, table], is_open=True)]
    for section in dict.fromkeys(panel.section for panel in PANELS):
        plots: list[Any] = [
            parts.LinePlot(title=p.title, x=STEP, metric_regex=f"^({p.keys})$", log_y=p.log, title_x="base updates")
            for p in PANELS
            if p.section == section
        ]
        sections.append(workspaces.Section(name=section, panels=plots, is_open=True))
    settings = workspaces.WorkspaceSettings(x_axis=STEP)
    try:
        return workspaces.Workspace(entity=entity, project=project, name=name, sections=sections, settings=settings)
    except ValueError as error:
        raise UserError(f"wandb has no dashboard of this name: {' '.join(str(error).split())}") from error


def save(workspace: Any) -> str:
    """Send a workspace to wandb as a new view of its project; the view's address.

    Raises:
        UserError: wandb does not take it.
    """
    try:
        return str(workspace.save().url)
    except Exception as error:  # of wandb, its transport, or the network: whatever it is, nothing was saved
        raise UserError(
            f"wandb did not take the dashboard: {first_line(error)}; log in with `wandb login`, and check entity and project"
        ) from error
