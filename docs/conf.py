"""The site: ``nox -s docs`` builds it into docs/_build/html."""

import os
import sys
import tomllib
import warnings
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent)]
# Notebooks import experiments from the checkout; their kernels are other processes.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH", "")]))
warnings.filterwarnings("ignore", message=".*jaxtyping.*")

with (HERE.parent / "pyproject.toml").open("rb") as file:
    PROJECT = tomllib.load(file)["project"]

project = PROJECT["name"]
author = "The funcnn maintainers"
# The hyphen of the licence breaks no line.
project_copyright = f"{author}. {PROJECT['license'].replace('-', chr(0x2011))}"
version = release = PROJECT["version"]

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_design",
    "docstring_equations",
    "mathml",
    "reference",
    "measured_results",
]
exclude_patterns = ["_build", "_extensions", "results/generated"]
html_math_renderer = "mathml"

# Notebooks are executed at every build; an error in one stops it.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
# ipywidgets would be fetched from a network.
nb_ipywidgets_js = {}
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Fields", "params_style"), "Source"]
napoleon_use_rtype = False
# Arguments that share a description are one entry.
napoleon_use_param = False
python_use_unqualified_type_names = True
add_module_names = False
default_role = "code"
toc_object_entries_show_parents = "hide"

html_theme = "sphinx_book_theme"
html_title = "funcnn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_show_sourcelink = False
html_last_updated_fmt = None
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "navbar_persistent": [],
    "navbar_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_context = {"default_mode": "auto"}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
