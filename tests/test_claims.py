"""Each sentence that states what was measured or observed has its evidence in claims.json: a command, a record, the
cell that follows, or a source. A sentence that sounds like one but states a definition, a limit or a default is a
`rule`. Rows of a table that begin with `|` are one claim, with their number. The pages of studies and of the atlas are
evidence themselves, and are not searched."""
import configparser, json, re
from pathlib import Path
import pytest
from fastcore.nbio import read_nb

root = Path(__file__).parents[1]
CLAIMS = json.loads((root/'tests'/'claims.json').read_text(encoding='utf-8'))
SOUNDS_MEASURED = re.compile(
    r'\d ?(%|µs|ms\b|MB\b|GB\b)|(seconds?|minutes?|hours?) on\b|times (as|slower|faster|more|larger|smaller)'
    r'|\b(faster|slower|quicker|usually|most often|in practice|works? well|works? best|trains badly|does better)\b'
    r'|\b(better|worse) than|\btakes? (about |some |under )?(a|an|one|two|three|ten|half|\d[\d.]*) '
    r'(second|minute|hour|quarter|third|twentieth)')

def sentences(path):
    "Of the text of a notebook, and of comments and docstrings of exported code"
    for cell in read_nb(path).cells:
        if cell.cell_type=='markdown': yield from re.split(r'(?<=[.!?:])\s+|\n', cell.source)
        elif cell.source.startswith('#| export'):
            for line in cell.source.splitlines():
                text = re.search(r'#(?!\|).*|"{1,3}[^"].*', line)
                if text: yield text[0].strip('#" ')

def found():
    "Page and sentence of everything that sounds measured"
    notebooks = sorted((root/'nbs').glob('*.ipynb')) + sorted((root/'nbs'/'tutorials').glob('*.ipynb'))
    return [(path.relative_to(root/'nbs').as_posix(), text.strip()) for path in notebooks for text in sentences(path)
            if SOUNDS_MEASURED.search(text)]

FOUND = found()

def test_every_sentence_that_sounds_measured_is_listed():
    known = [(page, start) for page,start,*_ in CLAIMS]
    assert not [(page, text) for page,text in FOUND
                if not any(page==known_page and text.startswith(start) for known_page,start in known)]

def test_rows_of_tables_are_counted():
    "Rows that one command measured are one claim, with their number: a further row is a further claim"
    starts = [(page, start) for page,start,*_ in CLAIMS if start.startswith('|') and start!='|']
    for page,_,_,n in (claim for claim in CLAIMS if claim[1]=='|'):
        rows = [text for found_page,text in FOUND if found_page==page and text.startswith('|')
                and not any(page==named_page and text.startswith(named) for named_page,named in starts)]
        assert len(rows)==n, page

def test_every_claim_is_still_there():
    assert not [(page, start) for page,start,*_ in CLAIMS
                if not any(page==found_page and text.startswith(start) for found_page,text in FOUND)]

@pytest.mark.parametrize('evidence', sorted({claim[2] for claim in CLAIMS}))
def test_evidence_exists(evidence):
    settings = configparser.ConfigParser()
    settings.read(root/'settings.ini')
    commands = [script.partition('=')[0] for script in settings['DEFAULT']['console_scripts'].split()]
    kind,_,name = evidence.partition(' ')
    if kind=='python': assert (root/name.split()[1].replace('.', '/')).with_suffix('.py').is_file()
    elif kind=='record': assert (root/'nbs'/'atlas'/'records'/f'{name}.json').is_file()
    else: assert evidence in ('rule', 'cell', 'source', *commands)
