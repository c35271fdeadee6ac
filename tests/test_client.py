from __future__ import annotations

import asyncio
import base64
import gzip
import json
import math
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tests.loopback import Response, Seen, code, ok, serving
from usms_pipeline.contract.errors import CredentialsRefused, ServiceDown
from usms_pipeline.service.api import Verdict
from usms_pipeline.service.client import KEPT_BYTES, Client, retry_after_seconds
from usms_pipeline.service.collect import Patience, utc_now
from usms_pipeline.service.fetch import Answer, CollectStats, Fetcher, nothing_answered
from usms_pipeline.service.pace import BreakerLimits, Governor
from usms_pipeline.service.transport import CurlTransport
from usms_pipeline.settings import load

KEY_ID, SECRET = "AKIDtheKeyId", "theVerySecretHalf"
BASIC = base64.b64encode(f"{KEY_ID}:{SECRET}".encode()).decode()


def settings(url, **more):
    return load(base_url=url, access_key_id=KEY_ID, access_key_secret=SECRET, **more)


def ask(url, ids, max_body_bytes=1_000_000, transport=None, **more):
    """Send one request; give the reply."""

    async def main():
        connection = transport or CurlTransport()
        async with connection:
            client = Client(settings(url, **more), connection, utc_now, max_body_bytes)
            return await client.ask(ids)

    return asyncio.run(main())


class Fetched:
    """What came of fetching one batch, with pauses recorded in place of slept."""

    def __init__(self, url, ids, max_body_bytes=1_000_000, patience=None, **more):
        self.answers: list[Answer] = []
        self.stats = CollectStats()
        self.pauses: list[float] = []
        self.error: Exception | None = None
        asyncio.run(self._fetch(url, ids, max_body_bytes, patience, more))

    async def _fetch(self, url, ids, max_body_bytes, patience, more):
        now = 0.0

        async def sleep(seconds):
            nonlocal now
            now += seconds
            self.pauses.append(seconds)
            await asyncio.sleep(0)

        def clock():
            return now

        async with CurlTransport() as transport:
            client = Client(settings(url, **more), transport, utc_now, max_body_bytes)
            governor = Governor(1e6, clock=clock, sleep=sleep)
            fetcher = Fetcher(
                client, governor, self.stats, patience,
                sleep=sleep, uniform=lambda _, high: high, monotonic=clock,
            )  # fmt: skip
            try:
                await fetcher.fetch(tuple(ids), self.answers.append)
                await fetcher.finish()
            except (CredentialsRefused, ServiceDown) as error:
                self.error = error

    def ids(self, verdict):
        return sorted(i for a in self.answers if a.verdict == verdict for i in a.ids)


def script(*responses, then=None):
    """Answer with each of these in turn, then as the service does when all is well."""
    left = list(responses)

    def handler(seen: Seen) -> Response:
        response = left.pop(0) if left else then or ok
        return response(seen.ids) if callable(response) else response

    return handler


IDS = [f"session-{n:03}" for n in range(100)]


# What goes over the wire


def test_a_request_is_what_the_service_documents():
    with serving(lambda seen: ok(seen.ids)) as server:
        reply = ask(server.url, ["a", "b"])
    [seen] = server.seen
    assert reply.verdict is Verdict.OK
    assert seen.target == "/api/v1/usms/USMSSendReceipt?id=a&id=b"
    assert seen.headers["authorization"] == f"Basic {BASIC}"
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["user-agent"].startswith("usms-pipeline/")
    assert seen.headers["host"] == server.url.removeprefix("http://")
    assert "cookie" not in seen.headers


def test_a_path_in_the_base_url_is_kept():
    with serving(lambda seen: ok(seen.ids)) as server:
        ask(f"{server.url}/proxy/", ["a"])
    assert server.seen[0].target == "/proxy/api/v1/usms/USMSSendReceipt?id=a"


def test_odd_ids_arrive_as_they_are():
    odd = ["a&id=b", "c#d", "e+f", "g h", "会话", "i/j", "k%20l", "m=n", "?o", "p\"q'", "r;s", "~."]
    with serving(lambda seen: ok(seen.ids)) as server:
        ask(server.url, odd)
    assert server.seen[0].ids == odd
    assert "+" not in server.seen[0].target


@pytest.mark.parametrize("ids", [[], [""], ["a", "a"], ["a", ""], [str(n) for n in range(101)]])
def test_a_batch_is_1_to_100_distinct_ids(ids):
    with serving(lambda seen: ok(seen.ids)) as server:
        with pytest.raises(ValueError, match="1 to 100 distinct"):
            ask(server.url, ids)
        assert server.seen == []


def test_cookies_are_not_kept():
    async def main(url):
        async with CurlTransport() as transport:
            client = Client(settings(url), transport, utc_now)
            await client.ask(["a"])
            await client.ask(["b"])

    with serving(lambda seen: Response(b"{}", headers={"Set-Cookie": "a=b"})) as server:
        asyncio.run(main(server.url))
    assert all("cookie" not in seen.headers for seen in server.seen)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(status):
    with serving(lambda seen: ok(seen.ids)) as other:
        elsewhere = {"Location": f"{other.url}/api/v1/usms/USMSSendReceipt?id=a"}
        with serving(lambda seen: Response(status=status, headers=elsewhere)) as server:
            fetched = Fetched(server.url, ["a"])
        assert other.seen == []
        assert len(server.seen) == 1
    assert fetched.stats.ids_given_up == 1
    [problem] = fetched.stats.problems
    assert f"HTTP {status}" in problem
    assert "USMS_BASE_URL" in problem


# What comes back


@pytest.mark.parametrize("value", [0, "0", " 0 "])
def test_a_return_code_may_be_text(value):
    with serving(script(code(value))) as server:
        assert ask(server.url, ["a"]).ret_code == 0


@pytest.mark.parametrize("value", [None, True, [0], 0.5, "zero", "", 10**30, {"a": 1}])
def test_a_return_code_of_another_kind_is_none(value):
    with serving(script(code(value))) as server:
        reply = ask(server.url, ["a"])
    assert reply.ret_code is None
    assert reply.is_unreadable


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b'{"RetCode":0', b"[1]", b"null", b'"x"', b"\xff", b"[" * 100_000, b"{}"],
)
def test_a_body_of_another_shape_is_unreadable_and_kept(body):
    with serving(script(Response(body))) as server:
        reply = ask(server.url, ["a"])
    assert reply.is_unreadable
    assert reply.verdict is Verdict.RETRY
    assert reply.body == body


@pytest.mark.parametrize("more", [{}, {"Data": None}, {"Data": []}])
def test_no_data_at_all_is_an_answer(more):
    with serving(script(code(0, "success", **more))) as server:
        assert ask(server.url, ["a"]).verdict is Verdict.OK


def test_a_refusal_is_judged_by_its_code_not_by_its_data():
    with serving(script(code(215392, "Invalid parameter [id]", Data={}))) as server:
        assert ask(server.url, ["a"]).verdict is Verdict.SPLIT


def test_an_error_body_is_read_too():
    with serving(script(code("215392", "Invalid parameter [id]", status=400))) as server:
        reply = ask(server.url, ["a"])
    assert (reply.http_status, reply.ret_code) == (400, 215392)
    assert reply.message == "Invalid parameter [id]"


def test_deflate_is_understood():
    packed = zlib.compress(ok(["a"]).body)
    with serving(script(Response(packed, headers={"Content-Encoding": "deflate"}))) as server:
        assert ask(server.url, ["a"]).ret_code == 0


PACKED = gzip.compress(ok(IDS).body, mtime=0)  # the same in each process
BROTLI = b"\x1b\x1f\x00\xf8\x8d\x94n\xde\x01\x04"


@pytest.mark.parametrize(
    ("body", "label", "words"),
    [
        (PACKED[:-9], "gzip", "corrupt or ends early"),
        (PACKED[:30], "gzip", "corrupt or ends early"),
        (PACKED + b"\0x", "gzip", "corrupt or ends early"),
        (zlib.compress(ok(IDS).body)[:-9], "deflate", "corrupt or ends early"),
        (PACKED[:-9], "", "corrupt or ends early"),
        (BROTLI, "br", "in a way that was not asked for"),
        (zlib.compress(b"{}", wbits=-15), "deflate", "in a way that was not asked for"),
        (BROTLI, "gzip, br", "in a way that was not asked for"),
    ],
)
def test_a_body_that_can_not_be_unpacked_is_no_answer_and_is_asked_for_unpacked(body, label, words):
    def handler(seen):
        if "gzip" in seen.headers["accept-encoding"]:
            return Response(body, headers={"Content-Encoding": label} if label else {})
        return ok(seen.ids)

    with serving(handler) as server:
        reply = ask(server.url, ["a"])
        assert (reply.http_status, reply.verdict) == (None, Verdict.RETRY)
        assert words in reply.message
        fetched = Fetched(server.url, IDS)
        assert len(server.seen) == 1 + 2
    assert fetched.ids("ok") == IDS


@pytest.mark.parametrize("label", ["", "gzip", "deflate", "gzip, gzip", "br", "identity", "GZIP"])
@pytest.mark.parametrize(
    "packed",
    [
        lambda body: body,
        lambda body: b" \n" + body,
        gzip.compress,
        lambda body: gzip.compress(gzip.compress(body)),
        lambda body: gzip.compress(body) + bytes(50),
        lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:]) + bytes(20_000),
    ],
)
def test_compression_is_detected_by_the_first_bytes_not_by_the_header(label, packed):
    body = packed(ok(["a"]).body)
    with serving(script(Response(body, headers={"Content-Encoding": label}))) as server:
        assert ask(server.url, ["a"]).verdict is Verdict.OK


def test_an_answer_that_trickles_is_cut_off_by_the_time_for_the_whole():
    with serving(script(Response(b"x" * 100, trickle_seconds=0.02))) as server:
        reply = ask(server.url, ["a"], timeout_seconds=0.2)
    assert reply.message == "no whole answer within 0.2 s"


def test_asked_at_is_before_the_request():
    before = utc_now()
    with serving(lambda seen: ok(seen.ids)) as server:
        reply = ask(server.url, ["a"])
    assert before <= reply.asked_at <= utc_now()
    assert reply.asked_at.utcoffset() == timedelta(0)


# Asking again


NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("1.5", 1.5), ("nan", None), ("1e9", None),
        ("7", 7), ("0", 0), (" 12 ", 12), ("", None), (None, None), ("soon", None), ("-5", None),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0),
        ("Mon, 1 Jan 2024 00:00:00 +99999999999999", None),
        ("Mon, 1 Jan 99999999999 00:00:00 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(header, seconds):
    assert retry_after_seconds(header, NOW) == seconds


@pytest.mark.parametrize("kind", ["seconds", "date"])
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_waited_for(kind, status):
    date = format_datetime(utc_now() + timedelta(seconds=31), usegmt=True)
    header = {"Retry-After": "30" if kind == "seconds" else date}
    with serving(script(Response(status=status, headers=header))) as server:
        fetched = Fetched(server.url, ["a"])
        assert len(server.seen) == 2
    assert fetched.ids("ok") == ["a"]
    assert 28 <= math.fsum(fetched.pauses) <= 32


def test_a_retry_after_of_an_hour_is_cut_to_a_minute():
    header = {"Retry-After": "3600"}
    with serving(script(Response(status=429, headers=header))) as server:
        fetched = Fetched(server.url, ["a"])
    assert fetched.ids("ok") == ["a"]
    assert math.fsum(fetched.pauses) <= 61


def test_a_429_without_retry_after_still_retries():
    with serving(script(*[Response(status=429)] * 8)) as server:
        fetched = Fetched(server.url, ["a"])
    assert fetched.ids("ok") == ["a"]
    assert (fetched.stats.throttled, fetched.stats.retries, fetched.stats.requests) == (8, 8, 9)


@pytest.mark.parametrize(
    "response",
    [
        *(Response(b"<h1>oops</h1>", status) for status in (408, 425, 500, 502, 503, 504)),
        code(215400, "server error"),
        code("110", "time-out", status=200),
        Response(b"<html>maintenance</html>"),
        Response(ok(IDS).body[:-20]),
        Response(ok(IDS).body, cut=500),
        Response(ok(IDS).body, cut=500, is_reset=True),
    ],
)
def test_a_temporary_failure_is_retried(response):
    with serving(script(response, response)) as server:
        fetched = Fetched(server.url, IDS)
        assert len(server.seen) == 3
    assert fetched.ids("ok") == IDS
    assert (fetched.stats.ids_asked, fetched.stats.ids_answered) == (100, 100)
    assert fetched.stats.problems == {}


def test_pauses_double_and_attempts_end():
    with serving(script(then=Response(status=500))) as server:
        fetched = Fetched(server.url, IDS, patience=Patience(attempts=5))
        assert [len(seen.ids) for seen in server.seen] == [100] * 5 + [1] * 3
    assert [round(pause) for pause in fetched.pauses if pause > 0.1] == [1, 2, 4, 8]
    assert fetched.answers == []
    assert fetched.stats.ids_given_up == 100
    assert fetched.stats.problems == {
        "HTTP 500: the answer is not the JSON object it should be.": 1
    }


def test_patience_with_one_batch_ends_also_in_time():
    patience = Patience(batch_seconds=30, breaker=BreakerLimits(throttled_seconds=1e9))
    with serving(script(then=Response(status=429))) as server:
        fetched = Fetched(server.url, ["a"], patience=patience)
    assert fetched.stats.ids_given_up == 1
    assert 25 <= math.fsum(fetched.pauses) <= 31


# Splitting


@pytest.mark.parametrize("status", [413, 414])
def test_a_batch_too_large_for_the_service_is_halved(status):
    def handler(seen):
        return Response(status=status) if len(seen.ids) > 30 else ok(seen.ids)

    with serving(handler) as server:
        fetched = Fetched(server.url, IDS)
    assert fetched.ids("ok") == IDS
    assert fetched.stats.splits == 3


def test_a_large_answer_is_halved_and_a_large_lone_one_keeps_its_beginning():
    def handler(seen):
        padding = "x" * (200_000 if "session-007" in seen.ids else 0)
        data = [{"SessionNo": i, "Pad": padding} for i in seen.ids]
        return Response(json.dumps({"RetCode": 0, "Data": data}).encode())

    with serving(handler) as server:
        fetched = Fetched(server.url, IDS, max_body_bytes=150_000)
    assert fetched.ids("refused") == ["session-007"]
    assert fetched.ids("ok") == sorted(set(IDS) - {"session-007"})
    [refused] = [answer for answer in fetched.answers if answer.verdict == "refused"]
    assert len(refused.body) == KEPT_BYTES
    assert refused.ret_code is None
    assert "larger than 0.15 MB" in refused.reason


# Giving up


def test_an_unknown_return_code_gives_up_the_batch_and_is_reported():
    words = "quota of session-001 used up, call 13800138000"
    with serving(script(then=code(4711, words))) as server:
        fetched = Fetched(server.url, IDS)
        assert len(server.seen) == 1 + 3
    assert fetched.stats.ids_given_up == 100
    assert fetched.stats.problems == {"RetCode 4711: quota of … used up, call ….": 1}


def test_the_kinds_of_problems_are_bounded():
    stats = CollectStats()
    for n in range(1000):
        stats.problem(f"problem {n}")
    assert len(stats.problems) < 100
    assert sum(stats.problems.values()) == 1000


@pytest.mark.parametrize(
    "response",
    [
        Response(status=401),
        Response(b"<h1>Forbidden</h1>", 403),
        code(215393, "signature error"),
        code("172", "no permission", status=400),
    ],
)
def test_refused_credentials_stop_at_once_and_name_the_settings(response):
    with serving(script(then=response)) as server:
        fetched = Fetched(server.url, IDS)
        assert len(server.seen) <= 1 + 3
    assert isinstance(fetched.error, CredentialsRefused)
    settings = "Check USMS_ACCESS_KEY_ID and USMS_ACCESS_KEY_SECRET, and that the key may be used"
    assert settings in str(fetched.error)


def test_nothing_answered_is_a_service_that_is_down_and_anything_else_is_not():
    down = CollectStats(ids_given_up=3, problems={"no answer: refused.": 2})
    assert "2 × no answer: refused." in str(nothing_answered(down))
    named = CollectStats(ids_given_up=3, problems={"can't reach it: check USMS_BASE_URL": 2})
    for stats in (down, named):
        assert str(nothing_answered(stats)).count("USMS_BASE_URL") == 1
    for answered in ("ids_answered", "ids_refused", "ids_unanswered", "unreadable"):
        assert nothing_answered(CollectStats(ids_given_up=3, **{answered: 1})) is None
    assert nothing_answered(CollectStats()) is None


def test_an_expired_timestamp_names_the_clock():
    with serving(script(then=code(215395, "timestamp expired"))) as server:
        fetched = Fetched(server.url, IDS)
    assert "RetCode 215395 (timestamp expired)" in str(fetched.error)
    assert "clock" in str(fetched.error)


def test_the_services_words_are_cut_printable_and_without_secrets_or_ids():
    words = f"{SECRET}\x1b[31m\n {KEY_ID} session-001 +86 138-0013-8000 " + "x" * 500
    with serving(script(then=code(215393, words))) as server:
        fetched = Fetched(server.url, IDS)
    text = str(fetched.error)
    assert text.isprintable()
    assert len(text) < 500
    for private in (SECRET, KEY_ID, "session-001", "8000"):
        assert private not in text
