"""``python -m emlc_lib.commands``: the command ``emlc``, also in every process that torchrun starts."""

import os
import sys

from . import main

if __name__ == "__main__":
    if "TORCHELASTIC_RUN_ID" in os.environ:  # whoever started torchrun is told of errors that nobody expected
        from torch.distributed.elastic.multiprocessing.errors import record

        main = record(main)
    sys.exit(main())
