"""`python -m appmesh_xds` is `appmesh-xds`."""

import sys

from .cli import main

sys.exit(main())
