"""Words on the page: where to cut a text, and how a transcript becomes captions."""
