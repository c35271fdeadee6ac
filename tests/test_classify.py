from __future__ import annotations

import pytest

from usms_pipeline.classify import Verdict, classify

BY_CODE = {
    Verdict.OK: [0],
    Verdict.SPLIT: [215392, 215396, 215397],
    Verdict.STOP: [215393, 215394, 215395, 215398, 215399, 170, 172, 174, 290, 295, 299],
    Verdict.RETRY: [215400, 110, 130, 150, 151, 200],
    Verdict.THROTTLE: [153],
    Verdict.SKIP: [1, -1, 169, 175, 289, 300, 215391, 215401, 99999999],
}
BY_STATUS = {
    Verdict.RETRY: [408, 425, 500, 502, 503, 504],
    Verdict.THROTTLE: [429],
    Verdict.STOP: [401, 403],
    Verdict.SPLIT: [413, 414],
    Verdict.SKIP: [301, 302, 307, 400, 404, 405, 418, 501],
}


def cases(table):
    return [(value, verdict) for verdict, values in table.items() for value in values]


@pytest.mark.parametrize(("code", "verdict"), cases(BY_CODE))
def test_a_return_code_inside_http_200_decides(code, verdict):
    assert classify(200, code) is verdict


@pytest.mark.parametrize(("status", "verdict"), cases(BY_STATUS))
def test_an_http_error_without_a_return_code_decides(status, verdict):
    assert classify(status, None) is verdict


def test_no_answer_is_asked_again():
    assert classify(None, None) is Verdict.RETRY


def test_a_success_without_a_return_code_is_asked_again():
    assert classify(200, None) is Verdict.RETRY
    assert classify(204, None) is Verdict.RETRY


@pytest.mark.parametrize(
    ("status", "code", "verdict"),
    [
        (400, 215392, Verdict.SPLIT),
        (500, 215393, Verdict.STOP),
        (429, 215400, Verdict.THROTTLE),
        (503, 153, Verdict.THROTTLE),
        (404, 215400, Verdict.RETRY),
        (503, 777, Verdict.RETRY),
        (403, 215392, Verdict.STOP),
    ],
)
def test_of_status_and_code_the_graver_one_counts(status, code, verdict):
    assert classify(status, code) is verdict


@pytest.mark.parametrize("status", [302, 400, 404, 429, 500, 503, 401])
def test_an_http_error_is_never_ok_whatever_the_code_says(status):
    assert classify(status, 0) is not Verdict.OK
