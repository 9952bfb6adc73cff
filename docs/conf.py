"""Configuration of the documentation site: `make docs` builds it, without a network."""

import re
import sys
from pathlib import Path

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import sk_momkd  # noqa: E402

(ROOT / "docs" / "_extra").mkdir(exist_ok=True)  # llms.txt is written there

project = "sk_momkd"
author = "The sk_momkd developers"
project_copyright = author
version = release = sk_momkd.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "api_pages",
]
exclude_patterns = ["_build", "_extra", "auto_examples/**/*.ipynb", "auto_examples/**/*.py"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["config.cache"]

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
default_role = "literal"
math_number_all = False
html_math_renderer = "mathml"

html_theme = "pydata_sphinx_theme"
html_title = "sk_momkd"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_extra"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "show_nav_level": 1,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "header_links_before_dropdown": 6,
}
html_sidebars = {"index": [], "changelog": [], "glossary": [], "install": [], "quickstart": []}

sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "auto_examples",
    "within_subsection_order": "sphinx_gallery.sorting.FileNameSortKey",
    "abort_on_example_error": True,
    "copyfile_regex": "",
    "download_all_examples": False,
    "show_signature": False,
    "capture_repr": (),
    "remove_config_comments": True,
    "reset_modules": (),
    "write_computation_times": False,
}


def visit_math(translator, node):
    """Write an equation as MathML, which browsers draw without a script or a network."""
    block = node.tagname == "math_block"
    formula = tex2mathml(node.astext(), as_block=block)
    translator.body.append(f'<div class="math">{formula}</div>' if block else formula)
    raise SkipNode


def link_examples(app, docname, source):
    """Lead links to the code of examples, which a code host shows, to their pages of the site."""
    folder = "../" * docname.count("/") + "auto_examples"
    text = source[0].replace("examples/gallery/README.md)", "examples/gallery/index.py)")
    source[0] = re.sub(r"\]\([./]*examples/gallery/(\w+)\.py\)", rf"]({folder}/\1.rst)", text)


def setup(app):
    """Register the renderer of equations and where links to examples lead."""
    app.connect("source-read", link_examples)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
