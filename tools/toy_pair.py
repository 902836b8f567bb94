"""What the experiments on the bundled toy pair have in common: running the program on all cores, tables in documents."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARY = Path(os.environ.get("TADAPT_BINARY", ROOT / "build/release/tadapt-dist"))
TOY = ROOT / "data/toy"
ENVIRONMENT = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                   OMPI_MCA_rmaps_base_oversubscribe="1")


def ranks():
    """One rank per core, as far as it is a power of two: batches have four leaves."""
    cores = len(os.sched_getaffinity(0))
    return 4 if cores >= 4 else 2 if cores >= 2 else 1


def tadapt(*words, log):
    """Runs the program on all cores; its output goes to `log`."""
    command = ["mpirun", "-n", str(ranks()), str(BINARY), *map(str, words)]
    with open(log, "a", encoding="utf-8") as file:
        done = subprocess.run(command, env=ENVIRONMENT, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        sys.exit(f"{Path(sys.argv[0]).name}: {' '.join(command)}\nended with {done.returncode}; see {log}")


def settings(options):
    return [word for key, value in options.items() for word in ("--set", f"{key}={value}")]


def replace_tables(document, text):
    """Puts `text` between the document's markers."""
    head, rest = document.read_text(encoding="utf-8").split("<!-- tables -->\n", 1)
    _, tail = rest.split("<!-- end of tables -->", 1)
    document.write_text(f"{head}<!-- tables -->\n{text}<!-- end of tables -->{tail}", encoding="utf-8")
