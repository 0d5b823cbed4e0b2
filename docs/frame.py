"""What stands around the text of a page: how its names are imported, who uses them, where it is made."""
import json, re, textwrap
from .reference import doc_url, entry_names, git_url

def first_heading(text): return re.search(r'^# (.+)$', text, flags=re.M)[1]

def description(text):
    "The line below a page's title, without links"
    found = re.search(r'^> (.+)$', text, flags=re.M)
    return re.sub(r'\[([^\]]+)\]\([^)]*\)', r'\1', found[1]) if found else ''

def meta(text):
    "The description of a page for search engines, as MyST takes it"
    about = json.dumps(description(text).replace('`', ''), ensure_ascii=False)
    if about=='""': return ''
    return f'---\nmyst:\n  html_meta:\n    description: {about}\n---\n'

def import_line(module):
    "How the names on a module's page are imported, and which methods come with that"
    wing = module.partition('.')[0]
    names = entry_names(module)
    functions = [name for name in names if '.' not in name]
    methods = [name for name in names if '.' in name and name.partition('.')[0] not in functions]
    owners = ', '.join(dict.fromkeys(name.partition('.')[0] for name in methods))
    if not functions: return f'```python\nimport fastai_clr_ext.{wing} # methods of {owners}\n```' if methods else ''
    lines = textwrap.wrap(', '.join(functions), 80-len(wing))
    what = lines[0] if len(lines)==1 else '\n    '.join(['(', *lines]) + ')'
    return f'```python\nfrom fastai_clr_ext.{wing} import {what}\n```'

def with_names(text, module):
    "A module's page with the line that imports its names below the title and the line that follows it"
    head,line,rest = text.split('\n\n', 2)
    current = f'```{{py:currentmodule}} fastai_clr_ext.{module.partition(".")[0]}\n```'
    return '\n\n'.join(filter(None, [head, line, current, import_line(module), rest]))

def uses(text, module):
    "Whether a page links to a module's page or calls one of its names"
    if f'{doc_url}{module}.html' in text: return True
    names = [name.rpartition('.') for name in entry_names(module)]
    calls = [rf'\.{name}\(' if owner else rf'(?<![\w.]){name}\(' for owner,_,name in names]
    return bool(calls) and bool(re.search('|'.join(calls), text))

def see_also(page, texts, tutorials):
    "Links to the guides that use what a page of the reference documents"
    links = [f'[{first_heading(texts[name])}]({name}.md)' for name in tutorials if uses(texts[name], page)]
    return f'**See also:** {", ".join(links)}' if links else ''

def footer(page, path):
    "Where a page that is made from a file of the repository can be edited, and read as Markdown or as a notebook"
    links = {'Edit this page': f'{git_url}/edit/main/{path}', 'This page as Markdown': f'{page}.html.md'}
    if path.endswith('.ipynb'): links['As a notebook'] = f'{git_url}/blob/main/{path}'
    shown = ' · '.join(f'<a href="{url}">{text}</a>' for text,url in links.items())
    return f'<p class="page-links">{shown}</p>'
