"""Settings of Sphinx, which ``make docs`` runs; every warning is an error there."""

import pathlib
import sys
from typing import Any

from docutils import nodes

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "engine"), str(ROOT)]

project = "DeepETPicker for Scipion"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]  # docs/api is made anew in every run
html_theme = "alabaster"
html_theme_options = {"page_width": "1200px", "sidebar_width": "260px"}
autosummary_generate = True
autodoc_default_options = {"members": True, "ignore-module-all": True, "show-inheritance": True}
autodoc_typehints = "none"  # the docstrings say types, with shapes
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
suppress_warnings = ["ref.python"]  # a docstring says Scene; two rooms have one, and no link is worth a longer word


def setup(app: Any) -> None:
    """Let links from page to page, which also work where the sources are read, lead to the pages made from them."""
    app.connect("doctree-resolved", link_pages)


def link_pages(app: Any, tree: nodes.document, page: str) -> None:
    """Point references to ``page.rst`` at ``page.html``."""
    for node in tree.findall(nodes.reference):
        target = node.get("refuri", "")
        if target.endswith(".rst") and "/" not in target:
            node["refuri"] = target[:-len("rst")] + "html"
