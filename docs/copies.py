"""The pages for other readers: as plain Markdown, and as a list for language models."""
import re
from .frame import description, first_heading
from .reference import doc_url

def plain_markdown(text):
    "A page without what only Sphinx reads"
    text = re.sub(r'\A---\n.*?\n---\n', '', text, flags=re.S)
    text = re.sub(r'```\{(toctree|py:currentmodule)\}.*?```\n?', '', text, flags=re.S)
    text = re.sub(r'```\{figure\} images/(\S+)\n:alt: (.*)\n(?::.*\n)*\n?(.*)\n```', r'![\2](_images/\1)\n\n\3', text)
    text = re.sub(r'^:{4,}\{py:\w+\} (.+)$', r'### `\1`', text, flags=re.M)
    text = re.sub(r'<a class="source" href="([^"]+)">source</a>', r'[source](\1)', text)
    text = re.sub(r'^:::+(\{\w+\})?\n(:class: .*\n)?|<span id="[^"]+"></span>\n*', '', text, flags=re.M)
    return re.sub(r'\]\(([\w.-]+)\.md\)', r'](\1.html.md)', text)

def copy_markdown(source, site):
    "Every page as Markdown beside it, `schedule.cycle.html.md`: the docstrings of modules link to these"
    for page in source.glob('*.md'):
        text = plain_markdown(page.read_text(encoding='utf-8'))
        (site/f'{page.stem}.html.md').write_text(text, encoding='utf-8')

def line_of(name, text):
    "A page in the list of all pages"
    about = description(text)
    return f'- [{first_heading(text)}]({doc_url}{name}.html.md)' + (f': {about}' if about else '')

def llms_text(texts, sections):
    "The list of all pages for language models, as https://llmstxt.org describes it; modules are its optional part"
    parts = ['# fastai_clr_ext', f'> {description(texts["index"])}']
    modules = []
    for section,items in sections.items():
        names = [item if isinstance(item, str) else item[0] for item in items]
        modules += [module for item in items if not isinstance(item, str) for module in item[1]]
        lines = [line_of(name, texts[name]) for name in names if name in texts] # Sphinx's own index is not
        parts.append(f'## {section}\n\n' + '\n'.join(lines))
    parts.append('## Optional\n\n' + '\n'.join(line_of(name, texts[name]) for name in modules))
    return '\n\n'.join(parts) + '\n'
