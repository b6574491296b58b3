"""Audio chat for dialects with chat completions.

`chat_completions` is imported on first use, because its import takes 4 ms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import AudiocliError
from ..types.requests import HttpRequest
from ..types.routes import Route
from .base import build_auth_headers, build_url
from .request_bodies import get_upload_name

if TYPE_CHECKING:
    from ..types.requests import ChatRequest


class ChatCompletionsMixin:
    """Implement the chat methods of `Dialect`.

    Attributes:
        requires_speech_stream: Whether spoken replies are available as a stream only.
        include_stream_usage: Whether a stream reports usage only on request.
    """

    requires_speech_stream = False
    include_stream_usage = True

    def is_chat_streamed(self, request: ChatRequest, route: Route) -> bool:
        return request.stream or (self.requires_speech_stream and request.format is not None)

    def get_chat_formats(self, request: ChatRequest, route: Route) -> tuple[str, ...]:
        from .chat_completions import SPEECH_FORMATS, STREAMED_SPEECH_FORMATS

        return STREAMED_SPEECH_FORMATS if self.is_chat_streamed(request, route) else SPEECH_FORMATS

    def get_chat_upload_formats(self, route: Route) -> tuple[str, ...]:
        return ("wav", "mp3")

    def check_chat(self, request: ChatRequest, route: Route) -> AudiocliError | None:
        from .chat_completions import check_audio_support

        return check_audio_support(request, route)

    def get_chat_warnings(self, request: ChatRequest, route: Route) -> tuple[str, ...]:
        if self.is_chat_streamed(request, route) and not request.stream:
            return (f"--no-stream has no effect with {route.gateway}, which streams every spoken reply",)
        return ()

    def get_chat_features(self, request: ChatRequest, route: Route) -> tuple[str, ...]:
        uploads = tuple(f"upload:{get_upload_name(recording.format)}" for recording in request.recordings)
        # A stream has one format, so there is no other one to fall back on.
        has_choice = request.format is not None and not self.is_chat_streamed(request, route)
        return (*uploads, f"format:{request.format}") if has_choice else uploads

    def get_max_tokens_field(self, route: Route) -> str:
        """Return the name of the field with the maximum length of the reply."""
        return "max_tokens"

    def build_chat_request(self, request: ChatRequest, route: Route) -> HttpRequest:
        from .chat_completions import build_body, build_fields

        request = request._replace(stream=self.is_chat_streamed(request, route))
        fields = build_fields(request, route, max_tokens_field=self.get_max_tokens_field(route))
        if request.stream and self.include_stream_usage:
            fields["stream_options"] = {"include_usage": True}
        url = build_url(route, "/chat/completions")
        return HttpRequest("POST", url, self.get_chat_headers(route), build_body(request, fields))

    def get_chat_headers(self, route: Route) -> dict[str, str]:
        """Return the headers of a chat request."""
        return build_auth_headers(route)
