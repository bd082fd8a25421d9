"""Pushing an exported folder to a Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .errors import UserError, first_line


def hub_api(repo: str) -> Any:
    """What talks to a Hugging Face hub about `repo`, user/name; nothing is sent by this.

    Raises:
        UserError: the package is missing, or the name is none.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo, re.ASCII):
        raise UserError(f"hub={repo}: a repository is written user/name, with letters, digits, -, _ and .")
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise UserError(
            f"hub={repo} needs the package huggingface_hub: pip install -e '.[hub]', or leave out hub="
        ) from error
    return HfApi()


def push(api: Any, repo: str, folder: Path) -> str:
    """Upload an exported folder, as one commit, to a repository that is made if it is not there; its address.

    Raises:
        UserError: the hub refuses or cannot be reached; the folder stays as it is.
    """
    try:
        api.create_repo(repo_id=repo, repo_type="model", exist_ok=True)
        return str(api.upload_folder(repo_id=repo, repo_type="model", folder_path=str(folder)))
    except Exception as error:
        raise UserError(
            f"hub={repo}: {folder} is written, but could not be pushed: {first_line(error)}; "
            f"see to it, then run: hf upload {repo} {folder}"
        ) from error
