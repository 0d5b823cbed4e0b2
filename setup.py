"Build the package from the metadata in settings.ini, which stays the only place where it is written"
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup, find_packages

root = Path(__file__).parent
parser = ConfigParser(delimiters=['='], interpolation=None)
parser.read(root/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']
statuses = {'3': 'Development Status :: 3 - Alpha', '4': 'Development Status :: 4 - Beta',
            '5': 'Development Status :: 5 - Production/Stable'}

readme = (root/'README.md').read_text(encoding='utf-8')
# On PyPI there is no checkout that pictures and files could be found in
readme = readme.replace('](docs/images/', f"]({cfg['git_url']}/raw/main/docs/images/")
for name in ('CONTRIBUTING', 'CHANGELOG'): readme = readme.replace(f']({name}.md)', f"]({cfg['git_url']}/blob/main/{name}.md)")

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'].split(),
    author=cfg['author'], author_email=cfg['author_email'], license_expression=cfg['license'],
    long_description=readme, long_description_content_type='text/markdown',
    classifiers=[statuses[cfg['status']], 'Intended Audience :: Developers', 'Intended Audience :: Science/Research',
                 'Programming Language :: Python :: 3', 'Operating System :: OS Independent', 'Topic :: Scientific/Engineering :: Artificial Intelligence'],
    python_requires=f">={cfg['min_python']}", install_requires=cfg['requirements'].split(),
    extras_require={name.removesuffix('_requirements'): cfg[name].split() for name in cfg if name.endswith('_requirements')},
    packages=find_packages(include=['fastai_clr_ext', 'fastai_clr_ext.*']), package_data={'fastai_clr_ext': ['py.typed']}, zip_safe=False,
    entry_points={'console_scripts': cfg['console_scripts'].split(),
                  'nbdev': ['fastai_clr_ext = fastai_clr_ext._modidx:d']},
)
