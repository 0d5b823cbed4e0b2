"""Build the documentation from the notebooks: `python -m docs` writes the site to `_docs`.

`--readme` writes README.md from nbs/index.ipynb, `--check` says whether it is in step, `--look` opens every page of the
site in Chromium and says what is wrong with it."""
import argparse, sys

parser = argparse.ArgumentParser(prog='python -m docs', description=__doc__.splitlines()[0])
parser.add_argument('--readme', action='store_true', help='write README.md from nbs/index.ipynb')
parser.add_argument('--check', action='store_true', help='check that README.md is in step')
parser.add_argument('--look', action='store_true', help='open every page in Chromium')
args = parser.parse_args()

from .readme import check_readme, write_readme

if args.readme: write_readme()
elif args.check: sys.exit(not check_readme())
elif args.look:
    from .look import look
    sys.exit(not look())
else:
    from .site import build
    sys.exit(not build())
