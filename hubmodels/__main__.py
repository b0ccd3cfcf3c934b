"""`python -m hubmodels`: the command, also where its folder is not on the path."""

import sys

from hubmodels.cli import main

sys.exit(main())
