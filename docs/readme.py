"README.md is made from nbs/index.ipynb, its pictures are in docs/images"
from .pages import to_markdown
from .reference import nbs, root

images = root/'docs'/'images'

def readme():
    return ('<!-- Made from nbs/index.ipynb by `python -m docs --readme`; edit the notebook. -->\n\n'
            + to_markdown(nbs/'index.ipynb', images, for_readme=True))

def write_readme(): (root/'README.md').write_text(readme(), encoding='utf-8')

def check_readme():
    "Whether README.md says what the index notebook says"
    text = (root/'README.md').read_text(encoding='utf-8')
    before = {p: p.read_bytes() for p in images.glob('*.png')}
    same = readme()==text and before=={p: p.read_bytes() for p in images.glob('*.png')}
    print('README.md is in step with nbs/index.ipynb' if same
          else 'README.md is not in step: python -m docs --readme')
    return same
