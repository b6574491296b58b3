"""Names of the formats of transcripts. This module loads nothing, because the command line needs it at start-up."""

# In the order of help.
TRANSCRIPT_FORMATS = ("txt", "srt", "vtt", "json", "tsv", "verbose_json", "md", "lrc", "ass", "csv", "html", "docx")
# The output of `--embed-captions`: a copy of the video. It is no value of `-f`.
CAPTIONED_VIDEO = "captioned"
# Content depends on the caption limits, and timestamps are needed.
CAPTION_FORMATS = frozenset({"srt", "vtt", "tsv", "ass", "lrc", "csv", CAPTIONED_VIDEO})
# `--with` chooses what they have besides the words, of these.
PARTS = ("times", "speakers", "paragraphs")
PARTS_FORMATS = frozenset({"txt", "md"})
# They have a title.
DOCUMENT_FORMATS = frozenset({"md", "html", "docx"})
# They show what the guard finds.
MARKED_FORMATS = DOCUMENT_FORMATS | {"json"}
