"""``python -m logstore`` is the command ``logstore``."""

import sys

from logstore.cli import main

sys.exit(main())
