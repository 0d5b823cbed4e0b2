"""All benchmarks in turn: `python -m bench [PART…]`, half an hour on two cores

Results go to `nbs/studies/benchmarks.json`, which the docs page *How it compares* shows. `pip install '.[bench]'`, in
an environment of its own, installs what we are compared with; what is not installed is left out, and named. Nothing
else should run meanwhile. `python -m bench.gpu` is for a machine with a GPU."""
import argparse, importlib, json, sys, time, traceback
from pathlib import Path
from .common import machine

PARTS = ['schedule', 'record', 'checkpoint', 'runner', 'growth', 'kernels']
RESULTS = Path(__file__).parents[1]/'nbs'/'studies'/'benchmarks.json'

def main():
    parser = argparse.ArgumentParser(prog='python -m bench', description=__doc__.splitlines()[0])
    parser.add_argument('parts', nargs='*', help=f'among {", ".join(PARTS)}; all if none is named')
    parser.add_argument('--out', type=Path, default=RESULTS)
    args = parser.parse_args()
    unknown = set(args.parts)-set(PARTS)
    if unknown: parser.error(f'parts must be among {PARTS}; got {sorted(unknown)}')
    found = json.loads(args.out.read_text()) if args.out.exists() else {}
    failed = []
    for part in args.parts or PARTS:
        start = time.perf_counter()
        try: result = importlib.import_module(f'bench.{part}').measure()
        except Exception: # the other parts are still of use
            traceback.print_exc()
            failed.append(part)
            continue
        found[part] = result | dict(seconds=round(time.perf_counter()-start), machine=machine())
        args.out.write_text(json.dumps(found, indent=1, ensure_ascii=False)+'\n') # after each part
        print(f'{part}: {found[part]["seconds"]} s', flush=True)
    if failed: sys.exit(f'failed: {", ".join(failed)}')

if __name__=='__main__': main()
