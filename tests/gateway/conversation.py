"""One connection's turns: read a request, judge it, answer it."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from .base import Ask, Dialect, Job, Reply, Turn, bearer, json_reply, with_headers
from .checks import Findings, Refusal
from .dialects import find, owner_of
from .faults import Answer, Fault, Html, Normal, Swapped, charges, replaces_gateway
from .http1 import BrokenRequest, Connection, Head
from .intake import JsonIntake, Malformed, MultipartIntake, Tally
from .seen import Seen, key_problems, remember
from .stage import Act, Scene, act, error_reply, perform
from .words import Said

if TYPE_CHECKING:
    from .server import LoopbackGateway

NO_DIALECT = "no gateway lives at this path"


class Conversation:
    """What is said over one connection."""

    def __init__(self, gateway: LoopbackGateway, connection: Connection) -> None:
        self._gateway = gateway
        self._connection = connection

    def next(self) -> bool:
        """Answer one request; tell whether there may be another."""
        head = self._connection.read_head()
        if head is None:
            return False
        working = head.method == "POST"
        if working:
            self._gateway.count_in_flight(1)
        try:
            return self._turn(head)
        finally:
            if working:
                self._gateway.count_in_flight(-1)

    def _turn(self, head: Head) -> bool:
        found = find(head.path)
        dialect, path = found if found else (None, head.path)
        name = dialect.name if dialect else None
        seen = Seen(head.method, head.path, name, head.headers, head.query, received_at=time.time())
        if dialect is not None and (early := self._gateway.faults.take_early(head.method, dialect.name, path)):
            seen.complete = False
            played = act(early, Scene(dialect, None, lambda _: json_reply(200, {}), Turn()))
            self._send(played, seen, early, head)
            self._connection.linger()
            return False
        with ExitStack() as cleanup:
            ask = Ask(head.method, path, head.headers, head.query)
            try:
                body = self._read(head, ask, cleanup)
            except BrokenRequest as error:
                seen.complete, seen.problems = False, [str(error)]
                self._gateway.enter(seen)
                raise
            findings, job = Findings(), None
            if dialect is None:
                findings.refuse(404, NO_DIALECT)
            else:
                job = self._judge(dialect, head, ask, findings, cleanup)
            token = bearer(head.headers)
            remember(seen, ask, body, keep_audio=self._gateway.keep_audio)
            seen.problems = findings.problems + key_problems(head, seen.body_start, token)
            fault: Fault = Normal()
            if dialect is not None:
                fault = self._gateway.faults.take(head.method, dialect.name, path, ask.model)
            played = self._plan(dialect, ask, findings, job, fault, seen)
        return self._send(played, seen, fault, head)

    def _read(self, head: Head, ask: Ask, cleanup: ExitStack) -> Tally:
        """Read the body through the reader that its content type calls for."""
        body = Tally()
        intake: JsonIntake | MultipartIntake | None = None
        content_type = ask.headers.get("content-type", "")
        if content_type.startswith("application/json"):
            intake = JsonIntake()
        elif content_type.startswith("multipart/form-data"):
            try:
                intake = MultipartIntake(content_type)
            except Malformed as error:
                ask.malformed = str(error)
        elif head.method == "POST":
            ask.malformed = f"Content-Type is {content_type!r}"
        if intake is not None:
            cleanup.callback(intake.close)
        for piece in self._connection.read_body(head):
            body.take(piece)
            if intake is not None and ask.malformed is None:
                try:
                    intake.feed(piece)
                except Malformed as error:
                    ask.malformed = str(error)
        ask.size_bytes = body.size_bytes
        try:
            if isinstance(intake, MultipartIntake) and ask.malformed is None:
                ask.parts = intake.finish()
            elif isinstance(intake, JsonIntake):
                ask.json = intake.finish()
        except Malformed as error:
            ask.malformed = str(error)
        return body

    def _judge(self, dialect: Dialect, head: Head, ask: Ask, findings: Findings, cleanup: ExitStack) -> Job | None:
        """Check the key, then the fields; what is accepted comes back as work."""
        self._check_key(dialect, ask, findings)
        if head.method != "POST" or findings.refusals:
            return None
        if dialect.has_jobs:
            refusal = self._gateway.desk.refuses(ask)
            if refusal is not None:
                findings.refusals.append(refusal)
                return None
            if ask.path == "/jobs":
                ask.is_job, ask.path = True, "/audio/transcriptions" if ask.parts is not None else "/audio/speech"
        job = dialect.accept(ask, findings)
        if ask.audio is not None:
            cleanup.callback(ask.audio.close)
        if job is None or job.kind == "speech":
            return job
        if job.kind == "chat":
            return replace(job, text=self._gateway.answer)
        said = self._gateway.said
        if not isinstance(said, Said):
            assert ask.audio is not None
            heard = said(ask.audio.head, job.duration_s)
            said = Said(heard) if isinstance(heard, str) else heard
        return replace(job, said=said)

    def _check_key(self, dialect: Dialect, ask: Ask, findings: Findings) -> None:
        token = bearer(ask.headers)
        owner = owner_of(token) if token else None
        if owner not in (None, dialect.name):
            findings.remark(f"the key of {owner} was sent to {dialect.name}")
        if dialect.keys is None or (ask.method == "GET" and dialect.open_to_all(ask)):
            return
        if token is None:
            findings.refuse(401, "Missing Authentication header", None, "missing_api_key")
        elif token not in dialect.keys:
            findings.refuse(401, f"Incorrect API key provided: {token[:3]}***{token[-4:]}.", None, "invalid_api_key")

    def _plan(
        self, dialect: Dialect | None, ask: Ask, findings: Findings, job: Job | None, fault: Fault, seen: Seen
    ) -> Act:
        """Decide between the refusal, the fault and the ordinary reply, and enter the charge."""
        if dialect is None:
            return Act(json_reply(404, {"error": {"message": NO_DIALECT}}))
        turn = Turn(self._gateway.next_serial(), ask.model)
        cost = 0
        headers: tuple[tuple[str, str], ...] = ()
        if job is not None:
            if isinstance(fault, Swapped):
                job = dialect.swap(job, fault.model, fault.provider)
            if job.talk is not None:
                seen.heard = list(job.talk.heard)
                if isinstance(fault, Answer):
                    job = replace(job, talk=replace(job.talk, answer=fault))
            seen.accepted, seen.billed = not replaces_gateway(fault), charges(fault)
            if job.kind != "speech":
                seen.audio_s = job.duration_s
                seen.audio_format = job.audio_format
            generation_id = dialect.generation_id(job, turn)
            headers = dialect.job_headers(job, turn, generation_id)
            if seen.accepted:
                seen.generation_id = generation_id
            if seen.accepted or seen.billed:
                cost = self._gateway.bill.charge(dialect, job, generation_id, billed=seen.billed)
            seen.cost_nanousd = cost

        def ordinary(wanted: Job | None) -> Reply:
            if wanted is None:
                return self._look_up(dialect, ask, turn)
            if dialect.has_jobs and self._gateway.desk.takes(ask):
                finished = partial(dialect.reply, wanted, headers, cost_nanousd=cost)
                return self._gateway.desk.submit(wanted, ask, finished)
            return dialect.reply(wanted, headers, cost_nanousd=cost)

        if findings.refusals and not replaces_gateway(fault):
            played = Act(error_reply(dialect, findings.refusals[0], turn))
        else:
            played = act(fault, Scene(dialect, job, ordinary, turn))
        if played.reply is None or isinstance(fault, Html):
            return played
        standing = dialect.standing_headers(turn, job, played.reply.status)
        return replace(played, reply=with_headers(played.reply, standing))

    def _look_up(self, dialect: Dialect, ask: Ask, turn: Turn) -> Reply:
        """Answer a GET."""
        if ask.method != "GET":
            found: Reply | Refusal = Refusal(405, f"Method not allowed: {ask.method} {ask.path}")
        elif dialect.has_jobs and ask.path.startswith("/jobs/"):
            found = self._gateway.desk.look_up(ask)
        else:
            found = dialect.look_up(ask, self._gateway.bill)
        return error_reply(dialect, found, turn) if isinstance(found, Refusal) else found

    def _send(self, played: Act, seen: Seen, fault: Fault, head: Head) -> bool:
        gateway = self._gateway
        seen.status = played.reply.status if played.reply else None
        seen.fault = None if isinstance(fault, Normal) else type(fault).__name__
        gateway.enter(seen)

        def at_byte(position: int) -> None:
            seen.sent_bytes = position
            if head.method == "POST":
                gateway.gate.pass_at(position)

        if head.method == "POST":
            gateway.closing.wait(gateway.latency_s)
            gateway.gate.pass_at(None)
        held_at = gateway.gate.after_bytes
        try:
            return perform(
                self._connection,
                played,
                keep_alive=head.keeps_alive and seen.complete,
                pause=gateway.closing.wait,
                at_byte=at_byte,
                marks=() if held_at is None else (held_at,),
            )
        except OSError:
            seen.client_left = True
            return False
