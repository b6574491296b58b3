"""A small OpenAI-compatible server whose speech and transcripts come from an engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from ..audio_codec import CONTENT_TYPES, AudioCodec
from ..billing import Billing
from ..engine import EngineError, EngineSpeech, EngineTranscription, SpeechEngine
from ..field_validation import Field, FieldPolicy, Findings, Refusal
from ..messages import Headers, ParsedRequest, RequestInfo, Response, json_response
from ..model_fixtures import Model
from ..tasks import Task
from ..transcripts import MockTranscript
from .openai import COMMON_FORM_FIELDS, SPEECH_FORMATS, OpenAI

_RESPONSE_FORMATS = ("json", "text", "srt", "verbose_json", "vtt")


class EngineServer(OpenAI):
    """Speech, transcriptions, translations and models at `/v1`, with the errors of OpenAI. No key is needed.

    Unknown fields are ignored with a warning in the journal.
    """

    name = "engine"
    prefix = "/v1"
    key = None
    models: ClassVar[dict[str, Model]] = {}
    field_policy = FieldPolicy(unknown_fields="warn")
    has_engine = True
    max_upload_bytes = None
    upload_extensions: ClassVar[tuple[str, ...]] = (*OpenAI.upload_extensions, "aac", "opus", "mkv", "mov")
    language_pattern = None
    strip_punctuation = False
    report_usage = False
    has_shutdown_dates = False
    chat_dialect = None
    card_fields: ClassVar = {"object": "model", "created": 0, "owned_by": "audiocli"}
    speech_fields: ClassVar[dict[str, Field]] = {
        "model": Field(required=True),
        "input": Field(required=True, min_length=1),
        "voice": Field("any"),
        "response_format": Field(choices=SPEECH_FORMATS),
        "speed": Field("number", minimum=0.25, maximum=4.0),
        "stream_format": Field(choices=("audio",)),
    }
    form_fields: ClassVar[dict[str, Field]] = COMMON_FORM_FIELDS | {
        "response_format": Field(choices=_RESPONSE_FORMATS),
        "stream": Field("boolean"),
    }

    def __init__(self, codec: AudioCodec, engine: SpeechEngine) -> None:
        super().__init__(codec)
        self._engine = engine

    def resolve_unknown_model(self, model: str, findings: Findings) -> Model | None:
        found = self._engine.find_model(model)
        if found is None:
            return super().resolve_unknown_model(model, findings)
        return Model(found.name, found.kind, response_formats=_RESPONSE_FORMATS, supports_speed=True)

    def build_speech_task(
        self, request: ParsedRequest, values: dict[str, Any], model: Model, findings: Findings
    ) -> Task:
        return replace(super().build_speech_task(request, values, model, findings), fields=values)

    def build_form_task(
        self, request: ParsedRequest, values: dict[str, Any], model: Model, findings: Findings, *, translate: bool
    ) -> Task | None:
        task = super().build_form_task(request, values, model, findings, translate=translate)
        fields = {**values, "extension": request.file_extension}
        return replace(task, fields=fields, recording=request.audio) if task is not None else None

    def _check_rare_fields(self, values: dict[str, Any], model: Model, findings: Findings, *, translate: bool) -> None:
        """Accept everything: the engine refuses what it does not support."""

    def read_audio(
        self, request: ParsedRequest, claimed: str | None, findings: Findings, model: Model
    ) -> tuple[str | None, float]:
        """Return no duration, because the engine decodes the recording."""
        return None, 0.0

    def build_response(self, task: Task, headers: Headers, *, cost_nanousd: int) -> Response:
        try:
            if task.kind == "speech":
                return self._speak(task, headers)
            return super().build_response(self._transcribe(task), headers, cost_nanousd=cost_nanousd)
        except EngineError as error:
            return json_response(error.refusal.status, self.build_error_body(error.refusal, RequestInfo()), headers)

    def _speak(self, task: Task, headers: Headers) -> Response:
        voice = task.fields.get("voice")
        speech = EngineSpeech(
            task.text, task.model.id, voice if isinstance(voice, str) else None, task.speed, task.format
        )
        blocks = self._engine.speak(speech)
        # The audio is sent while it is made, so it can be read once.
        return Response(200, CONTENT_TYPES[task.format], None, lambda: blocks, headers, chunked=True)

    def _transcribe(self, task: Task) -> Task:
        assert task.recording is not None
        task.recording.file.seek(0)
        transcript = self._engine.transcribe(
            EngineTranscription(
                task.recording.file,
                task.fields["extension"],
                task.model.id,
                task.fields.get("language"),
                task.fields.get("prompt"),
                task.fields.get("temperature"),
                wants_words="word" in task.granularities,
                translate=task.kind == "translation",
            )
        )
        words = [(word.text, word.start_s, word.end_s) for word in transcript.words]
        segments = [(segment.text.strip(), segment.start_s, segment.end_s) for segment in transcript.segments]
        result = MockTranscript(transcript.text, words, segments, transcript.language, transcript.language)
        return replace(task, transcript=result, duration_s=transcript.duration_s or 0.0)

    def handle_get(self, request: ParsedRequest, billing: Billing) -> Response | Refusal:
        if request.path == "/models":
            cards = [self.build_card(Model(model.name, model.kind)) for model in self._engine.list_models()]
            return json_response(200, {"object": "list", "data": cards})
        name = request.path.removeprefix("/models/")
        found = self._engine.find_model(name)
        if request.path.startswith("/models/") and found is not None:
            return json_response(200, self.build_card(Model(name, found.kind)))
        return super().handle_get(request, billing)

    def build_card(self, model: Model) -> dict[str, Any]:
        task = "text-to-speech" if model.kind == "speech" else "automatic-speech-recognition"
        return {**super().build_card(model), "task": task}
