"Reads files in a process of its own, and measures what that takes"
import json, subprocess, sys

READ = '''
import json, sys, time
from pathlib import Path
from {module} import {name}
def peak():
    lines = Path('/proc/self/status').read_text().splitlines()
    return {{line.split(':')[0]: int(line.split()[1])/1000 for line in lines if line.startswith(('VmHWM', 'VmRSS'))}}
found = {{}}
for path in sys.argv[1:]:
    Path('/proc/self/clear_refs').write_text('5') # the peak begins anew
    before,began = peak()['VmRSS'], time.perf_counter()
    try: said = repr({call}(path))
    except ValueError as e: said = str(e)
    found[Path(path).stem] = said, time.perf_counter()-began, peak()['VmHWM']-before
print(json.dumps(found))
'''

def read_in_process(module, call, paths):
    "By file, what a function of a module says of it, in how many seconds, and by how many MB the memory grew"
    script = READ.format(module=module, name=call.partition('.')[0], call=call)
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', script, *map(str, paths)], capture_output=True, text=True)
    assert not r.returncode, r.stderr[-2000:]
    return json.loads(r.stdout)
