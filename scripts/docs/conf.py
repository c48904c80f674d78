"""The settings of sphinx for `nox -s docs`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import GoogleDocstring
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).parent))

import pages

NAMES = pages.public()
#: The full path of each public name.
HOMES = {name.name: name.path for name in NAMES.values()}

project = "intercom-data-events"
version = release = pages.intercom_data_events.__version__
author = "The intercom-data-events authors"
copyright = author  # noqa: A001  # sphinx calls it so
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser"]
root_doc = "README"
html_theme = "furo"
html_title = f"{project} {version}"
html_show_sphinx = False
nitpicky = True
default_role = "py:obj"
myst_heading_anchors = 6
myst_heading_slug_func = "links.slug"

add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
# Not by napoleon's own handler, which takes a property's first line up to a colon for its type.
napoleon_google_docstring = napoleon_numpy_docstring = False

log = logging.getLogger(__name__)


def setup(app: Sphinx) -> None:
    for name in NAMES.values():
        if name.home != name.origin:
            comments = ModuleAnalyzer.for_module(name.origin).find_attr_docs()
            if ("", name.name) in comments:
                here = ModuleAnalyzer.for_module(name.home).find_attr_docs()
                here["", name.name] = comments["", name.name]
    app.connect("autodoc-process-docstring", parse_sections)
    app.connect("autodoc-process-bases", hide_private_bases)
    app.connect("missing-reference", find_name)
    app.connect("env-check-consistency", check_names)
    app.connect("build-finished", write_index)


def parse_sections(
    app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    """Reads the sections of a docstring, of whatever it is."""
    kind = "function" if what in ("attribute", "data", "property") else what
    lines[:] = GoogleDocstring(lines, app.config, app, kind, name, value, options).lines()


def hide_private_bases(
    _app: Sphinx, _name: str, _value: object, _options: object, bases: list[type]
) -> None:
    """Leaves out bases that callers cannot import."""
    bases[:] = [base for base in bases if "._" not in str(base) and base is not object]


def find_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Element | None:
    """Finds a public name by itself, or at another path than that of its page.

    A name in a signature, a base, and one in single backticks may have no page; a role and what a
    function raises must have one, unless they belong to another package.
    """
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    first, *rest = target.split(".")
    path = NAMES[target].path if target in NAMES else ".".join([HOMES.get(first, first), *rest])
    found = env.domains.python_domain.resolve_xref(
        env, node["refdoc"], app.builder, "obj", path, node, content
    )
    is_ours = not rest or first == pages.PACKAGE
    is_written = isinstance(content, nodes.literal) and node["reftype"] != "obj"
    if found is None and not (is_ours and (is_written or node["reftype"] == "exc")):
        return content
    return found


def check_names(_app: Sphinx, env: BuildEnvironment) -> None:
    """Fails where a public name has no documentation."""
    documented = env.domains.python_domain.objects
    for name in sorted(set(HOMES.values()) - set(documented)):
        log.warning("%s has no docstring", name)


def write_index(app: Sphinx, error: Exception | None) -> None:
    """Makes the front page what a server shows for the folder."""
    if error is None:
        shutil.copyfile(app.outdir / "README.html", app.outdir / "index.html")
