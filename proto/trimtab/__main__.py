"""python -m trimtab: the `trimtab` command."""

import sys

from trimtab.cli import main

sys.exit(main())
