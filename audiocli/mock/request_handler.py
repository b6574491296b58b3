"""Handle the requests of one connection: read, validate, respond."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from .audio_synthesis import expected_pcm
from .dialects import find_dialect, find_key_owner
from .dialects.base import Dialect
from .engine import EngineError
from .fault_injection import FaultContext, PlannedResponse, build_error_response, plan_response, send_response
from .faults import ChatFault, Fault, Html, NoFault, SubstituteModel, WrongSpeech, is_charged, precedes_validation
from .field_validation import Findings, Refusal
from .http_connection import Connection, InvalidRequest, RequestHead
from .messages import Headers, ParsedRequest, RequestInfo, Response, json_response
from .recorded_request import RecordedRequest, find_leaked_keys, record_content
from .request_parsing import BodySummary, JsonParser, MalformedBody, MultipartParser
from .spoken_texts import alter_text
from .tasks import Task
from .transcripts import MockTranscript

if TYPE_CHECKING:
    from .server import MockGateway

NO_DIALECT_MESSAGE = "no gateway is served at this path"


class RequestHandler:
    """Handles the requests of one connection."""

    def __init__(self, gateway: MockGateway, connection: Connection) -> None:
        self._gateway = gateway
        self._connection = connection

    def handle_next(self) -> bool:
        """Handle one request; return whether the connection can be used again."""
        head = self._connection.read_head()
        if head is None:
            return False
        is_post = head.method == "POST"
        if is_post:
            self._gateway.count_in_flight(1)
        try:
            return self._handle(head)
        finally:
            if is_post:
                self._gateway.count_in_flight(-1)

    def _handle(self, head: RequestHead) -> bool:
        match = find_dialect(self._gateway.dialects, head.path)
        dialect, path = match if match else (None, head.path)
        name = dialect.name if dialect else None
        recorded = RecordedRequest(
            head.method, head.path, name, headers=head.headers, query=head.query, received_at_s=time.time()
        )
        if (refusal := self._gateway.access.find_refusal(head)) is not None:
            recorded.complete, recorded.problems = False, [refusal.message]
            error = {"message": refusal.message, "type": "invalid_request_error", "param": None, "code": refusal.code}
            self._send(PlannedResponse(json_response(refusal.status, {"error": error})), recorded, NoFault(), head)
            self._connection.drain()
            return False
        if dialect is not None and (
            early_fault := self._gateway.fault_queue.take_before_body(head.method, dialect.name, path)
        ):
            recorded.complete = False
            planned = plan_response(
                early_fault, FaultContext(dialect, None, lambda _: json_response(200, {}), RequestInfo())
            )
            self._send(planned, recorded, early_fault, head)
            self._connection.drain()
            return False
        with ExitStack() as cleanup:
            request = ParsedRequest(head.method, path, head.headers, head.query)
            try:
                body = self._read(head, request, cleanup)
            except InvalidRequest as error:
                recorded.complete, recorded.problems = False, [str(error)]
                self._gateway.record_request(recorded)
                raise
            findings, task = Findings(), None
            if dialect is None:
                findings.refuse(404, NO_DIALECT_MESSAGE)
            else:
                task = self._validate(dialect, head, request, findings, cleanup)
            record_content(recorded, request, body, keep_audio=self._gateway.keep_audio)
            recorded.problems = findings.problems + find_leaked_keys(head, recorded.body_prefix, request.bearer_token)
            fault: Fault = NoFault()
            script = self._gateway.script
            rule = script.find(request) if script is not None and dialect is not None else None
            if rule is not None:
                fault, recorded.rule_line = rule.build_fault(), rule.line
            elif dialect is not None:
                fault = self._gateway.fault_queue.take(head.method, dialect.name, path, request.model)
            planned = self._plan(dialect, request, findings, task, fault, recorded)
            if rule is not None:
                planned = rule.modify(planned)
        return self._send(planned, recorded, fault, head)

    def _read(self, head: RequestHead, request: ParsedRequest, cleanup: ExitStack) -> BodySummary:
        """Read the body with the parser of its content type."""
        body = BodySummary()
        parser: JsonParser | MultipartParser | None = None
        content_type = request.headers.get("content-type", "")
        if content_type.startswith("application/json"):
            parser = JsonParser()
        elif content_type.startswith("multipart/form-data"):
            try:
                parser = MultipartParser(content_type)
            except MalformedBody as error:
                request.parse_error = str(error)
        elif head.method == "POST":
            request.parse_error = f"Content-Type is {content_type!r}"
        if parser is not None:
            cleanup.callback(parser.close)
        for block in self._connection.read_body(head):
            body.update(block)
            if parser is not None and request.parse_error is None:
                try:
                    parser.feed(block)
                except MalformedBody as error:
                    request.parse_error = str(error)
        request.size_bytes = body.size_bytes
        try:
            if isinstance(parser, MultipartParser) and request.parse_error is None:
                request.form_parts = parser.finish()
            elif isinstance(parser, JsonParser):
                request.json = parser.finish()
        except MalformedBody as error:
            request.parse_error = str(error)
        return body

    def _validate(
        self, dialect: Dialect, head: RequestHead, request: ParsedRequest, findings: Findings, cleanup: ExitStack
    ) -> Task | None:
        """Check the key and the fields; return the task of an accepted request."""
        self._check_key(dialect, request, findings)
        if head.method != "POST" or findings.refusals:
            return None
        if dialect.supports_jobs:
            refusal = self._gateway.jobs_api.find_refusal(request)
            if refusal is not None:
                findings.refusals.append(refusal)
                return None
            if request.path == "/jobs":
                request.is_background_job = True
                request.path = "/audio/transcriptions" if request.form_parts is not None else "/audio/speech"
        task = dialect.validate(request, findings)
        if request.audio is not None:
            cleanup.callback(request.audio.close)
        if task is None or task.kind == "speech" or dialect.has_engine:
            return task
        if task.kind == "chat":
            return replace(task, text=self._gateway.chat_reply)
        transcript = self._gateway.transcript
        if request.audio is not None and self._gateway.spoken_texts is not None:
            spoken = self._gateway.spoken_texts.find(request.audio.prefix, request.audio.size_bytes)
            if spoken is not None:
                return replace(task, transcript=MockTranscript(spoken))
        if not isinstance(transcript, MockTranscript):
            assert request.audio is not None
            result = transcript(request.audio.prefix, task.duration_s)
            transcript = MockTranscript(result) if isinstance(result, str) else result
        return replace(task, transcript=transcript)

    def _check_key(self, dialect: Dialect, request: ParsedRequest, findings: Findings) -> None:
        token = request.bearer_token
        owner = find_key_owner(token) if token else None
        if owner not in (None, dialect.name):
            findings.warn(f"the key of {owner} was sent to {dialect.name}")
        if self._gateway.access.key is not None:
            return  # checked before the body was read
        if dialect.key is None or (request.method == "GET" and dialect.is_public(request)):
            return
        if token is None:
            findings.refuse(401, "Missing Authentication header", None, "missing_api_key")
        elif token != dialect.key:
            findings.refuse(401, f"Incorrect API key provided: {token[:3]}***{token[-4:]}.", None, "invalid_api_key")

    def _plan(
        self,
        dialect: Dialect | None,
        request: ParsedRequest,
        findings: Findings,
        task: Task | None,
        fault: Fault,
        recorded: RecordedRequest,
    ) -> PlannedResponse:
        """Choose between refusal, fault and normal response, and record the charge."""
        if dialect is None:
            return PlannedResponse(json_response(404, {"error": {"message": NO_DIALECT_MESSAGE}}))
        request_info = RequestInfo(self._gateway.next_serial(), request.model)
        cost_nanousd = 0
        headers: Headers = ()
        if task is not None:
            if isinstance(fault, SubstituteModel):
                task = dialect.substitute_model(task, fault.model, fault.provider)
            if task.kind == "speech" and isinstance(fault, WrongSpeech):
                task = replace(task, text=alter_text(task.text, fault.kind))
            if task.chat is not None:
                recorded.recordings = list(task.chat.recordings)
                if isinstance(fault, ChatFault):
                    task = replace(task, chat=replace(task.chat, fault=fault))
            recorded.accepted, recorded.billed = not precedes_validation(fault), is_charged(fault)
            if task.kind == "speech" and recorded.accepted and self._gateway.spoken_texts is not None:
                samples = expected_pcm(task.text, speed=task.speed, rate_hz=task.sample_rate_hz)
                self._gateway.spoken_texts.add(task.text, samples)
            if task.kind != "speech":
                recorded.audio_s = task.duration_s
                recorded.audio_format = task.audio_format
            generation_id = dialect.make_generation_id(task, request_info)
            headers = dialect.build_task_headers(request_info, generation_id)
            if recorded.accepted:
                recorded.generation_id = generation_id
            if recorded.accepted or recorded.billed:
                cost_nanousd = self._gateway.billing.charge(dialect.name, task, generation_id, billed=recorded.billed)
            recorded.cost_nanousd = cost_nanousd

        def build_response(task_to_serve: Task | None) -> Response:
            if task_to_serve is None:
                return self._handle_get(dialect, request, request_info)
            if dialect.supports_jobs and self._gateway.jobs_api.creates_job(request):
                build_result = partial(dialect.build_response, task_to_serve, headers, cost_nanousd=cost_nanousd)
                return self._gateway.jobs_api.submit(task_to_serve, request, build_result)
            return dialect.build_response(task_to_serve, headers, cost_nanousd=cost_nanousd)

        if findings.refusals and not precedes_validation(fault):
            planned = PlannedResponse(build_error_response(dialect, findings.refusals[0], request_info))
        else:
            planned = plan_response(fault, FaultContext(dialect, task, build_response, request_info))
        if planned.response is None or isinstance(fault, Html):
            return planned
        common_headers = dialect.build_common_headers(request_info, task, planned.response.status)
        return replace(planned, response=planned.response.add_missing_headers(common_headers))

    def _handle_get(self, dialect: Dialect, request: ParsedRequest, request_info: RequestInfo) -> Response:
        """Answer a GET."""
        if request.method != "GET":
            result: Response | Refusal = Refusal(405, f"Method not allowed: {request.method} {request.path}")
        elif dialect.supports_jobs and request.path.startswith("/jobs/"):
            result = self._gateway.jobs_api.handle_get(request)
        else:
            result = dialect.handle_get(request, self._gateway.billing)
        return build_error_response(dialect, result, request_info) if isinstance(result, Refusal) else result

    def _send(self, planned: PlannedResponse, recorded: RecordedRequest, fault: Fault, head: RequestHead) -> bool:
        gateway = self._gateway
        recorded.status = planned.response.status if planned.response else None
        recorded.fault = None if isinstance(fault, NoFault) else type(fault).__name__
        gateway.record_request(recorded)

        def before_block(position: int) -> None:
            recorded.sent_bytes = position
            if head.method == "POST":
                gateway.response_gate.wait_at(position)

        if head.method == "POST":
            gateway.closing.wait(gateway.latency_s)
            gateway.response_gate.wait_at(None)
        held_at = gateway.response_gate.after_bytes
        try:
            return send_response(
                self._connection,
                planned,
                keep_alive=head.keep_alive and recorded.complete,
                pause=gateway.closing.wait,
                before_block=before_block,
                marks=() if held_at is None else (held_at,),
            )
        except OSError:
            recorded.client_disconnected = True
            return False
        except EngineError as error:  # in the middle of the audio
            recorded.problems.append(error.refusal.message)
            return False
        finally:
            gateway.finish_exchange(recorded)
