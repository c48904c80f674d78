"""The settings of sphinx for `nox -s docs`."""

from __future__ import annotations

import re
import shutil

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import GoogleDocstring
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

from intercom_data_events import __version__
from public_names import PACKAGE, is_private, kind, members, public
from signatures import arguments

NAMES = public()
#: The full path of each public name.
HOMES = {name.name: name.path for name in NAMES.values()}

project = "intercom-data-events"
version = release = __version__
author = "The intercom-data-events authors"
copyright = author  # noqa: A001  # sphinx calls it so
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser"]
root_doc = "README"
html_theme = "furo"
html_title = f"{project} {version}"
html_show_sphinx = False
html_static_path = ["static"]
html_css_files = ["site.css"]
nitpicky = True
default_role = "py:obj"
myst_heading_anchors = 6

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

#: An attribute whose type napoleon puts below the description, and not beside the name.
TYPE_BELOW = re.compile(
    r"^(( *)\.\. attribute:: .+\n)((?:\2   .*\n| *\n)*?)\2   :type: (.+)$", re.MULTILINE
)


def setup(app: Sphinx) -> None:
    for name in NAMES.values():
        if kind(name) == "data":
            # Of a name that is imported, sphinx does not look for the comment where it is made.
            comments = ModuleAnalyzer.for_module(name.home).find_attr_docs()
            comments["", name.name] = [*name.doc.split("\n"), ""]
    app.connect("autodoc-process-docstring", parse_sections)
    app.connect("autodoc-process-signature", write_arguments)
    app.connect("autodoc-process-bases", hide_private_bases)
    app.connect("missing-reference", find_name)
    app.connect("doctree-read", check_indentation)
    app.connect("doctree-read", link_names)
    app.connect("env-check-consistency", check_names)
    app.connect("build-finished", write_index)


def parse_sections(
    app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    """Reads the sections of a docstring, of whatever it is."""
    form = "function" if what in ("attribute", "data", "property") else what
    read = "\n".join(GoogleDocstring(lines, app.config, app, form, name, value, options).lines())
    lines[:] = TYPE_BELOW.sub(r"\1\2   :type: \4\n\3", read).split("\n")


def write_arguments(
    _app: Sphinx,
    _what: str,
    _name: str,
    value: object,
    _options: object,
    signature: str | None,
    returned: str | None,
) -> tuple[str | None, str | None]:
    """Shows the arguments of a class or function as callers know them."""
    if signature:
        signature = arguments(value, signature)
    return signature, returned


def hide_private_bases(
    _app: Sphinx, _name: str, _value: object, _options: object, bases: list[type]
) -> None:
    """Leaves out bases that callers cannot import."""
    bases[:] = [base for base in bases if not is_private(base)]


def link_names(app: Sphinx, document: nodes.document) -> None:
    """Links the public names in the code of a sentence, also in the guides."""
    for code in list(document.findall(nodes.literal)):
        target = code.astext().removesuffix("()")
        is_linked = isinstance(code.parent, nodes.reference | pending_xref)
        if target.split(".")[0] in HOMES and not is_linked:
            options = {"refdomain": "py", "reftype": "obj", "reftarget": target}
            link = pending_xref("", code.deepcopy(), refdoc=app.env.docname, **options)
            code.replace_self(link)


def find_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Element | None:
    """Finds a public name by itself, or at another path than that of its page.

    Members of public names must exist. So must the targets of roles and Raises sections, unless
    they belong to another package. All other types and code are shown as plain text.
    """
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    first, *rest = target.split(".")
    path = NAMES[target].path if target in NAMES else None
    if first in HOMES:
        path = ".".join([HOMES[first], *rest])
    if path is not None:
        return env.domains.python_domain.resolve_xref(
            env, node["refdoc"], app.builder, "obj", path, node, content
        )
    is_ours = not rest or first == PACKAGE
    is_written = isinstance(content, nodes.literal) and node["reftype"] != "obj"
    must_be_found = is_ours and (is_written or node["reftype"] == "exc")
    return None if must_be_found else content


def check_names(_app: Sphinx, env: BuildEnvironment) -> None:
    """Fails where a public name, or a member of a public class, has no documentation."""
    expected = {path for name in NAMES.values() for path in (name.path, *members(name))}
    found = set(env.domains.python_domain.objects)
    # A page has a class or a constant without documentation, too.
    found -= {name.path for name in NAMES.values() if not name.doc}
    for path in sorted(expected - found):
        log.warning("%s has no docstring", path)


def check_indentation(app: Sphinx, document: nodes.document) -> None:
    """Fails where indented code of a docstring would become a quotation."""
    if app.env.docname.startswith("api/"):
        for quote in document.findall(nodes.block_quote):
            log.warning("indented text is a quotation; write :: before code", location=quote)


def write_index(app: Sphinx, error: Exception | None) -> None:
    """Makes the front page what a server shows for the folder."""
    if error is None:
        shutil.copyfile(app.outdir / "README.html", app.outdir / "index.html")
