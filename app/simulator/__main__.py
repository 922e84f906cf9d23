"""`python -m app.simulator`."""

import sys

from app.simulator.server import main

if __name__ == "__main__":
    main(sys.argv[1:])
