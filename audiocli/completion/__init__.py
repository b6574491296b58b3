"""Shell completion: the generator of the static files, and the runtime that they call."""
