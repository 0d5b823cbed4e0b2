"What the checks on a server say about themselves: the oldest versions, the steps, the two ends of what is supported"
import subprocess
from configparser import ConfigParser
from pathlib import Path
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

root = Path(__file__).parent.parent

def settings():
    cfg = ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(root/'settings.ini')
    return cfg['DEFAULT']

def versions(lines, operator):
    "The one version that each requirement names, which must stand after `operator`"
    found = {}
    for requirement in map(Requirement, lines):
        specifier, = requirement.specifier
        assert specifier.operator==operator, requirement
        found[requirement.name] = Version(specifier.version)
    return found

def workflow(name): return yaml.safe_load((root/'.github'/'workflows'/name).read_text())

def test_oldest_versions_are_the_lowest_that_settings_allow():
    lines = (root/'.ci'/'oldest.txt').read_text().splitlines()
    oldest = versions([line for line in lines if not line.startswith('#')], '==')
    allowed = [settings()[f'{name}requirements'] for name in ('', 'loggers_', 'cluster_')]
    assert oldest==versions(' '.join(allowed).split(), '>=')

def test_versions_are_those_of_the_workflow():
    listed = subprocess.run(['bash', root/'.ci'/'versions', '--list'], capture_output=True, text=True, check=True)
    wanted = workflow('ci.yml')['jobs']['checks']['strategy']['matrix']['include']
    assert [line.split() for line in listed.stdout.splitlines()]==[list(each.values()) for each in wanted]

def test_both_ends_are_checked():
    job = workflow('ci.yml')['jobs']['checks']
    oldest,newest = job['strategy']['matrix']['include']
    assert (oldest['python'], oldest['constraint'])==(settings()['min_python'], '.ci/oldest.txt')
    assert Version(newest['python'])>Version(oldest['python']) and newest['constraint']=='/dev/null'
    assert job['steps'][-1]['run'].rstrip().endswith('.ci/run')

def test_ci_runs_on_push_and_pull_request():
    assert {'push', 'pull_request'}<=set(workflow('ci.yml')[True]), 'YAML reads the key `on` as true'
