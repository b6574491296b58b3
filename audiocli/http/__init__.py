"""HTTP client: httpx behind one module, so that its successor is a change of one import."""

import sys

# httpx imports its own command line, with click, rich and pygments, if click is installed: 40 ms at every start.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

from .client import HttpClient as HttpClient  # noqa: E402
from .client import HttpResponse as HttpResponse  # noqa: E402
