"""POST /v1/decisions as its clients use it: OpenAI's own, and hand-written requests."""

from __future__ import annotations

import base64
import math

import httpx
import pytest

from helpers import SMALL_BUNDLE
from saiqa import Scorer, facts
from saiqa.scorer import DEMO_CAVEAT
from saiqa.service.decisions import LEVELS, confidence
from serving import PICTURES, picture, served_here, write_calibration

URL = "data:image/png;base64," + base64.b64encode(PICTURES[0]).decode()
IMAGE = {"type": "input_image", "image_url": URL}
QUESTION = {
    "type": "score",
    "name": "layout",
    "instructions": "How good is the layout of this room?",
    "levels": [{"label": word} for word in LEVELS],
}


def request(content=(IMAGE,), questions=(QUESTION,), **more) -> dict:
    messages = [{"role": "user", "content": list(content)}]
    return {"model": SMALL_BUNDLE.name, "input": messages, "questions": list(questions), **more}


@pytest.fixture(scope="module")
def expected():
    return Scorer(SMALL_BUNDLE, device="cpu").score(PICTURES[0])


@pytest.fixture(scope="module")
def service():
    with served_here(Scorer(SMALL_BUNDLE, device="cpu"), megapixels=1, request_mb=1) as url:
        yield url


def post(url: str, body: dict, **options) -> httpx.Response:
    return httpx.post(f"{url}/v1/decisions", json=body, timeout=300, trust_env=False, **options)


def test_every_question_is_answered_in_order(service, expected):
    lighting = {**QUESTION, "instructions": [{"type": "input_text", "text": "Rate the Lighting."}]}
    del lighting["name"]
    named = {**QUESTION, "name": "harmony", "instructions": "Rate it.", "levels": [{"label": w.title()} for w in LEVELS]}
    answer = post(service, request(questions=[lighting, named, QUESTION, QUESTION], safety_identifier="x"))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == {"model", "answers", "usage"} and body["model"] == SMALL_BUNDLE.name
    assert [one["name"] for one in body["answers"]] == [None, "harmony", "layout", "layout"]
    for one, name in zip(body["answers"], ("lighting", "harmony", "layout", "layout"), strict=True):
        assert set(one) == {"type", "name", "score", "confidence", "probabilities"}
        assert one["score"] == pytest.approx(expected.scores[name] - 1, abs=1e-5)
        words = expected.probabilities[name]
        assert [level["probability"] for level in one["probabilities"]] == pytest.approx([words[w] for w in LEVELS], abs=1e-5)
        assert [level["value"] for level in one["probabilities"]] == [0, 1, 2, 3, 4]
        assert one["confidence"] == pytest.approx(confidence(words.values()), abs=1e-4)
    assert [level["label"] for level in body["answers"][1]["probabilities"]] == [word.title() for word in LEVELS]
    assert body["usage"]["total_tokens"] == 0 and body["usage"]["input_tokens_details"] == {
        "cached_tokens": 0,
        "cache_write_tokens": 0,
    }


def test_openais_own_client_is_answered(service, expected):
    openai = pytest.importorskip("openai", minversion="3.57.0")
    client = openai.OpenAI(base_url=f"{service}/v1", api_key="none", max_retries=0)
    found = client.decisions.create(**request())
    [answer] = found.answers
    assert (answer.type, answer.name, found.model) == ("score", "layout", SMALL_BUNDLE.name)
    assert answer.score == pytest.approx(expected.scores["layout"] - 1, abs=1e-5)
    assert answer.probabilities[4].label == "excellent"
    type(found).model_validate(found.to_dict())  # the client's models, which it does not validate itself
    with pytest.raises(openai.UnprocessableEntityError, match="nothing is downloaded"):
        client.decisions.create(**request([{"type": "input_image", "image_url": "https://example.org/a.jpg"}]))
    with pytest.raises(openai.NotFoundError, match="this service has"):
        client.decisions.create(**{**request(), "model": "gpt-6-luna"})


def with_levels(*labels: str) -> dict:
    return {**QUESTION, "levels": [{"label": label} for label in labels]}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (request(input="a room"), "text cannot be scored"),
        (request([{"type": "input_text", "text": "a room"}, IMAGE]), "input[0].content[0].type"),
        ({**request(), "input": [{"role": "user", "content": "a room"}]}, "text cannot be scored"),
        ({**request(), "input": [{"role": "system", "content": [IMAGE]}]}, "input[0].role"),
        (request([]), "0 pictures"),
        (request([IMAGE, IMAGE]), "2 pictures"),
        (request([{"type": "input_image", "image_url": "data:image/png,abc"}]), "data URL"),
        (request([{"type": "input_image", "image_url": "data:image/png;base64,#"}]), "not base64"),
        (request([{"type": "input_image", "image_url": "data:image/png;base64,eA=="}]), "cannot read the image"),
        (request([{"type": "input_image", "file_id": "file-1"}]), "image_url"),
        (request(questions=[]), "from 1 to 400"),
        (request(questions=[QUESTION] * 401), "from 1 to 400"),
        (request(questions=[{"type": "predicate", "instructions": "Is the layout good?"}]), "questions[0].type"),
        (request(questions=[with_levels("1", "2", "3", "4", "5")]), "bad, poor, fair, good, excellent"),
        (request(questions=[with_levels(*LEVELS[::-1])]), "in this order"),
        (request(questions=[with_levels(*LEVELS[1:])]), "questions[0].levels"),
        (request(questions=[{**QUESTION, "name": "q1", "instructions": "Is it nice?"}]), "must be about one of"),
        (request(questions=[{**QUESTION, "name": "q1", "instructions": "Layout and lighting?"}]), "must be about one of"),
        (request(questions=[{**QUESTION, "instructions": "How good is the lighting?"}]), "must be about one of"),
        (request(questions=[{**QUESTION, "levels": 5}]), "questions[0].levels"),
        ([], "the body"),
    ],
)
def test_what_no_scorer_can_answer_is_refused_with_the_reason(service, body, said):
    answer = post(service, body)
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert said in error["message"] and error["type"] == "invalid_request_error"


def test_limits_kinds_and_methods_are_those_of_the_service(service):
    large = "data:image/png;base64," + base64.b64encode(picture(0, (1001, 1000))).decode()
    assert post(service, request([{"type": "input_image", "image_url": large}])).status_code == 413
    assert post(service, {**request(), "x": "y" * 1_000_001}).status_code == 413
    for sent in ({"content": b"{"}, {"content": b"[" * 200_000}, {"content": b"\xff"}):
        answer = httpx.post(f"{service}/v1/decisions", headers={"Content-Type": "application/json"}, trust_env=False, **sent)
        assert answer.status_code == 422 and answer.json()["error"]["message"]
    assert httpx.post(f"{service}/v1/decisions", files={"a": b"b"}, trust_env=False).status_code == 422
    assert httpx.get(f"{service}/v1/decisions", trust_env=False).headers["Allow"] == "POST"
    cut = "data:image/png;base64," + base64.b64encode(PICTURES[0][: len(PICTURES[0]) // 2]).decode()
    answer = post(service, request([{"type": "input_image", "image_url": cut}]))
    assert answer.status_code == 422 and "cannot read the image" in answer.json()["error"]["message"]
    metrics = httpx.get(f"{service}/metrics", trust_env=False).text
    assert 'saiqa_requests_total{status="413"} 2.0' in metrics
    schema = httpx.get(f"{service}/openapi.json", trust_env=False).json()["paths"]["/v1/decisions"]["post"]["requestBody"]
    assert "$ref" not in str(schema) and "input_image" in str(schema)


def test_the_token_is_wanted_here_too():
    with served_here(Scorer(SMALL_BUNDLE, device="cpu"), token="secret") as url:
        refused = post(url, request())
        assert refused.status_code == 401 and "Bearer" in refused.json()["error"]["message"]
        assert post(url, request(), headers={"Authorization": "Bearer secret"}).status_code == 200


def test_what_is_not_sure_is_declined_and_the_demo_says_what_it_is(tmp_path):
    scorer = Scorer(demo=True, device="cpu")
    calibrated = Scorer(demo=True, device="cpu", calibration=write_calibration(scorer, tmp_path / "calibration.json"))
    asked = [{**QUESTION, "name": name, "instructions": "Rate it."} for name in facts.DIMENSIONS]
    with served_here(calibrated, max_width=0.9) as url:
        body = post(url, {**request(questions=asked), "model": calibrated.model_name}).json()
    assert body["caveat"] == DEMO_CAVEAT
    types = {one["name"]: one["type"] for one in body["answers"]}
    assert types == {name: "score" if name == "layout" else "refusal" for name in facts.DIMENSIONS}
    assert all(set(one) == {"type", "name"} for one in body["answers"] if one["type"] == "refusal")


def test_confidence_is_how_concentrated_a_distribution_is():
    assert confidence([0, 0, 1, 0, 0]) == 1 and confidence([0.2] * 5) == pytest.approx(0)
    assert confidence([0.5, 0.5, 0, 0, 0]) == pytest.approx(1 - math.log(2) / math.log(5))
