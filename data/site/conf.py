"""Sphinx configuration of the report; what differs from run to run is in site.json beside it."""

import json
from pathlib import Path

_site = json.loads((Path(__file__).parent / "site.json").read_text(encoding="utf-8"))

project = "PGO Crash Lab"
root_doc = _site["root"]
extensions = ["myst_nb"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

nb_execution_mode = "off"  # papermill has executed them
nb_merge_streams = True
nb_ipywidgets_js = {}  # nothing from the web: every widget has a static twin
suppress_warnings = ["myst.header", "misc.highlighting_failure"]

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = project
html_static_path = ["_static"]
html_css_files = ["lab.css"]
templates_path = ["_templates"]
html_context = {"run_line": _site["run"]}
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_use_index = False
html_theme_options = {
    # Blue and vermilion of Okabe and Ito: told apart with any kind of colour vision.
    "light_css_variables": {
        "color-brand-primary": "#00588f",
        "color-brand-content": "#00588f",
        "lab-good": "#00588f",
        "lab-bad": "#b34700",
    },
    "dark_css_variables": {
        "color-brand-primary": "#6db9ea",
        "color-brand-content": "#6db9ea",
        "lab-good": "#6db9ea",
        "lab-bad": "#f2935b",
    },
}
