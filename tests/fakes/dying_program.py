"""A child that the kernel kills, as it does where memory is short."""

import os
import signal

os.kill(os.getpid(), signal.SIGKILL)
