"""Sphinx configuration of the site; what differs from run to run is in site.json beside it."""

project = "PGO Crash Lab"
root_doc = "index"
extensions = ["myst_nb", "nbsupport.report.sphinx_extension"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

nb_execution_mode = "off"  # papermill has executed them
nb_merge_streams = True
nb_render_markdown_format = "myst"  # with tables
nb_code_prompt_show = nb_code_prompt_hide = "How this is computed"
nb_ipywidgets_js = {}  # nothing from the web: every widget has a static twin
# xref_missing: tours name sections that a notebook of somebody's may not have; a test looks at ours
suppress_warnings = ["myst.header", "myst.xref_missing", "misc.highlighting_failure"]

html_theme = "furo"

pygments_dark_style = "github-dark"
html_title = project
html_static_path = ["_static"]
html_css_files = ["lab.css"]
html_js_files = ["lab.js"]
templates_path = ["_templates"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_use_index = False
html_theme_options = {
    # Blue, green and vermilion of Okabe and Ito: told apart with any kind of colour vision.
    "light_css_variables": {
        "color-brand-primary": "#00588f",
        "color-brand-content": "#00588f",
        "lab-good": "#00714f",
        "lab-bad": "#b34700",
    },
    "dark_css_variables": {
        "color-brand-primary": "#6db9ea",
        "color-brand-content": "#6db9ea",
        "lab-good": "#33c396",
        "lab-bad": "#f2935b",
    },
}
