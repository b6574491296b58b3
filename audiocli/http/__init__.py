"""HTTP client: httpx behind one module, so that its successor is a change of one import."""

from .client import HttpClient as HttpClient
from .client import HttpResponse as HttpResponse
