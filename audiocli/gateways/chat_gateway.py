"""How the dialects with chat completions talk. What it takes is loaded when somebody does: `chats` is 4 ms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import AudiocliError
from ..types.values import Route, WireRequest
from .base import bearer, join_url

if TYPE_CHECKING:
    from ..types.chat import ChatRequest


class ChatCompletionsMixin:
    """What differs between gateways is said in the attributes.

    `speech_must_stream`: a spoken answer comes in a stream or not at all. `asks_for_usage`: a stream tells its usage
    only when it is asked to.
    """

    speech_must_stream = False
    asks_for_usage = True

    def chat_streams(self, request: ChatRequest, route: Route) -> bool:
        return request.streams or (self.speech_must_stream and request.format is not None)

    def chat_formats(self, request: ChatRequest, route: Route) -> tuple[str, ...]:
        from .chat_completions import STREAMED_FORMATS, WHOLE_FORMATS

        return STREAMED_FORMATS if self.chat_streams(request, route) else WHOLE_FORMATS

    def chat_uploads(self, route: Route) -> tuple[str, ...]:
        return ("wav", "mp3")

    def chat_refusal(self, request: ChatRequest, route: Route) -> AudiocliError | None:
        from .chat_completions import silent

        return silent(request, route)

    def chat_warnings(self, request: ChatRequest, route: Route) -> tuple[str, ...]:
        if self.chat_streams(request, route) and not request.streams:
            return (f"--no-stream has no effect with {route.gateway}: it speaks in a stream only",)
        return ()

    def chat_features(self, request: ChatRequest, route: Route) -> tuple[str, ...]:
        from .chat_completions import wire_format

        uploads = tuple(f"upload:{wire_format(recording)}" for recording in request.recordings)
        # In a stream there is no other format to fall back on.
        has_choice = request.format is not None and not self.chat_streams(request, route)
        return (*uploads, f"format:{request.format}") if has_choice else uploads

    def chat_bound(self, route: Route) -> str:
        """Name the field that bounds an answer."""
        return "max_tokens"

    def chat(self, request: ChatRequest, route: Route) -> WireRequest:
        from .chat_completions import body_of, fields_of

        request = request._replace(streams=self.chat_streams(request, route))
        fields = fields_of(request, route, bound=self.chat_bound(route))
        if request.streams and self.asks_for_usage:
            fields["stream_options"] = {"include_usage": True}
        url = join_url(route.base_url, "/chat/completions")
        return WireRequest("POST", url, self.chat_headers(route), body_of(request, fields))

    def chat_headers(self, route: Route) -> dict[str, str]:
        return bearer(route)
