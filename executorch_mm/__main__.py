"""`python -m executorch_mm`: the command line."""

import sys

from executorch_mm.cli import main

if __name__ == "__main__":
    sys.exit(main())
