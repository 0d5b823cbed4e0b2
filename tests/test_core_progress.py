"How far a long training is: a bar, or rows, and the time that is left"
import io, sys
import pytest
from fastai_clr_ext.core import progress
from fastai_clr_ext.core.progress import Progress, time_left

class Terminal(io.StringIO):
    "A stream that says it is a terminal"
    def isatty(self): return True

@pytest.fixture
def clock(monkeypatch):
    "A clock that stands still until it is set"
    class Clock:
        now = 1000.
        def monotonic(self): return self.now
    clock = Clock()
    monkeypatch.setattr(progress, 'time', clock)
    return clock

@pytest.mark.parametrize('seconds,fraction,text', [
    (10, 0, ''), (10, 1, ''), (10, .5, 'about 10 s left'), (30, .25, 'about 2 min left'),
    (29.6, .25, 'about 89 s left'), (60, .1, 'about 9 min left'), (1800, .25, 'about 2 h left'),
    (1799, .25, 'about 90 min left'), (36000, .5, 'about 10 h left')])
def test_time_left_by_hand(seconds, fraction, text): assert time_left(seconds, fraction)==text

def test_rows_where_nobody_looks_on(clock, capsys):
    with Progress('training') as shown:
        shown.row('training: 2 runs')
        for second in range(100):
            clock.now += 1
            shown.show(second/100, 'constant, seed 0')
        shown.row('1 of 2')
    out,err = capsys.readouterr()
    assert out.splitlines()==['training: 2 runs', ' 29%  constant, seed 0  about 73 s left',
                              ' 59%  constant, seed 0  about 42 s left', ' 89%  constant, seed 0  about 11 s left',
                              '1 of 2']
    assert err=='' and '\x1b' not in out and '\r' not in out

def test_a_bar_in_a_terminal(clock, monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, 'stdout', stream)
    with Progress('training') as shown:
        shown.row('beside a bar there are no rows')
        for i in range(100):
            clock.now += 1/32
            shown.show(i/100, 'constant, seed 0')
    looks = [look for look in stream.getvalue().split('\r') if 'constant, seed 0' in look]
    assert len(looks)==25, 'each fourth, which is 1/8 s after the last'
    assert 'no rows' not in stream.getvalue() and looks[-1].startswith('training  99% |####')
    assert stream.getvalue().endswith('\r'), 'it leaves no bar behind'

def test_each_row_is_written_at_once(monkeypatch):
    flushed = []
    class File(io.StringIO):
        def flush(self): flushed.append(self.getvalue())
    monkeypatch.setattr(sys, 'stdout', File())
    with Progress('training') as shown: shown.row('1 of 2')
    assert flushed==['1 of 2\n']

def test_the_clock_can_be_set_back(clock, monkeypatch, capsys):
    "What came before, such as loading, is not in the estimate"
    with Progress('training', every=1, is_live=False) as shown:
        clock.now += 100
        shown.restart()
        clock.now += 10
        shown.show(.5, 'constant, seed 0')
        assert shown.left(.5)=='about 10 s left'
    assert capsys.readouterr().out==' 50%  constant, seed 0  about 10 s left\n'
    monkeypatch.setattr(sys, 'stdout', Terminal())
    with Progress('training') as shown:
        shown.bar.start_t -= 100
        shown.restart()
        assert shown.bar.format_dict['elapsed']<50, "the bar's clock too"
