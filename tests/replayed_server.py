"""`python -m server`, but its stages are those of `benchmarks.replayed_stage`, which start soon and compute nothing."""

import sys

from server.__main__ import main
from server.processes.supervisor import MODULES

if __name__ == "__main__":
    MODULES.update({kind: "benchmarks.replayed_stage" for kind in MODULES if kind != "http"})
    sys.exit(main(sys.argv[1:]))
