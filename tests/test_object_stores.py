"""Test recordings and outputs in object stores, against moto's S3 server."""

from __future__ import annotations

import asyncio
import gc
import itertools
import signal
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trustme

from audiocli.core.batch.object_items import PrefixPlan, plan_windows
from audiocli.mock import NoFault, Status, expected_pcm
from audiocli.object_store import ObjectStores
from audiocli.processes import build_child_environment
from audiocli.storage.lease_objects import LeaseObjects
from audiocli.types.objects import ObjectUrl
from audiocli.types.stores import ListedObject, ObjectVersion
from tests.conftest import CommandLine
from tests.object_store import SECRET, ObjectStoreServer, StoreRequest, run_moto
from tests.pyav_codec import encode
from tests.recordings import make_recording as make_tone
from tests.test_batch import (
    LONG_CHUNK_COUNT,
    build_transcript,
    get_statuses,
    get_summary,
    parse_json_lines,
    write_long_recording,
)

ROOT = Path(__file__).parent.parent
_numbers = itertools.count()


@pytest.fixture(scope="session")
def moto_port() -> Iterator[int]:
    with run_moto() as port:
        yield port


@pytest.fixture
def store(moto_port: int, audiocli: CommandLine) -> Iterator[ObjectStoreServer]:
    """The S3 server, to which the environment of the command line leads."""
    server = ObjectStoreServer(moto_port)
    audiocli.variables.update(server.variables)
    audiocli.gateway.set_transcript(build_transcript)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def bucket(store: ObjectStoreServer) -> str:
    return store.create_bucket(f"recordings-{next(_numbers)}")


def make_recording(text: str, format: str = "wav") -> bytes:
    return encode(expected_pcm(text), format)


def put_recordings(store: ObjectStoreServer, bucket: str, *keys: str) -> None:
    for key in keys:
        store.put(bucket, key, make_recording(key))


# --- single objects --------------------------------------------------------------------------------------------------


def test_object_is_transcribed_to_stdout(audiocli: CommandLine, store: ObjectStoreServer, bucket: str) -> None:
    content = make_recording("one")
    store.put(bucket, "raw/one.wav", content)

    r = audiocli("transcribe", f"s3://{bucket}/raw/one.wav")

    assert (r.code, r.text) == (0, build_transcript(content, 0) + "\n"), r.err
    assert len(r.posts) == 1 and store.reads == ["raw/one.wav"]


def test_output_of_a_file_is_an_object(audiocli: CommandLine, store: ObjectStoreServer, bucket: str) -> None:
    path = audiocli.directory / "talk.wav"
    path.write_bytes(make_recording("talk"))
    store.put(bucket, "out/talk.srt", b"of an earlier run")

    r = audiocli("transcribe", path, "-o", f"s3://{bucket}/out/talk.srt")

    assert r.code == 0, r.err
    assert (store.get(bucket, "out/talk.srt") or b"").startswith(b"1\n00:00:00,000 --> ")
    assert f"s3://{bucket}/out/talk.srt" in r.err


def test_speech_is_written_to_an_object(audiocli: CommandLine, store: ObjectStoreServer, bucket: str) -> None:
    r = audiocli("speak", "Hello", "-o", f"s3://{bucket}/speech/hello.mp3", "--json")

    assert r.code == 0, r.err
    content = store.get(bucket, "speech/hello.mp3")
    assert content is not None and len(content) == r.json["bytes"]
    assert r.json["output"] == f"s3://{bucket}/speech/hello.mp3"


# --- prefixes --------------------------------------------------------------------------------------------------------


def test_prefix_is_transcribed_and_second_run_reads_nothing(
    audiocli: CommandLine, store: ObjectStoreServer, bucket: str
) -> None:
    keys = [f"raw/{'deep/' * (number % 2)}{number:02}.wav" for number in range(32)]
    put_recordings(store, bucket, *keys)
    store.put(bucket, "raw/notes.txt", b"not a recording")
    command = ["transcribe", f"s3://{bucket}/raw", "-R", "-O", f"s3://{bucket}/out", "-f", "srt,json", "--json"]

    first = audiocli(*command)
    first_reads = sorted(store.reads)
    store.reset()
    second = audiocli(*command)

    assert (first.code, len(first.posts)) == (0, 32), first.err
    assert first_reads == sorted(keys)
    expected = sorted(f"out/{key[4:-4]}.{extension}" for key in keys for extension in ("srt", "json"))
    assert sorted(store.list_keys(bucket, "out/")) == expected
    assert (second.code, second.requests, second.ledger) == (0, [], [])
    assert get_summary(second)["unchanged"] == 32
    assert (store.reads, store.writes) == ([], [])


def test_outputs_are_beside_their_objects_without_output_directory(
    audiocli: CommandLine, store: ObjectStoreServer, bucket: str
) -> None:
    put_recordings(store, bucket, "raw/a.wav", "raw/deep/b.mp3", "raw/.hidden/c.wav")

    flat = audiocli("transcribe", f"s3://{bucket}/raw", "--json")
    deep = audiocli("transcribe", f"s3://{bucket}/raw", "-R", "--json")

    assert (flat.code, get_summary(flat)["files"]) == (0, 1), flat.err
    assert (deep.code, get_summary(deep)["transcribed"], get_summary(deep)["unchanged"]) == (0, 1, 1)
    assert {"raw/a.txt", "raw/deep/b.txt"} <= set(store.list_keys(bucket))


def test_recordings_with_one_stem_keep_their_extensions(
    audiocli: CommandLine, store: ObjectStoreServer, bucket: str
) -> None:
    keys = ["raw/a.flac", "raw/a.mp3", "raw/a.mp3.wav", "raw/a.b.wav", "raw/a/a.wav", "raw/b.wav"]
    put_recordings(store, bucket, *keys)

    r = audiocli("transcribe", f"s3://{bucket}/raw", "-R", "-O", f"s3://{bucket}/out")

    assert r.code == 0, r.err
    assert store.list_keys(bucket, "out/") == sorted(
        ["out/a.flac.txt", "out/a.mp3.txt", "out/a.mp3.wav.txt", "out/a.b.txt", "out/a/a.txt", "out/b.txt"]
    )


def test_files_and_objects_can_be_mixed(
    audiocli: CommandLine, store: ObjectStoreServer, bucket: str, tmp_path: Path
) -> None:
    put_recordings(store, bucket, "raw/deep/a.wav")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.wav").write_bytes(make_recording("b"))

    to_disk = audiocli("transcribe", f"s3://{bucket}/raw", "-R", "-O", tmp_path / "out")
    to_store = audiocli("transcribe", tmp_path / "in", "-O", f"s3://{bucket}/out")
    again = audiocli("transcribe", tmp_path / "in", "-O", f"s3://{bucket}/out")

    assert (to_disk.code, to_store.code, again.code) == (0, 0, 0), to_disk.err + to_store.err
    assert (tmp_path / "out" / "deep" / "a.txt").is_file()
    assert store.list_keys(bucket, "out/") == ["out/b.txt"]
    assert again.requests == [] and "1 unchanged" in again.err
    assert not list((tmp_path / "world" / "cache" / "audiocli" / "objects").iterdir())


def test_list_of_names_may_have_urls(
    audiocli: CommandLine, store: ObjectStoreServer, bucket: str, tmp_path: Path
) -> None:
    put_recordings(store, bucket, "raw/a.wav", "other/a.wav")
    names = f"s3://{bucket}/raw/a.wav\ns3://{bucket}/other/a.wav\ns3://{bucket}/raw/missing.wav\n".encode()

    r = audiocli("transcribe", "--files-from", "-", "-O", f"s3://{bucket}/out", "--json", stdin=names)

    assert r.code == 3, r.err
    summary = get_summary(r)
    assert (summary["transcribed"], summary["failed"]) == (2, 1)
    assert store.list_keys(bucket, "out/") == ["out/other/a.wav.txt", "out/raw/a.wav.txt"]


def test_filters_and_names_apply_to_objects(audiocli: CommandLine, store: ObjectStoreServer, bucket: str) -> None:
    put_recordings(store, bucket, "raw/a.wav", "raw/b.wav", "raw/skip/c.wav", "raw/d.mp3")
    prefix = f"s3://{bucket}/raw"

    r = audiocli("transcribe", prefix, "-R", "--include", "*.wav", "--exclude", "skip", "--exclude", "b.*")
    named = audiocli("transcribe", f"{prefix}/skip", "--name", "{stem}.{lang}", "-O", f"s3://{bucket}/named")
    again = audiocli("transcribe", f"{prefix}/skip", "--name", "{stem}.{lang}", "-O", f"s3://{bucket}/named")
    both = audiocli("transcribe", prefix, "-R", "--name", "same", "-O", f"s3://{bucket}/named")

    assert (r.code, len(r.posts)) == (0, 1), r.err
    assert (named.code, again.code, again.requests) == (0, 0, []), named.err
    assert store.list_keys(bucket, "named/") == ["named/c.en.txt"] and "1 unchanged" in again.err
    assert (both.code, both.requests) == (2, [])


# --- state -----------------------------------------------------------------------------------------------------------


def test_edited_and_foreign_objects_are_left_unchanged(
    audiocli: CommandLine, store: ObjectStoreServer, bucket: str
) -> None:
    put_recordings(store, bucket, "raw/a.wav", "raw/b.wav")
    store.put(bucket, "out/b.txt", b"not ours")
    command = ["transcribe", f"s3://{bucket}/raw/", "-O", f"s3://{bucket}/out", "--json"]

    first = audiocli(*command)
    store.put(bucket, "out/a.txt", b"edited by hand")
    second = audiocli(*command)
    untouched = store.get(bucket, "out/a.txt"), store.get(bucket, "out/b.txt")
    forced = audiocli(*command, "--force")

    assert (first.code, get_statuses(first)) == (3, {"a.wav": "transcribed", "b.wav": "edited"})
    assert (second.requests, get_statuses(second)) == ([], {"a.wav": "edited", "b.wav": "edited"})
    assert untouched == (b"edited by hand", b"not ours")
    edited = [line["edited"] for line in parse_json_lines(second) if "source" in line]
    assert sorted(edited) == [[f"s3://{bucket}/out/a.txt"], [f"s3://{bucket}/out/b.txt"]]
    assert get_statuses(forced)["a.wav"] == "written" and store.get(bucket, "out/a.txt") != b"edited by hand"


def test_changed_recording_is_read_and_sent_again(audiocli: CommandLine, store: ObjectStoreServer, bucket: str) -> None:
    put_recordings(store, bucket, "raw/a.wav", "raw/b.wav")
    command = ["transcribe", f"s3://{bucket}/raw", "-O", f"s3://{bucket}/out", "--json"]
    audiocli(*command)
    store.put(bucket, "raw/a.wav", make_recording("something else"))
    store.put(bucket, "raw/b.wav", make_recording("raw/b.wav"))  # the same content again
    store.reset()

    r = audiocli(*command)

    assert (r.code, len(r.posts), store.reads) == (0, 1, ["raw/a.wav"]), r.err
    assert get_statuses(r) == {"a.wav": "transcribed", "b.wav": "unchanged"}


def test_other_formats_are_written_without_reading_the_recording(
    audiocli: CommandLine, store: ObjectStoreServer, bucket: str
) -> None:
    put_recordings(store, bucket, "raw/a.wav")
    command = ["transcribe", f"s3://{bucket}/raw", "-O", f"s3://{bucket}/out"]
    audiocli(*command, "-f", "srt")
    store.reset()

    r = audiocli(*command, "-f", "srt,vtt,html")

    assert (r.code, r.requests, store.reads) == (0, [], []), r.err
    assert store.writes == ["out/a.vtt", "out/a.html"]
    assert b'src="../raw/a.wav"' in (store.get(bucket, "out/a.html") or b"")


def test_tracks_of_an_unchanged_recording_are_not_read_again(
    audiocli: CommandLine, store: ObjectStoreServer, bucket: str
) -> None:
    store.put(bucket, "raw/a.m4a", make_tone("m4a"))
    command = ["transcribe", f"s3://{bucket}/raw", "-O", f"s3://{bucket}/out", "-l", "de"]
    first = audiocli(*command)
    store.reset()

    second = audiocli(*command)
    channel = audiocli(*command, "--channel", "1", "--name", "{stem}-1", "--json")

    assert (first.code, second.code, second.requests) == (0, 0, []), first.err + second.err
    assert store.reads == ["raw/a.m4a"] and channel.code == 0, channel.err


def test_pages_contain_their_recordings(
    audiocli: CommandLine, store: ObjectStoreServer, bucket: str, tmp_path: Path
) -> None:
    put_recordings(store, bucket, "raw/a.wav")
    command = ["transcribe", f"s3://{bucket}/raw", "-O", tmp_path / "out", "-f", "html"]

    linked = audiocli(*command)
    embedded = audiocli(*command, "--embed-media")
    again = audiocli(*command, "--embed-media")

    assert (linked.code, linked.requests) == (2, []) and "--embed-media" in linked.err
    assert (embedded.code, again.code, again.requests) == (0, 0, []), embedded.err
    assert "1 unchanged" in again.err and "data:audio" in (tmp_path / "out" / "a.html").read_text()


def test_output_that_appears_meanwhile_is_left_unchanged(
    audiocli: CommandLine, store: ObjectStoreServer, bucket: str
) -> None:
    put_recordings(store, bucket, "raw/a.wav")
    store.before_put = lambda request: store.put(bucket, "out/a.txt", b"of another program")

    r = audiocli("transcribe", f"s3://{bucket}/raw", "-O", f"s3://{bucket}/out", "--json")

    assert (r.code, len(r.posts)) == (0, 1), r.err
    line = parse_json_lines(r)[0]
    assert (line["written"], line["edited"]) == ([], [f"s3://{bucket}/out/a.txt"])
    assert store.get(bucket, "out/a.txt") == b"of another program"


def test_write_whose_response_was_lost_is_recognized(
    audiocli: CommandLine, store: ObjectStoreServer, bucket: str
) -> None:
    put_recordings(store, bucket, "raw/a.wav")
    lost: list[str] = []

    def lose_response(request: StoreRequest, body: bytes) -> None:
        if request.key == "out/a.txt" and not lost:
            lost.append(request.key)
            store.put(bucket, request.key, body)

    store.before_put_body = lose_response
    command = ["transcribe", f"s3://{bucket}/raw", "-O", f"s3://{bucket}/out", "--json"]

    first = audiocli(*command)
    second = audiocli(*command)

    assert lost and get_statuses(first) == {"a.wav": "transcribed"}
    assert (parse_json_lines(first)[0]["edited"], get_statuses(second)) == ([], {"a.wav": "unchanged"})


def test_refused_write_loses_nothing(audiocli: CommandLine, store: ObjectStoreServer, bucket: str) -> None:
    put_recordings(store, bucket, "raw/a.wav")
    command = ["transcribe", f"s3://{bucket}/raw", "-O", f"s3://{bucket}/out", "-f", "txt,srt", "--json"]
    store.fault = lambda request: (403, "AccessDenied") if request.key == "out/a.srt" and request.size_bytes else None

    refused = audiocli(*command)
    partly = store.list_keys(bucket, "out/")
    store.fault = None
    second = audiocli(*command)

    error = parse_json_lines(refused)[0]["error"]
    assert (refused.code, error["exit"], len(refused.posts)) == (3, 10, 1)
    assert f"s3://{bucket}/out/a.srt" in error["message"] and "stored" in error["hint"]
    assert partly == ["out/a.txt"]
    assert (second.code, second.requests) == (0, []), second.err
    assert store.list_keys(bucket, "out/") == ["out/a.srt", "out/a.txt"]


@pytest.mark.parametrize("command", ["speak", "transcribe"])
def test_refused_single_output_is_saved(
    audiocli: CommandLine, store: ObjectStoreServer, bucket: str, command: str
) -> None:
    store.fault = lambda request: (403, "AccessDenied") if request.method == "PUT" else None
    path = audiocli.directory / "talk.wav"
    path.write_bytes(make_recording("talk"))
    arguments = ["Hello", "-o", f"s3://{bucket}/x.mp3"] if command == "speak" else [path, "-o", f"s3://{bucket}/x.txt"]

    r = audiocli(command, *arguments)

    assert r.code == 10, r.err
    [saved] = (audiocli.directory / "world" / "cache" / "audiocli" / "kept").iterdir()
    assert saved.stat().st_size and str(saved) in r.err


# --- errors ----------------------------------------------------------------------------------------------------------


def test_errors_have_their_exit_codes(audiocli: CommandLine, store: ObjectStoreServer, bucket: str) -> None:
    put_recordings(store, bucket, "raw/a.wav")
    url = f"s3://{bucket}/raw"

    no_bucket = audiocli("transcribe", "s3://no-such-bucket-anywhere/raw", "-R")
    no_output_bucket = audiocli("transcribe", url, "-O", "s3://no-such-bucket-anywhere/out")
    no_object = audiocli("transcribe", f"{url}/missing.wav")
    nothing = audiocli("transcribe", f"s3://{bucket}/empty", "-R")
    unreachable = audiocli("transcribe", url, variables={"AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    cleartext = audiocli("transcribe", url, variables={"AWS_ALLOW_HTTP": "false"})
    store.fault = lambda request: (403, "InvalidAccessKeyId")
    wrong_key = audiocli("transcribe", url)
    store.fault = lambda request: (403, "AccessDenied") if request.is_list else None
    no_right = audiocli("transcribe", url)

    results = [no_bucket, no_output_bucket, no_object, nothing, unreachable, cleartext, wrong_key, no_right]
    assert [r.code for r in results] == [2, 2, 2, 2, 7, 2, 4, 4], [r.err for r in results]
    assert all(r.requests == [] for r in results)
    assert not any("sting" in r.err and "AWS4" in r.err for r in results)


def test_object_that_may_not_be_read_does_not_stop_the_batch(
    audiocli: CommandLine, store: ObjectStoreServer, bucket: str
) -> None:
    put_recordings(store, bucket, "raw/a.wav", "raw/b.wav")
    store.fault = lambda request: (403, "AccessDenied") if request.is_read and request.key == "raw/a.wav" else None

    r = audiocli("transcribe", f"s3://{bucket}/raw", "-O", f"s3://{bucket}/out", "-j", "1", "--json")

    assert (r.code, get_statuses(r)) == (3, {"a.wav": "failed", "b.wav": "transcribed"})
    assert parse_json_lines(r)[0]["error"]["exit"] == 4


def test_object_can_be_read_without_the_right_to_list(
    audiocli: CommandLine, store: ObjectStoreServer, bucket: str
) -> None:
    put_recordings(store, bucket, "raw/a.wav")
    store.fault = lambda request: (403, "AccessDenied") if request.is_list else None

    r = audiocli("transcribe", f"s3://{bucket}/raw/a.wav", "-o", f"s3://{bucket}/out/a.txt")

    assert (r.code, len(r.posts), store.list_keys(bucket, "out/")) == (0, 1, ["out/a.txt"]), r.err


def test_throttled_store_is_waited_for(audiocli: CommandLine, store: ObjectStoreServer, bucket: str) -> None:
    put_recordings(store, bucket, "raw/a.wav", "raw/b.wav")
    refused: dict[tuple[str, str], int] = {}

    def throttle(request: object) -> tuple[int, str] | None:
        key = (request.method, request.key)  # type: ignore[attr-defined]
        refused[key] = refused.get(key, 0) + 1
        return (503, "SlowDown") if refused[key] <= 2 else None

    store.fault = throttle

    r = audiocli("transcribe", f"s3://{bucket}/raw", "-O", f"s3://{bucket}/out")

    assert (r.code, len(r.posts)) == (0, 2), r.err
    assert store.list_keys(bucket, "out/") == ["out/a.txt", "out/b.txt"]


def test_secrets_are_not_in_messages(audiocli: CommandLine, store: ObjectStoreServer, bucket: str) -> None:
    put_recordings(store, bucket, "raw/a.wav")
    store.fault = lambda request: (400, "Weird" + "testing") if request.is_read else None

    r = audiocli("transcribe", f"s3://{bucket}/raw", "--debug", "--json")

    assert r.code == 3
    assert "wJalrXUtnFEMI" not in r.err + r.text


# --- keys ------------------------------------------------------------------------------------------------------------


def test_keys_that_cannot_be_used_are_failed_items(
    audiocli: CommandLine, store: ObjectStoreServer, bucket: str
) -> None:
    good = ["raw/a.wav", "raw/é ü%41+&.wav", "raw/a#b?c.wav", "raw/z~[1].wav", "raw/sub/x.wav"]
    bad = ["raw//two.wav", "raw/../up.wav", "raw/./dot.wav", "raw/sub//y.wav"]
    put_recordings(store, bucket, *good, *bad)
    store.put(bucket, "raw/folder/", b"")
    command = ["transcribe", f"s3://{bucket}/raw", "-R", "-O", f"s3://{bucket}/out", "--json"]

    r = audiocli(*command)
    second = audiocli(*command)

    lines = [line for line in parse_json_lines(r) if "source" in line]
    failed = {line["source"] for line in lines if line["status"] == "failed"}
    assert r.code == 3, r.err
    assert failed == {f"s3://{bucket}/{key}" for key in bad}
    assert {line["source"] for line in lines} - failed == {f"s3://{bucket}/{key}" for key in good}
    assert store.list_keys(bucket, "out/") == sorted(f"out/{key[4:-4]}.txt" for key in good)
    assert second.requests == [] and get_summary(second)["unchanged"] == len(good)


@pytest.mark.parametrize("options", [[], ["--name", "{stem}.new.{ext}"]])
def test_invalid_key_is_a_failed_recording_whatever_the_names(
    audiocli: CommandLine, store: ObjectStoreServer, bucket: str, options: list[str]
) -> None:
    put_recordings(store, bucket, "raw/a.wav", "raw//two.wav")

    r = audiocli("transcribe", f"s3://{bucket}/raw", "-R", "-O", f"s3://{bucket}/out", "--json", *options)

    assert r.code == 3, r.err
    assert get_statuses(r) == {"a.wav": "transcribed", "two.wav": "failed"}


def test_listing_that_is_refused_after_an_invalid_key_is_denied_access(
    audiocli: CommandLine, store: ObjectStoreServer, bucket: str
) -> None:
    put_recordings(store, bucket, "raw/a.wav", "raw//two.wav")
    lists: list[StoreRequest] = []

    def refuse_own_listing(request: StoreRequest) -> tuple[int, str] | None:
        if request.is_list and "max-keys" not in request.query:
            lists.append(request)
            return 403, "AccessDenied"
        return None

    store.fault = refuse_own_listing

    r = audiocli("transcribe", f"s3://{bucket}/raw", "-R", "-O", f"s3://{bucket}/out")

    assert (r.code, r.posts, bool(lists)) == (4, [], True), r.err


def test_listing_goes_on_after_a_page_with_an_invalid_key(
    audiocli: CommandLine, store: ObjectStoreServer, bucket: str
) -> None:
    store.page_size = 20
    for number in range(60):
        store.put(bucket, f"raw/n{number:05}.txt", b"x")
    store.put(bucket, "raw/n00030//.wav", b"x")
    put_recordings(store, bucket, "raw/a.wav", "raw/n00031.wav", "raw/z.wav")

    r = audiocli("transcribe", f"s3://{bucket}/raw", "-R", "-O", f"s3://{bucket}/out", "--json")

    assert get_statuses(r) == {
        "a.wav": "transcribed",
        "n00031.wav": "transcribed",
        "z.wav": "transcribed",
        ".wav": "failed",
    }


# --- dry run and verification ----------------------------------------------------------------------------------------


def test_dry_run_reads_only_what_tells_the_length(audiocli: CommandLine, store: ObjectStoreServer, bucket: str) -> None:
    seconds = 1_100
    header = make_recording("x")[:44]
    data_bytes = seconds * 48_000 * 2
    header = b"RIFF" + (36 + data_bytes).to_bytes(4, "little") + header[8:22] + (1).to_bytes(2, "little")
    header += (48_000).to_bytes(4, "little") + (96_000).to_bytes(4, "little") + b"\x02\x00\x10\x00data"
    store.put(bucket, "raw/long.wav", header + data_bytes.to_bytes(4, "little") + bytes(data_bytes))

    r = audiocli("transcribe", f"s3://{bucket}/raw", "-O", f"s3://{bucket}/out", "--dry-run", "--json")

    assert (r.code, r.json["to_send"], r.json["audio_s"]) == (0, 1, seconds), r.err
    assert 0 < sum(store.read_bytes) < 1_000_000


def test_dry_run_of_one_object_does_not_read_it(audiocli: CommandLine, store: ObjectStoreServer, bucket: str) -> None:
    content = make_recording("x")
    padded = content[:4] + (len(content) + 10_000_000 - 8).to_bytes(4, "little") + content[8:40]
    padded += (len(content) - 44 + 10_000_000).to_bytes(4, "little") + content[44:] + bytes(10_000_000)
    store.put(bucket, "raw/a.wav", padded)

    r = audiocli("transcribe", f"s3://{bucket}/raw/a.wav", "-o", audiocli.directory / "a.txt", "--dry-run", "--json")

    assert (r.code, r.json["requests"], sum(store.read_bytes) < 1_000_000) == (0, 1, True), r.err


def test_length_of_an_mp4_is_read_from_its_index(audiocli: CommandLine, store: ObjectStoreServer, bucket: str) -> None:
    content = make_tone("m4a")
    index = content.index(b"mdat") - 4
    media_bytes = int.from_bytes(content[index : index + 4], "big")
    # The media data becomes longer, as that of a recording with a higher bit rate.
    padding = 20_000_000
    media = (media_bytes + padding).to_bytes(4, "big") + content[index + 4 : index + media_bytes] + bytes(padding)
    store.put(bucket, "raw/a.m4a", content[:index] + media + content[index + media_bytes :])

    r = audiocli("transcribe", f"s3://{bucket}/raw", "--dry-run", "--json")

    assert (r.code, r.json["to_send"], r.json["failed"]) == (0, 1, 0), r.err
    assert r.json["audio_s"] > 1 and not r.json["audio_is_exact"]
    assert 0 < sum(store.read_bytes) < 1_000_000


@pytest.mark.parametrize("format", ["mp3", "flac", "ogg"])
def test_length_of_other_formats_is_estimated(
    audiocli: CommandLine, store: ObjectStoreServer, bucket: str, format: str
) -> None:
    content = make_recording("hello " * 50, format)
    store.put(bucket, f"raw/a.{format}", content)
    path = audiocli.directory / f"a.{format}"
    path.write_bytes(content)

    r = audiocli("transcribe", f"s3://{bucket}/raw", "--dry-run", "--json")
    local = audiocli("transcribe", path, "-O", audiocli.directory, "--dry-run", "--json")

    assert r.json["audio_s"] == pytest.approx(local.json["duration_s"], rel=0.02)


def test_verify_only_reads_no_recording(audiocli: CommandLine, store: ObjectStoreServer, bucket: str) -> None:
    put_recordings(store, bucket, "raw/a.wav", "raw/b.wav")
    command = ["transcribe", f"s3://{bucket}/raw", "-O", f"s3://{bucket}/out", "--json"]
    before = audiocli(*command, "--verify-only")
    audiocli(*command)
    store.put(bucket, "out/a.txt", b"edited")
    store.reset()

    after = audiocli(*command, "--verify-only")
    dry = audiocli(*command, "--dry-run")

    assert (before.code, parse_json_lines(before)[-1]["summary"]["missing"]) == (3, 2)
    assert (after.code, parse_json_lines(after)[0]["outputs"]) == (0, {f"s3://{bucket}/out/a.txt": "edited"})
    assert (dry.json["to_send"], dry.json["edited"]) == (0, 1)
    assert [key for key in store.reads if key.startswith("raw/")] == []


def test_watch_is_refused(audiocli: CommandLine) -> None:
    r = audiocli("transcribe", "s3://bucket/raw", "--watch")

    assert (r.code, r.requests) == (2, []) and "run the command again" in r.err


# --- shared results --------------------------------------------------------------------------------------------------


def use_other_machine(audiocli: CommandLine, name: str) -> dict[str, str]:
    """Return the environment of another machine, which has nothing of this one."""
    world = audiocli.directory / name
    names = ("DATA", "CACHE", "CONFIG")
    directories = {f"XDG_{kind}_HOME": str(world / kind.lower()) for kind in names}
    return directories | {"AUDIOCLI_LEDGER": str(world / "ledger.sqlite3")}


def test_results_are_shared_between_machines(audiocli: CommandLine, store: ObjectStoreServer, bucket: str) -> None:
    put_recordings(store, bucket, "raw/a.wav", "raw/b.wav")
    results = ["--results-url", f"s3://{bucket}/results"]
    prefix = f"s3://{bucket}/raw"

    first = audiocli("transcribe", prefix, "-O", f"s3://{bucket}/one", *results)
    other = use_other_machine(audiocli, "other")
    second = audiocli("transcribe", prefix, "-O", f"s3://{bucket}/two", *results, variables=other)
    third = use_other_machine(audiocli, "third")
    single = audiocli("transcribe", f"{prefix}/a.wav", *results, variables=third)

    assert (first.code, len(first.posts)) == (0, 2), first.err
    assert (second.code, second.requests, single.code, single.requests) == (0, [], 0, []), second.err
    assert len(store.list_keys(bucket, "results/")) == 2
    assert store.get(bucket, "one/a.txt") == store.get(bucket, "two/a.txt") == single.out


@pytest.mark.parametrize("is_batch", [False, True])
def test_finished_chunks_are_shared_between_machines(
    audiocli: CommandLine, store: ObjectStoreServer, bucket: str, is_batch: bool
) -> None:
    write_long_recording(audiocli.directory / "recordings")
    source = audiocli.directory / "recordings" / ("" if is_batch else "long.wav")
    command = ("transcribe", source, "--max-chunk", "10", "-j", "1", "--results-url", f"s3://{bucket}/results")
    audiocli.gateway.queue_faults(NoFault(), NoFault(), Status(400))

    failed = audiocli(*command, variables=use_other_machine(audiocli, "one"))
    shared = store.list_keys(bucket, "results/chunks/")
    second = audiocli(*command, variables=use_other_machine(audiocli, "two"))

    assert (failed.code, len(failed.posts), len(shared)) == (3 if is_batch else 6, 3, 2), failed.err
    assert (second.code, len(second.posts)) == (0, LONG_CHUNK_COUNT - 2), second.err
    assert store.list_keys(bucket, "results/chunks/") == []


def test_chunk_that_cannot_be_shared_is_a_warning(audiocli: CommandLine, store: ObjectStoreServer, bucket: str) -> None:
    path = write_long_recording(audiocli.directory / "recordings")
    store.fault = lambda request: (403, "AccessDenied") if "/chunks/" in request.key and request.size_bytes else None

    r = audiocli("transcribe", path, "--max-chunk", "10", "-j", "1", "--results-url", f"s3://{bucket}/results")

    assert (r.code, len(r.posts), r.err.count("cannot share the transcript")) == (0, LONG_CHUNK_COUNT, 1), r.err


def test_result_that_cannot_be_shared_is_shared_by_the_next_run(
    audiocli: CommandLine, store: ObjectStoreServer, bucket: str
) -> None:
    put_recordings(store, bucket, "raw/a.wav")
    command = [
        "transcribe",
        f"s3://{bucket}/raw",
        "-O",
        f"s3://{bucket}/out",
        "--results-url",
        f"s3://{bucket}/results",
    ]
    store.fault = lambda request: (
        (403, "AccessDenied") if request.key.endswith(".json") and request.size_bytes else None
    )

    failed = audiocli(*command, "--json")
    store.fault = None
    second = audiocli(*command)

    assert (failed.code, parse_json_lines(failed)[0]["error"]["exit"]) == (3, 10)
    assert (second.code, second.requests, len(store.list_keys(bucket, "results/"))) == (0, [], 1), second.err


def test_two_machines_share_the_work_on_one_prefix(
    audiocli: CommandLine, store: ObjectStoreServer, bucket: str
) -> None:
    put_recordings(store, bucket, *(f"raw/{number:02}.wav" for number in range(12)))
    command = ["transcribe", f"s3://{bucket}/raw", "-O", f"s3://{bucket}/out", "--results-url", f"s3://{bucket}/paid"]
    environments = [audiocli.variables, audiocli.variables | use_other_machine(audiocli, "other")]

    processes = [
        subprocess.Popen([sys.executable, "-m", "audiocli", *command, "-j", "3"], env=environment, cwd=ROOT)
        for environment in environments
    ]
    codes = [process.wait(120) for process in processes]

    assert codes == [0, 0]
    assert len([request for request in audiocli.gateway.requests if request.method == "POST"]) == 12
    assert len(store.list_keys(bucket, "out/")) == 12 and store.list_keys(bucket, "paid/claims/") == []


def test_claim_of_a_dead_machine_is_taken_over(store: ObjectStoreServer, bucket: str) -> None:
    stores = ObjectStores(store.variables)
    prefix = ObjectUrl(f"s3://{bucket}", "claims")
    # The first one never renews its claim.
    dead = LeaseObjects(prefix, stores, renewal_interval_s=1_000)
    alive = LeaseObjects(prefix, stores, renewal_interval_s=0.05)
    other = LeaseObjects(prefix, stores, lease_s=0.5, check_interval_s=0)

    claimed = dead.claim("a"), alive.claim("b"), other.claim("a"), other.claim("b"), dead.claim("b")
    time.sleep(0.7)
    later = other.claim("a"), other.claim("b")
    alive.release("b")
    released = other.claim("b")
    dead.close()
    other.close()
    alive.close()

    assert claimed == (True, True, False, False, False)
    assert later == (True, False)
    assert released and store.list_keys(bucket, "claims/") == []


def test_claim_survives_a_renewal_whose_response_is_lost(store: ObjectStoreServer, bucket: str) -> None:
    """The store has written the renewal and reports a conflict, as when the client sends it again."""
    prefix = ObjectUrl(f"s3://{bucket}", "claims")
    owner = LeaseObjects(prefix, ObjectStores(store.variables), renewal_interval_s=0.05)
    other = LeaseObjects(prefix, ObjectStores(store.variables), lease_s=0.4, check_interval_s=0)
    lost: list[str] = []

    def lose_response(request: StoreRequest, body: bytes) -> None:
        if body and not lost:
            lost.append(request.key)
            store.put(bucket, request.key, body)

    assert owner.claim("a")
    store.before_put_body = lose_response
    while not lost:
        time.sleep(0.01)
    deadline_s = time.monotonic() + 1.0
    while time.monotonic() < deadline_s:
        assert not other.claim("a")
        time.sleep(0.05)
    owner.close()

    assert store.list_keys(bucket, "claims/") == []


def test_huge_objects_are_not_read_into_memory(store: ObjectStoreServer, bucket: str) -> None:
    """Any user with the right to write to a shared prefix may have put them there."""
    stores = ObjectStores(store.variables)
    url = ObjectUrl(f"s3://{bucket}", "results/a.json")
    store.put(bucket, url.key, bytes(1_001))
    store.put(bucket, "claims/a.claim", bytes(1_000_000))
    claims = LeaseObjects(ObjectUrl(f"s3://{bucket}", "claims"), stores)

    contents = asyncio.run(stores.read(url, max_bytes=1_000)), stores.read_blocking(url, max_bytes=1_000)

    assert contents == (None, None)
    assert asyncio.run(stores.read(url, max_bytes=1_001)) == stores.read_blocking(url) == bytes(1_001)
    assert not claims.claim("a")
    claims.close()


def test_slow_store_does_not_make_a_new_claim_look_old(store: ObjectStoreServer, bucket: str) -> None:
    prefix = ObjectUrl(f"s3://{bucket}", "claims")
    owner = LeaseObjects(prefix, ObjectStores(store.variables), renewal_interval_s=1_000)
    other = LeaseObjects(prefix, ObjectStores(store.variables), lease_s=0.6, check_interval_s=0)
    assert owner.claim("a")
    store.before_put = lambda request: time.sleep(0.5)
    first = other.claim("a")
    store.before_put = None
    time.sleep(0.2)

    assert (first, other.claim("a")) == (False, False)
    owner.close()


# --- processes -------------------------------------------------------------------------------------------------------


def test_killed_run_is_completed_by_the_next_one(audiocli: CommandLine, store: ObjectStoreServer, bucket: str) -> None:
    put_recordings(store, bucket, "raw/a.wav")
    command = ["transcribe", f"s3://{bucket}/raw", "-O", f"s3://{bucket}/out", "-f", "txt,srt"]
    processes: list[subprocess.Popen[bytes]] = []
    started = threading.Event()

    def kill_before_second_output(request: StoreRequest) -> None:
        if request.key == "out/a.srt":
            started.wait(30)
            processes[0].kill()
            processes[0].wait(30)

    store.before_put = kill_before_second_output
    process = subprocess.Popen([sys.executable, "-m", "audiocli", *command], env=audiocli.variables, cwd=ROOT)
    processes.append(process)
    started.set()
    code = process.wait(60)
    store.before_put = None
    # The request of the killed process was already on its way, so its object may exist.
    wait_for_requests(store)
    after_kill = store.list_keys(bucket, "out/")
    audiocli.gateway.requests.clear()
    second = audiocli(*command)

    assert code == -signal.SIGKILL
    assert "out/a.txt" in after_kill
    assert (second.code, second.requests) == (0, []), second.err
    assert store.list_keys(bucket, "out/") == ["out/a.srt", "out/a.txt"]
    assert not list((audiocli.directory / "world" / "cache" / "audiocli" / "objects").iterdir())


def wait_for_requests(store: ObjectStoreServer) -> None:
    """Wait until moto has answered what the proxy passed on."""
    deadline_s = time.monotonic() + 30
    while store.pending_count and time.monotonic() < deadline_s:
        time.sleep(0.01)


# --- configuration ---------------------------------------------------------------------------------------------------


def test_store_is_configured_by_its_table(audiocli: CommandLine, store: ObjectStoreServer, bucket: str) -> None:
    put_recordings(store, bucket, "raw/a.wav")
    for name in store.variables:
        del audiocli.variables[name]
    audiocli.write_config(
        f"""[stores.archive]
url = "s3://{bucket}"
endpoint = "{store.url}"
region = "eu-central-1"
path_style = true
allow_http = true
access_key_id_env = "ARCHIVE_KEY"
secret_access_key_env = "ARCHIVE_SECRET"
"""
    )
    audiocli.variables["ARCHIVE_KEY"] = "testing"

    without_secret = audiocli("transcribe", f"s3://{bucket}/raw")
    audiocli.variables["ARCHIVE_SECRET"] = SECRET
    r = audiocli("transcribe", f"s3://{bucket}/raw")

    assert without_secret.code == 4 and "ARCHIVE_SECRET is not set" in without_secret.err
    assert (r.code, len(r.posts)) == (0, 1), r.err


@pytest.mark.parametrize(
    ("table", "message"),
    [('url = "https://x/y"', "not a URL such as"), ('url = "s3://b"\nregoin = "x"', "did you mean region?")],
)
def test_invalid_table_is_an_error(audiocli: CommandLine, table: str, message: str) -> None:
    audiocli.write_config(f"[stores.a]\n{table}\n")

    r = audiocli("config", "check")

    assert (r.code, message in r.err + r.text) == (3, True)


def test_config_check_names_variables_of_stores(audiocli: CommandLine) -> None:
    audiocli.write_config('[stores.archive]\nurl = "s3://archive"\naccess_key_id_env = "ARCHIVE_KEY"\n')

    missing = audiocli("config", "check", "--json")
    found = audiocli("config", "check", "--json", variables={"ARCHIVE_KEY": "testing"})

    checks = {check["check"]: check["status"] for check in missing.json["checks"]}
    assert checks["store archive"] == "warning" and "ARCHIVE_KEY is not set" in missing.text
    assert {check["check"]: check["status"] for check in found.json["checks"]}["store archive"] == "ok"


def test_store_with_a_private_certificate_authority(audiocli: CommandLine, moto_port: int, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = ObjectStoreServer(moto_port, tls=context)
    bucket = server.create_bucket(f"recordings-{next(_numbers)}")
    put_recordings(server, bucket, "raw/a.wav", "raw//bad.wav")
    audiocli.variables.update(server.variables)
    del audiocli.variables["AWS_ALLOW_HTTP"]
    command = ["transcribe", f"s3://{bucket}/raw/a.wav"]

    untrusted = audiocli(*command)
    trusted = audiocli(*command, variables={"AWS_CA_BUNDLE": str(tmp_path / "ca.pem")})
    server.close()

    assert untrusted.code == 7 and "certificate" in untrusted.err
    assert (trusted.code, len(trusted.posts)) == (0, 1), trusted.err


def test_missing_extra_is_named(audiocli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)

    r = audiocli("transcribe", "s3://bucket/a.wav")

    assert (r.code, 'pip install "audiocli[cloud]"' in r.err) == (4, True)


def test_commands_without_object_stores_say_so(audiocli: CommandLine, bucket: str) -> None:
    (audiocli.directory / "texts.csv").write_text("text\nHello\n")

    r = audiocli("speak", "-F", audiocli.directory / "texts.csv", "-O", f"s3://{bucket}/out")

    assert (r.code, r.requests) == (2, []) and "only transcribe" in r.err


def test_players_get_no_credentials_of_stores() -> None:
    names = ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY", "GOOGLE_SERVICE_ACCOUNT_KEY"]

    environment = build_child_environment(dict.fromkeys(names, "secret"), key_variables=(), keys=())

    assert environment == {}


# --- memory ----------------------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_listing() -> None:
    def list_keys(count: int) -> Iterator[list[ListedObject]]:
        for start in range(0, count, 1_000):
            yield [
                ListedObject(ObjectUrl("s3://b", f"raw/{number:08}.{extension}"), ObjectVersion(1, '"e"'))
                for number in range(start, start + 500)
                for extension in ("mp3", "wav")
            ]

    async def iterate(count: int) -> AsyncIterator[list[ListedObject]]:
        for window in list_keys(count):
            yield window

    async def measure(count: int) -> tuple[int, int]:
        plan = PrefixPlan(ObjectUrl("s3://b", "raw"), ("txt", "srt"), ObjectUrl("s3://b", "out"), lambda url: True)
        item_count = peak_bytes = 0
        tracemalloc.start()
        async for window in plan_windows(iterate(count), plan):
            item_count += len(window)
            assert all("." in output.stem for item in window for _, output in item.outputs)
            gc.collect()  # else it would depend on the tests before when garbage is collected
            peak_bytes = max(peak_bytes, tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        return item_count, peak_bytes

    small_count, small_bytes = asyncio.run(measure(2_000))
    large_count, large_bytes = asyncio.run(measure(20_000))

    # All items of the large listing would take 15 MB more. The table of interned strings may grow by 2 MB.
    assert (small_count, large_count) == (2_000, 20_000)
    assert large_bytes < small_bytes + 4_000_000
