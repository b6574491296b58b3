"""Audio formats, container parsing and split planning, without codecs."""
