"""Sphinx: pages in MyST Markdown, tutorials executed by myst-nb, API pages from the NumPy docstrings.

Nothing is fetched, neither when the site is built nor when it is read: formulas become MathML, and no other project is
asked for its index.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

import openmm_rlis

project = "openmm_rlis"
author = "the openmm_rlis authors"
version = release = openmm_rlis.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "figures"]

html_theme = "furo"
html_title = f"openmm_rlis {release}"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["local.css"]
html_copy_source = False

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_timeout = 900
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_in_temp = True  # tutorials write run directories

suppress_warnings = ["ref.python"]  # a word of a docstring that is the name of two things
default_role = "py:obj"  # a name in `backticks` links to its entry where it has one
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # types stand in the signatures and in the docstrings
autodoc_preserve_defaults = True
napoleon_numpy_docstring = True
napoleon_google_docstring = False
napoleon_use_param = False  # else each word of "(n_batches,)" is looked up
napoleon_use_rtype = False
napoleon_use_ivar = True


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def _tables(app: Sphinx) -> None:
    """Copy the tables of the benchmarks into the site, each below a heading, and their pictures."""
    results, folder = Path(app.srcdir).parent / "benchmarks" / "results", Path(app.srcdir) / "results"
    folder.mkdir(exist_ok=True)
    for picture in sorted(results.glob("*.png")):
        shutil.copyfile(picture, folder / picture.name)
    for table in sorted(results.glob("*.md")):
        text = f"# Benchmark: {table.stem}\n\n{table.read_text(encoding='utf-8')}"
        copy = folder / table.name
        if not copy.exists() or copy.read_text(encoding="utf-8") != text:
            copy.write_text(text, encoding="utf-8")


def _links(app: Sphinx, name: str, source: list[str]) -> None:
    """Point links to tables of the benchmarks at their pages, and leave the words of links to folders outside."""
    here = Path(app.srcdir, name).parent

    def changed(link: re.Match[str]) -> str:
        words, target = link.groups()
        if "benchmarks/results/" in target:
            return f"[{words}](/results/{Path(target).name})"
        return words if (here / target).is_dir() else link[0]

    source[0] = re.sub(r"\[([^\]]+)\]\((\.\./[^)\s]+)\)", changed, source[0])


def _show_formulas(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn the indented formulas of docstrings into literal blocks."""
    for i in range(len(lines) - 1, 1, -1):
        if lines[i - 1] or not lines[i].startswith("    "):
            continue
        before = next((line for line in reversed(lines[: i - 1]) if line), " ")
        if not before.startswith(" ") and not before.endswith("::"):
            lines[i:i] = ["::", ""]


def setup(app: Sphinx) -> None:
    """Write formulas as MathML, and make the tables of the benchmarks pages of the site."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.connect("builder-inited", _tables)
    app.connect("source-read", _links)
    app.connect("autodoc-process-docstring", _show_formulas, priority=1)  # before the sections are read
