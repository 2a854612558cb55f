"""Sphinx makes the site of these pages: ``make -C docs html``. It needs no network, and warnings are errors."""

import sys
from pathlib import Path

import recsolve

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_sphinx"))  # our own extensions

project, author, copyright = "recsolve", "The recsolve developers", "The recsolve developers"
version = release = recsolve.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_design",
    "docstrings",
    "mathml",
    "pages",
    "reference",
]
exclude_patterns = ["_build", "_sphinx", "runs", "**/.ipynb_checkpoints"]
smartquotes = False  # h' is a prime
highlight_language = "text"

# Pages
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4  # the anchors that GitHub gives headings
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "executed")
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True
nb_output_stderr = "remove"  # notices of compiling come only where nothing is compiled yet

# Reference
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings say the types, with shapes
autosummary_generate = False  # the extension `reference` writes the pages
numpydoc_show_class_members = False

# Looks
html_theme = "furo"
html_title = f"recsolve {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = html_show_sourcelink = False
html_math_renderer = "mathml"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
