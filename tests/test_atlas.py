"The records of the atlas, and the commands that made them"
import pytest
from studies.comparisons import FINE_TUNED, RECORDS, STUDIES
from fastai_clr_ext.compare import read_record

FILES = sorted(RECORDS.glob('*.json'))

def test_there_are_records(): assert FILES

@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_a_record_is_what_its_command_trains(path):
    "It is valid, its name is that of its command, and situation, policies and seeds are those of the study"
    comparison = read_record(path)
    record = comparison.record
    study,name = next((study, path.stem.removeprefix(f'{study}-')) for study in ('d-why', *STUDIES, 'e')
                      if path.stem.startswith(f'{study}-'))
    assert record['situation']['again']==f'python -m studies {study} {name}'
    if study=='e': sit,n_seeds = FINE_TUNED[name][0],FINE_TUNED[name][2]
    else:
        spec = STUDIES[study]()[name]
        sit,n_seeds = spec.sit,spec.n_seeds
        assert [policy['name'] for policy in record['policies']]==list(spec.policies)
    about = sit.about()
    assert {key: record['situation'].get(key) for key in about}=={key: as_plain(value) for key,value in about.items()}
    assert record['margin']==sit.source.margin and len(comparison.outcomes)==n_seeds
    assert not comparison.errors.to_numpy().any(), 'no run was ended by an exception'

def as_plain(value): return list(value) if isinstance(value, tuple) else value
