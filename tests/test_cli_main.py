"Both commands: they answer at once, are quiet, take dashes and underscores, and end with a code that says how"
import os, pty, re, select, signal, subprocess, sys, time
from pathlib import Path
import pytest
import fastai_clr_ext
from fastai_clr_ext import cli
from fastai_clr_ext.cli import main

MAIN = 'from fastai_clr_ext.cli.main import main_{0}; main_{0}()'
NAMES = {'demo': 'clr-demo', 'compare': 'clr-compare'}

buffered = {k: v for k,v in os.environ.items() if k!='PYTHONUNBUFFERED'} # as where output is redirected

@pytest.mark.parametrize('which', NAMES)
@pytest.mark.parametrize('args', [['--version'], ['merge', '--version']], ids=' '.join)
def test_version(which, args, tmp_path):
    "Before anything heavy is imported"
    code = MAIN.format(which) + '; import sys; assert not {"torch", "fastai"} & set(sys.modules)'
    if which=='demo' and len(args)>1: args = args[1:]
    r = subprocess.run([sys.executable, '-c', code, *args], cwd=tmp_path, capture_output=True, text=True)
    assert (r.returncode, r.stdout, r.stderr)==(0, f'{NAMES[which]} {fastai_clr_ext.__version__}\n', '')

@pytest.mark.parametrize('which', NAMES)
def test_it_says_that_it_starts_before_anything_heavy(which, tmp_path):
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, '-c', MAIN.format(which), '--epochs', '0'], cwd=tmp_path, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=buffered)
    line = process.stdout.readline()
    said = time.monotonic()-began
    process.communicate()
    assert line==f'{NAMES[which]} {fastai_clr_ext.__version__}: loading PyTorch and fastai\n'
    assert said < (time.monotonic()-began)/2, 'importing takes most of the time'

@pytest.mark.parametrize('given,found', [
    ('--lr_max .1', '--lr-max .1'), ('--lr_max=.1 --out=a_b', '--lr-max=.1 --out=a_b'), ('--lr-max .1', '--lr-max .1'),
    ('merge a_b --overwrite', 'merge a_b --overwrite'), ('-h a_b', '-h a_b')])
def test_dashes_and_underscores(given, found): assert main.with_dashes(given.split())==found.split()

def test_warnings_of_ours_are_one_line_and_others_are_not_shown(tmp_path):
    code = """import warnings
from fastai_clr_ext.cli import main
main.be_quiet('clr-demo')
exec(compile('import warnings; warnings.warn("of theirs"); warnings.warn("later", FutureWarning)', 'x.py', 'exec'),
     {'__name__': 'torch.x'})
from fastai_clr_ext.core.checks import warn
warn('of\\n  ours')
import subprocess, sys
subprocess.run([sys.executable, '-c', 'import warnings; warnings.warn("in a worker")'])
"""
    r = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert (r.returncode, r.stderr)==(0, 'clr-demo: of ours\n')

def hear_ctrl_c():
    "Take Ctrl-C as a terminal's programs do: what a shell runs in the background is started with it ignored"
    signal.signal(signal.SIGINT, signal.SIG_DFL)

class Terminal:
    "A command in a terminal of 40 rows and 110 columns"
    def __init__(self, which, *args, cwd):
        import fcntl, struct, termios
        self.pid,self.fd = pty.fork()
        if self.pid==0:
            hear_ctrl_c()
            os.chdir(cwd)
            os.execv(sys.executable, [sys.executable, '-c', MAIN.format(which), *args])
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack('HHHH', 40, 110, 0, 0))
        self.text = ''

    def read(self, until=None, seconds=90):
        "Read until a text was shown, or to the end"
        stop = time.monotonic()+seconds
        while time.monotonic()<stop and (until is None or until not in self.text):
            if not select.select([self.fd], [], [], .2)[0]: continue
            try: data = os.read(self.fd, 4096)
            except OSError: return self # the end
            self.text += data.decode(errors='replace')
        return self

    def exit_code(self):
        "Wait for the end, 20 s at most"
        for _ in range(200):
            pid,status = os.waitpid(self.pid, os.WNOHANG)
            if pid: return os.waitstatus_to_exitcode(status)
            time.sleep(.1)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return 'never ended'

KEPT = 'clr-compare: stopped; runs that ended are kept, and --resume goes on'

@pytest.mark.parametrize('which,args,says', [
    ('demo', ['--epochs', '2000'], 'clr-demo: stopped; no figure or table was written'),
    ('compare', ['--epochs', '2000', '--workers', '1'], KEPT),
    ('compare', ['--epochs', '2000', '--workers', '2'], KEPT)],
    ids=['demo', 'one process', 'two processes'])
def test_a_bar_in_a_terminal_and_ctrl_c(which, args, says, tmp_path):
    terminal = Terminal(which, *args, cwd=tmp_path).read(until=', constant, ')
    os.write(terminal.fd, b'\x03')
    terminal.read()
    assert terminal.exit_code()==130
    shown = terminal.text.replace('\r', '\n')
    bars = re.findall(r'^(?:training|tuning) +\d+% \|.{20}\| \d\d:\d\d<.*constant, (?:seed|rate)', shown, flags=re.M)
    assert bars and shown.rstrip().endswith(says) and 'Traceback' not in shown and 'Warning' not in shown, shown

def test_ctrl_c_while_it_loads(tmp_path):
    code = f'import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {MAIN.format("demo")}'
    process = subprocess.Popen([sys.executable, '-c', code], cwd=tmp_path, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    process.stdout.readline()
    time.sleep(.2)
    process.send_signal(signal.SIGINT)
    _,err = process.communicate()
    assert process.returncode==130 and err.strip()=='clr-demo: stopped; no figure or table was written', err

def test_names_of_the_wing_are_those_of_its_modules():
    "They are imported when they are asked for, so they stand in a table"
    from fastai_clr_ext.cli import compare, demo
    for name,module in dict(demo=demo, compare=compare, main=main).items():
        assert sorted(cli.NAMES[name])==sorted(module.__all__)
        assert all(getattr(cli, public) is getattr(module, public) for public in module.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'no_such'"): cli.no_such
    assert set(cli.__all__)<=set(dir(cli))
    star = {}
    exec('from fastai_clr_ext.cli import *', star)
    assert set(cli.__all__)<=set(star)

def test_the_commands_are_those_of_the_package():
    from configparser import ConfigParser
    cfg = ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(Path(__file__).parent.parent/'settings.ini')
    assert cfg['DEFAULT']['console_scripts'].split()==[
        'clr-demo=fastai_clr_ext.cli.main:main_demo', 'clr-compare=fastai_clr_ext.cli.main:main_compare']
