"""Configure Sphinx: pages in Markdown (MyST), and a reference made of the docstrings.

`sphinx-build -E -W --keep-going -j 2 docs build/docs` builds the site and fails on any warning, such as a link that
leads nowhere. It needs no network.
"""

import ast
import re
import sys
from importlib.util import find_spec
from os.path import relpath
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import download_reference, pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cyclegan_fast.version import __version__  # noqa: E402 - found by the line above

project = "cyclegan-fast"
author = copyright = "the cyclegan-fast authors"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
]
if tags.has("sources"):  # noqa: F821 - Sphinx gives this name to the file
    # `-t sources` adds pages that show the code; their navigation takes a third of the time of the whole.
    extensions.append("sphinx.ext.viewcode")
highlight_language = "none"  # of blocks that name no language
html_theme = "furo"
html_title = f"cyclegan-fast {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False

# Headings get the anchors that GitHub gives them, so that a link works there and here.
myst_heading_anchors = 4

# --- the reference ---------------------------------------------------------------------------------------------------

INTRODUCTION = """\
This reference is made of the docstrings. It has a page for each folder and names every file in it; private names are
left out. `bench/` and `tests/` are read where they lie.
"""
PACKAGES = ("cyclegan_fast", "kernels", "export")
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "ignore-module-all": True,  # what a package's face shows again is described once, where it is written
}
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # torch's say nothing of ours
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_use_type_comments = False  # there are none, and to look for them takes a twentieth of the time
# What engines and the demo need and a machine that only builds this site may lack.
autodoc_mock_imports = [
    name for name in ("tensorrt", "tensorrt_rtx", "pycuda", "cuda", "gradio") if find_spec(name) is None
]
# A name that a package's face shows again has two places, and a type hint does not say which it means.
suppress_warnings = ["ref.python"]


def escape(_: Sphinx, _kind: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Turn the Markdown of a docstring into reStructuredText, in place.

    Code in backticks becomes a literal and nothing else is markup, so that `*` and `|` of a formula stay what they are.
    Lists of "name: text" and tables whose columns are aligned by spaces keep their lines.
    """
    text = re.sub(r"`[^`]+`|[*|\\]|_(?=\W|$)", _literal_or_escaped, "\n".join(lines).strip("\n"))
    lines[:] = [
        line for paragraph in re.split(r"\n(?:[ \t]*\n)+", text) for line in (*_laid_out(paragraph.split("\n")), "")
    ]


def _literal_or_escaped(found: re.Match[str]) -> str:
    part = found.group()
    if part[0] != "`":
        return f"\\{part}"
    ends = not re.match(r"\w", found.string[found.end() :])  # a literal ends where no word goes on
    return f"`{part}`" if ends else f"`{part}`\\ "


def _laid_out(paragraph: list[str]) -> list[str]:
    if paragraph[0].strip() == "Args:":
        return _arguments(paragraph[1:])
    if paragraph[0].startswith("- "):
        return paragraph  # a list, whose items go on in deeper lines
    if paragraph[0].startswith("    ") or any(re.search(r"\S {3,}\S", line) for line in paragraph):
        return ["| " + line.replace("   ", "\u2003") for line in paragraph]
    if sum(bool(re.match(r"[\w, ]{1,40}: ", line)) for line in paragraph) > 1:
        return [line if line.startswith(" ") else f"| {line}" for line in paragraph]
    return [line.strip() for line in paragraph]


def _arguments(lines: list[str]) -> list[str]:
    """Return the fields of arguments in Google's convention, "    name: text" with deeper lines that go on."""
    made: list[str] = []
    for line in lines:
        if begun := re.match(r" {4}([\w*\\][\w*\\, ]*): (.*)", line):
            names, text = begun.groups()
            *others, last = names.split(", ")
            made += [*(f":param {name}: see {last}" for name in others), f":param {last}: {text}"]
        else:
            made.append(f"    {line.strip()}")
    return made


def write_reference(app: Sphinx) -> None:
    """Write a page for each folder of code, with its files on it, and the table of all of them, below docs/api/."""
    pages = {}
    rows = ["# Reference", "", INTRODUCTION, "| file | what it holds |", "| --- | --- |"]
    for package in PACKAGES:
        for folder in sorted({path.parent for path in (ROOT / package).rglob("__init__.py")}):
            place = folder.relative_to(ROOT)
            name = ".".join(place.parts if package != "kernels" else ("cyclegan_fast", *place.parts))
            first = _docstring(folder / "__init__.py")
            rows.append(f"| [**`{place}/`**]({name}.md) | {_first_paragraph(first)} |")
            page = [f"# `{place}/`", "", _automodule(name)]
            for file in sorted({*folder.glob("*.py")} - {folder / "__init__.py"}):
                rows.append(
                    f"| [`{file.name}`]({name}.md#{_anchor(file.name)}) | {_first_paragraph(_docstring(file))} |"
                )
                page += [f"## `{file.name}`", "", _automodule(f"{name}.{file.stem}")]
            pages[f"{name}.md"] = page
    names = "\n".join(name.removesuffix(".md") for name in pages)
    pages["index.md"] = [*rows, "", f"```{{toctree}}\n:hidden:\n\n{names}\n```"]
    target = Path(app.srcdir) / "api"
    target.mkdir(exist_ok=True)
    for stale in {path.name for path in target.iterdir()} - set(pages):
        (target / stale).unlink()
    for name, lines in pages.items():
        text = "\n".join([*lines, ""])
        if not (target / name).exists() or (target / name).read_text() != text:  # else it is not built anew
            (target / name).write_text(text)


def _docstring(file: Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text())) or ""


def _first_paragraph(docstring: str) -> str:
    return " ".join(docstring.split("\n\n")[0].split()).replace("|", "\\|")


def _anchor(name: str) -> str:
    return re.sub(r"[^\w-]", "", name.lower())


def _automodule(name: str) -> str:
    return f"```{{eval-rst}}\n.. automodule:: {name}\n```\n"


# --- links into the repository ---------------------------------------------------------------------------------------


class LinksToPagesElsewhere(SphinxTransform):
    """Let a link to a Markdown file of the repository outside docs/ give that file: it is no page of the site."""

    default_priority = 400

    def apply(self) -> None:
        """Replace such links of the document that was read."""
        folder = Path(str(self.env.doc2path(self.env.docname))).parent
        for node in list(self.document.findall(pending_xref)):
            file = Path(f"{node['reftarget']}.md")
            if node["refdomain"] == "doc" and file.is_absolute() and file.is_file():
                place = relpath(file, folder)
                node.replace_self(download_reference("", "", *node.children, reftarget=place, refdoc=self.env.docname))


def link_into_repository(
    _: Sphinx, environment: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Show a link to a folder of the repository as its text: the site holds pages, the repository holds the code.

    Returns None, so that Sphinx warns, where there is no such folder.
    """
    if node.get("reftype") != "myst":
        return None
    page = Path(str(environment.doc2path(node["refdoc"])))
    target = (page.parent / str(node["reftarget"]).partition("#")[0]).resolve()
    return content if target.is_relative_to(ROOT) and target.exists() else None


def setup(app: Sphinx) -> None:
    """Connect the functions above."""
    app.connect("builder-inited", write_reference)
    app.connect("autodoc-process-docstring", escape)
    app.add_transform(LinksToPagesElsewhere)
    app.connect("missing-reference", link_into_repository)
