"""Makes the repository's README the site's front page, so that one text serves both and its links work in both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

README = Path(__file__).parents[1] / "README.md"


def on_files(files: Files, config: Any) -> Files:
    """Add the README as `index.md`; from there `docs/x.md` is `x.md`."""
    text = README.read_text().replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links to the README, which lies one folder above the pages, at the front page."""
    return re.sub(r"\]\(((?:\.\./)*)\.\./README\.md", r"](\1index.md", markdown)
