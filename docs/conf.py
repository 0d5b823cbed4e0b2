"Sphinx settings of the documentation; formulas become MathML, so that no page loads anything from elsewhere"
from pathlib import Path
from docutils.utils.math.latex2mathml import tex2mathml
from fastai_clr_ext import __version__

project,author,release = 'fastai_clr_ext', 'The fastai_clr_ext authors', __version__
copyright = '2026, ' + author
extensions = ['myst_parser']
html_theme,html_title = 'furo', f'fastai_clr_ext {release}'
html_css_files,html_js_files = ['docs.css', 'tables.css'], [('tables.js', {'defer': 'defer'})]
html_search_scorer = str(Path(__file__).parent/'scorer.js')
html_static_path = ['docs.css', 'tables.css', 'tables.js']
html_copy_source,html_show_sphinx,html_show_sourcelink = False, False, False
myst_enable_extensions = ['dollarmath', 'colon_fence', 'deflist']
myst_heading_anchors = 3
add_module_names = False
smartquotes = False # they would change the quotes of defaults
toc_object_entries_show_parents = 'hide'
suppress_warnings = ['myst.header', 'misc.highlighting_failure']

def mathml(block):
    def visit(self, node):
        from docutils.nodes import SkipNode
        self.body.append(tex2mathml(node.astext(), as_block=block))
        raise SkipNode
    return visit

def setup(app):
    app.add_html_math_renderer('mathml', (mathml(False), None), (mathml(True), None))

html_math_renderer = 'mathml'
