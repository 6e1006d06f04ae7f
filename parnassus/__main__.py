"""`python -m parnassus` is `parnassus`."""

import sys

from parnassus.cli import main

if __name__ == "__main__":
    sys.exit(main())
