"""Requests that are too large, too many or too slow get the right status, and the server goes on."""

import io
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from tests.serve.serve_tools import serving

pytestmark = pytest.mark.heavy

HEAD = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\n"


@pytest.fixture(scope="module")
def strict(model):
    options = ("--max-body", "0.2", "--max-images", "3", "--max-megapixels", "0.3", "--timeout", "2")
    with serving(model, *options) as server:
        yield server
        code, err = server.stop()
        assert code == 0
        assert err.count("\n") == 1


def noise(width, height):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def test_a_body_too_large_is_refused_before_it_is_sent(strict):
    with strict.connect() as connection:
        connection.sendall(f"{HEAD}Content-Length: 200001\r\nExpect: 100-continue\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")  # and no 100 Continue
    reply = strict.send(b"x" * 200_001)
    assert (reply.status, reply.content["error"]) == (
        413,
        "the body exceeds 0.2 MB; send several requests",
    )


def test_a_body_of_unknown_length_is_counted_as_it_comes(strict):
    reply = strict.ask("POST", "/predict", iter([b"x" * 50_000] * 5), {"Content-Type": "image/jpeg"})
    assert reply.status == 413
    assert strict.send_form([noise(100, 100)] * 3).status == 200


def test_too_many_images_and_too_many_pixels(strict, photos):
    reply = strict.send_form([b"x"] * 4)
    assert (reply.status, reply.content["error"]) == (422, "more than 3 images in one request; send several requests")
    reply = strict.send(noise(600, 501))
    assert reply.status == 413
    assert "600 x 501 pixels, and the limit is 0.3 megapixels" in reply.content["error"]
    reply = strict.send_form([noise(600, 501), noise(60, 50)])
    assert reply.status == 200
    assert ["error" in one for one in reply.content["predictions"]] == [True, False]


def test_a_slow_body_is_given_up_and_hurts_nobody(strict, photos):
    with strict.connect() as slow:
        slow.sendall(f"{HEAD}Content-Length: {len(photos[0])}\r\n\r\n".encode() + photos[0][:1000])
        began = time.monotonic()
        assert strict.send(photos[0]).status == 200
        answer = b""
        while not answer.endswith(b"}") and (part := slow.recv(10_000)):
            answer += part
        assert time.monotonic() - began > 1.5
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not arrive within 2 s" in answer


def test_more_than_may_wait_is_429_and_the_rest_is_answered(model, photos):
    with serving(model, "--queue", "6", "--max-images", "6", "--threads", "1") as server:
        expected = server.send_form(photos).content
        with ThreadPoolExecutor(24) as pool:
            replies = list(pool.map(lambda _: server.send_form(photos), range(72)))
        statuses = [reply.status for reply in replies]
        assert set(statuses) == {200, 429}
        assert all(reply.content == expected for reply in replies if reply.status == 200)
        refused = next(reply for reply in replies if reply.status == 429)
        assert refused.headers["retry-after"] == "1"
        assert "6 more exceed the queue of 6; try again in a second" in refused.content["error"]
        assert server.send_form(photos).content == expected
        assert server.metric("featx_waiting_images") == 0


def test_no_answer_in_time_is_503_and_nobody_computes_it_any_more(model, photos):
    with serving(model, "--timeout", "0.4", "--threads", "1") as server:
        contents = (photos * 6)[:32]
        with ThreadPoolExecutor(7) as pool:
            replies = list(pool.map(lambda _: server.send_form(contents), range(7)))
        late = [reply for reply in replies if reply.status != 200]
        assert len(late) >= 5
        assert {reply.status for reply in late} == {503}
        assert late[0].content == {"error": "no answer within 0.4 s, since the server is busy; try again later"}
        time.sleep(0.5)
        assert server.metric("featx_batch_images_sum") < 4 * 32  # of 7 * 32
        assert server.send(photos[0]).status == 200


def test_whoever_goes_away_leaves_the_queue(model, photos):
    with serving(model, "--threads", "1") as server:
        contents = (photos * 6)[:32]
        for _ in range(5):
            connection = server.connect()
            body = b"".join(
                f'--b\r\nContent-Disposition: form-data; name="images"; filename="{i}"\r\n\r\n'.encode() + c + b"\r\n"
                for i, c in enumerate(contents)
            )
            head = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            connection.sendall(f"{head}Content-Length: {len(body) + 7}\r\n\r\n".encode() + body + b"--b--\r\n")
            connection.close()
        deadline = time.monotonic() + 30
        while server.metric("featx_requests_in_flight") > 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        assert server.metric("featx_batch_images_sum") < 4 * 32  # of 5 * 32
        assert server.metric("featx_waiting_images") == 0
        assert server.send(photos[0]).status == 200
        assert server.stop()[0] == 0
